//! Why a job does not run: what an operator would find who looked everywhere, in sentences.

mod told;

use std::time::Duration;

use serde::Serialize;

use super::store::Store;
use crate::backend::{Filter, Order, Pause, WorkerRecord};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Member;
use crate::id::{FlowId, JobId, WorkerId};
use crate::job::{JobRecord, Reason, State};
use crate::name::{Kind, LimitKey, QueueName, Tag};
use crate::policy::Rate;
use crate::time::Timestamp;

/// How many jobs are looked at to find those that stand before it, and how many that run.
const JOBS: usize = 10_000;
/// How many jobs that it waits for are read in one call.
const PARENTS: usize = 500;
/// How many workers are looked at, the newest.
const WORKERS: usize = 1_000;

/// One reason why a job does not run now, or what there is to be said of one that does or did. `Display` is a sentence.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// It has ended.
    Ended {
        /// As what.
        state: State,
        /// Why.
        reason: Option<Reason>,
        /// When.
        at: Option<Timestamp>,
        /// What its latest failure says.
        failure: Option<String>,
    },
    /// It runs.
    Running {
        /// By whom.
        worker: Option<WorkerId>,
        /// For how long.
        since: Duration,
        /// Whether somebody asked to cancel it.
        cancel_requested: bool,
    },
    /// Its lease has run out, and nobody has taken it back yet.
    LeaseOver {
        /// Who held it.
        worker: Option<WorkerId>,
        /// For how long.
        since: Duration,
        /// Whether there is a living worker to take it back.
        is_anybody_there: bool,
    },
    /// It is parked: it waits until somebody unparks it.
    Parked,
    /// It waits for other jobs of its flow.
    Flow {
        /// Which flow.
        flow: FlowId,
        /// The first one that it waits for.
        parent: Option<JobId>,
        /// In which state that is; none if it is there no more.
        state: Option<State>,
    },
    /// It is not due yet.
    NotDue {
        /// When it is.
        due: Timestamp,
        /// How long that takes.
        left: Duration,
        /// Why it waits, as for its retry.
        reason: Option<Reason>,
    },
    /// Its queue is paused, or a root that it lies under.
    Paused {
        /// Which.
        queue: QueueName,
        /// By whom, and why.
        pause: Pause,
    },
    /// As many jobs of its limit key run as may.
    Limit {
        /// The key.
        key: LimitKey,
        /// How many may run.
        max: u32,
        /// One that runs.
        holder: JobId,
        /// Until when that has its lease.
        until: Option<Timestamp>,
    },
    /// Its queue gives out only so many in a span of time.
    Rate {
        /// Which queue.
        queue: QueueName,
        /// How many.
        rate: Rate,
    },
    /// No living worker takes from its queue.
    NoWorkerOfQueue {
        /// The queue.
        queue: QueueName,
        /// How many workers live at all.
        alive: usize,
    },
    /// Living workers take from its queue, and none of them takes its kind.
    NoWorkerOfKind {
        /// The kind.
        kind: Kind,
    },
    /// Living workers take its kind from its queue, and all of them want other tags.
    NoWorkerOfTags {
        /// Its tags.
        tags: Vec<Tag>,
    },
    /// Others stand before it.
    Behind {
        /// How many that are due in its queue, at least.
        jobs: usize,
        /// How many of these have a higher priority.
        higher: usize,
        /// Whether there may be more.
        more: bool,
    },
    /// All that could take it are busy.
    Busy {
        /// How many.
        workers: usize,
    },
    /// Nothing is in its way: the next claim gives it out.
    Next,
}

impl Store {
    /// Tells why a job does not run, the reason that must be mended first before all others. It looks at a bounded number of jobs and
    /// workers.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such job.
    pub async fn why(&self, job: JobId) -> Result<Vec<Why>> {
        let missing = || Error::new(ErrorKind::NotFound, format!("there is no job {job}"));
        let record = self.find(job).await?.ok_or_else(missing)?;
        let now = self.now().await?;
        Ok(match record.state {
            State::Succeeded | State::Failed | State::Cancelled => vec![ended(&record)],
            State::Running => vec![self.running(&record, now).await?],
            _ if record.is_parked() => vec![self.parked(&record).await?],
            State::Scheduled | State::Queued => self.waiting(&record, now).await?,
        })
    }

    async fn running(&self, job: &JobRecord, now: Timestamp) -> Result<Why> {
        match job.lease_until.filter(|until| *until < now) {
            Some(until) => {
                let is_anybody_there = !self.alive().await?.is_empty();
                Ok(Why::LeaseOver { worker: job.worker, since: now.since(until), is_anybody_there })
            }
            None => {
                let since = job.started_at.map_or(Duration::ZERO, |at| now.since(at));
                Ok(Why::Running { worker: job.worker, since, cancel_requested: job.cancel_requested })
            }
        }
    }

    async fn parked(&self, job: &JobRecord) -> Result<Why> {
        let Some(Member { flow, index }) = Member::of(job) else { return Ok(Why::Parked) };
        let parents = self.flows().members(flow, index, 1).await?;
        let parents = parents.into_iter().flat_map(|member| member.parents).flatten().take(JOBS);
        let ids: Vec<JobId> = parents.map(|parent| flow.member(parent)).collect();
        for ids in ids.chunks(PARENTS.min(self.limits().batch)) {
            let states =
                self.find_all(ids.to_vec()).await?.into_iter().map(|parent| parent.map(|it| it.state));
            let unwell = ids.iter().zip(states).find(|(_, state)| *state != Some(State::Succeeded));
            if let Some((id, state)) = unwell {
                return Ok(Why::Flow { flow, parent: Some(*id), state });
            }
        }
        Ok(Why::Flow { flow, parent: None, state: None })
    }

    /// All that is in the way of a job which waits.
    async fn waiting(&self, job: &JobRecord, now: Timestamp) -> Result<Vec<Why>> {
        let mut why = Vec::new();
        if job.due > now {
            why.push(Why::NotDue { due: job.due, left: job.due.since(now), reason: job.reason });
        }
        let settings = self.queues().await?;
        let roots: Vec<QueueName> = job.queue.roots().chain([job.queue.clone()]).collect();
        for record in settings.iter().filter(|record| roots.contains(&record.queue)) {
            if let Some(pause) = record.settings.pause.clone() {
                why.push(Why::Paused { queue: record.queue.clone(), pause });
            }
        }
        why.extend(self.full_limit(job).await?);
        let alive = self.alive().await?;
        let takers = takers(job, &alive);
        why.extend(takers.as_ref().err().cloned());
        let rate = settings.iter().find(|record| record.queue == job.queue).and_then(|it| it.settings.rate);
        why.extend(rate.map(|rate| Why::Rate { queue: job.queue.clone(), rate }));
        if job.due <= now {
            why.extend(self.before(job).await?);
        }
        if let Ok(takers) = takers
            && takers.iter().all(|worker| worker.info.running >= worker.info.concurrency)
        {
            why.push(Why::Busy { workers: takers.len() });
        }
        if why.is_empty() {
            why.push(Why::Next);
        }
        Ok(why)
    }

    async fn full_limit(&self, job: &JobRecord) -> Result<Option<Why>> {
        let Some(limit) = &job.options.limit else { return Ok(None) };
        let running = Filter { states: Some(vec![State::Running]), ..Filter::default() };
        let shares = |other: &JobRecord| other.options.limit.as_ref().is_some_and(|it| it.key == limit.key);
        let mut holders = self.first_of(running, Order::OldestFirst).await?;
        holders.retain(shares);
        let full = holders.len() >= limit.max as usize;
        let first = holders.first().filter(|_| full);
        Ok(first.map(|first| Why::Limit {
            key: limit.key.clone(),
            max: limit.max,
            holder: first.id,
            until: first.lease_until,
        }))
    }

    /// How many stand before it in its queue.
    async fn before(&self, job: &JobRecord) -> Result<Option<Why>> {
        let queues = Some(vec![job.queue.clone()]);
        let queued = Filter { states: Some(vec![State::Queued]), queues, ..Filter::default() };
        let due = self.first_of(queued, Order::OldestFirst).await?;
        let more = due.len() >= JOBS;
        let place = |job: &JobRecord| (std::cmp::Reverse(job.options.priority), job.due, job.id);
        let before: Vec<&JobRecord> = due.iter().filter(|other| place(other) < place(job)).collect();
        let higher = before.iter().filter(|other| other.options.priority > job.options.priority).count();
        Ok((!before.is_empty()).then_some(Why::Behind { jobs: before.len(), higher, more }))
    }

    /// Some jobs that match.
    async fn first_of(&self, filter: Filter, order: Order) -> Result<Vec<JobRecord>> {
        use futures::{StreamExt, TryStreamExt};
        self.list_all(filter, order).take(JOBS).try_collect().await
    }

    /// The newest workers, of those that live.
    async fn alive(&self) -> Result<Vec<WorkerRecord>> {
        let mut workers = self.newest_workers(WORKERS).await?;
        workers.retain(WorkerRecord::is_alive);
        Ok(workers)
    }
}

fn ended(job: &JobRecord) -> Why {
    let failure = job.last_failure().filter(|_| job.state == State::Failed);
    let failure = failure.map(|failure| format!("{}: {}", failure.class, failure.message));
    Why::Ended { state: job.state, reason: job.reason, at: job.finished_at, failure }
}

/// Those workers that take such a job, or what is missing.
fn takers<'w>(job: &JobRecord, alive: &'w [WorkerRecord]) -> Result<Vec<&'w WorkerRecord>, Why> {
    let of_queue: Vec<&WorkerRecord> = alive
        .iter()
        .filter(|worker| worker.info.queues.iter().any(|queue| queue.means(&job.queue)))
        .collect();
    if of_queue.is_empty() {
        return Err(Why::NoWorkerOfQueue { queue: job.queue.clone(), alive: alive.len() });
    }
    let takes_kind =
        |worker: &&WorkerRecord| worker.info.kinds.is_empty() || worker.info.kinds.contains(&job.kind);
    let of_kind: Vec<&WorkerRecord> = of_queue.into_iter().filter(takes_kind).collect();
    if of_kind.is_empty() {
        return Err(Why::NoWorkerOfKind { kind: job.kind.clone() });
    }
    // Workers say their tags and not how they read them; either way one of the two sets has the other in it.
    let tags = &job.options.tags;
    let takes_tags = |worker: &&WorkerRecord| {
        let wanted = &worker.info.tags;
        wanted.iter().all(|tag| tags.contains(tag)) || tags.iter().all(|tag| wanted.contains(tag))
    };
    let of_tags: Vec<&WorkerRecord> = of_kind.into_iter().filter(takes_tags).collect();
    if of_tags.is_empty() {
        return Err(Why::NoWorkerOfTags { tags: tags.iter().cloned().collect() });
    }
    Ok(of_tags)
}
