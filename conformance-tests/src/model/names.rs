//! What the small numbers of a step stand for in one sequence: names that no other sequence has.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_core::backend::{
    Action, Claim, ExpiredLease, Filter, KindRule, Level, LogAppend, LogLine, NewFailure, NewLine, Renewal,
    Settlement, Space, TagRule, Verdict, WorkerInfo,
};
use leasehold_core::{
    Due, JobId, Kind, LeasedJob, Limit, NewJob, OnConflict, Progress, QueueName, Reason, RegisterName, Tag,
    Timestamp, Unique, WorkerId,
};
use uuid::Uuid;

use super::reference::Line;
use super::step::{self, JobDue, Rule};
use crate::bench::{
    CANCEL, failure, kind, limit_key, queue, schedule_name, tag, text, unique_key, worker_name,
};

pub(super) struct Names {
    sequence: u64,
    ids: u128,
}

impl Names {
    pub(super) fn fresh() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let sequence = LAST.fetch_add(1, Ordering::Relaxed);
        Self { sequence, ids: u128::from(fastrand::u64(..)) << 64 | u128::from(sequence) << 8 }
    }

    fn of(&self, what: &str, number: u8) -> String {
        format!("{what}{number}-{}", self.sequence)
    }

    /// The second lies under the first.
    pub(super) fn queue(&self, number: u8) -> QueueName {
        match number {
            0 => queue(&format!("{}/", self.of("q", 0))),
            1 => queue(&format!("{}/{}", self.of("q", 0), self.of("q", 1))),
            _ => queue(&self.of("q", number)),
        }
    }

    pub(super) fn queues(&self) -> Vec<QueueName> {
        (0..step::QUEUES).map(|number| self.queue(number)).collect()
    }

    /// The register of a number: every other one shares its name with one of another space.
    pub(super) fn register(&self, number: u8) -> (Space, RegisterName) {
        let space = if number.is_multiple_of(2) { Space::Schedule } else { Space::Lock };
        (space, schedule_name(&self.of("s", number / 2)))
    }

    pub(super) fn worker(&self, number: u8) -> WorkerInfo {
        WorkerInfo::new(worker_name(&self.of("w", number)), "a-host", u32::from(number))
    }

    /// The id of a number. Their order has nothing to do with that of the enqueues.
    fn id(&self, number: u8) -> JobId {
        JobId::from_uuid(Uuid::from_u128(self.ids | u128::from(number)))
    }

    /// Each id once, and one that was never enqueued.
    pub(super) fn all_ids(&self, jobs: &[JobId]) -> Vec<JobId> {
        let mut ids: BTreeSet<JobId> = jobs.iter().copied().collect();
        ids.insert(self.id(0));
        ids.into_iter().collect()
    }

    /// The jobs of a batch, in which those of one number are one job, told twice.
    pub(super) fn jobs(&self, specs: &[step::Job], now: Timestamp) -> Vec<NewJob> {
        let first = |spec: &step::Job| specs.iter().find(|other| other.number == spec.number).cloned();
        specs.iter().filter_map(first).map(|spec| self.job(&spec, now)).collect()
    }

    fn job(&self, spec: &step::Job, now: Timestamp) -> NewJob {
        let mut job = NewJob::new(one_kind(spec.kind), text(&format!("{{\"number\": {}.0}}", spec.number)));
        job.id = self.id(spec.number);
        job.queue = self.queue(spec.queue);
        let debounced = matches!(spec.unique, Some((_, _, OnConflict::Debounce { .. })));
        job.due = match spec.due {
            // The layers let no debounced job be parked.
            JobDue::Said(Due::PARKED) if debounced => Due::Now,
            JobDue::Said(due) => due,
            JobDue::Before(span) => Due::At(now.minus(span)),
        };
        let options = &mut job.options;
        options.priority = spec.priority;
        options.tags = some_tags(spec.tags);
        options.max_attempts = spec.max_attempts;
        options.lease = spec.lease;
        options.unique = spec
            .unique
            .map(|(key, scope, rule)| Unique::new(unique_key(&self.of("u", key)), scope).on_conflict(rule));
        options.limit = spec.limit.map(|(key, max, ends)| {
            let limit = Limit::new(limit_key(&self.of("l", key)), max);
            if ends { limit.or_end() } else { limit }
        });
        job.keep(spec.keep)
    }

    pub(super) fn claim(&self, spec: &step::Claim, workers: &[WorkerId]) -> Claim {
        let queues = (0..step::QUEUES).filter(|bit| spec.queues >> bit & 1 == 1).map(|bit| self.queue(bit));
        let mut claim = Claim::new(workers[usize::from(spec.worker)], queues, spec.limit, spec.lease);
        claim.kinds = match spec.kinds {
            Rule::Any => KindRule::Any,
            Rule::First(bits) => KindRule::Only(some_kinds(bits)),
            Rule::Second(bits) => KindRule::Except(some_kinds(bits)),
        };
        claim.tags = match spec.tags {
            Rule::Any => TagRule::Any,
            Rule::First(bits) => TagRule::JobHasAll(some_tags(bits)),
            Rule::Second(bits) => TagRule::WorkerHasAll(some_tags(bits)),
        };
        claim.min_priority = spec.min_priority;
        claim.rated = spec.rated;
        claim
    }

    pub(super) fn renewal(&self, spec: &step::Renewal, lease: &LeasedJob) -> Renewal {
        let progress = |done| Progress {
            done,
            total: Some(100),
            message: format!("{done} of $100 in {}", self.sequence),
            cursor: (done % 2 == 0).then(|| format!("[{done}, \"$\"]")),
        };
        Renewal {
            job: lease.job.id,
            token: lease.token,
            lease: spec.span,
            progress: spec.progress.map(progress),
        }
    }

    pub(super) fn settlement(&self, spec: &step::Settlement, lease: &LeasedJob) -> Settlement {
        let why = spec.failure.then(|| failure("broken", &format!("\"$oh\": {}", self.sequence)));
        let mut verdict = spec.verdict.clone();
        if let Verdict::Retry { queue, .. } = &mut verdict {
            *queue = spec.queue.map(|number| self.queue(number));
        }
        Settlement { job: lease.job.id, token: lease.token, verdict, failure: why }
    }

    /// Ends a job, if it is still held.
    pub(super) fn end(&self, lease: &LeasedJob) -> Settlement {
        Settlement { job: lease.job.id, token: lease.token, verdict: CANCEL, failure: None }
    }

    pub(super) fn recovery(&self, lost: &ExpiredLease, retry: bool, delay: Duration) -> Settlement {
        let verdict = match retry {
            true => Verdict::Retry { reason: Reason::LeaseExpired, delay, queue: None },
            false => Verdict::Fail { reason: Reason::Poison },
        };
        let why = NewFailure {
            reason: Reason::LeaseExpired,
            class: "lost".into(),
            message: format!("in {}", self.sequence),
        };
        Settlement { job: lost.job, token: lost.token, verdict, failure: Some(why) }
    }

    pub(super) fn append(&self, lease: &LeasedJob, position: u64, lines: usize) -> LogAppend {
        let line = |n: usize| {
            let message = format!("line {} of {}", position + n as u64, self.sequence);
            NewLine { level: Level::Info, message }
        };
        LogAppend { job: lease.job.id, token: lease.token, position, lines: (0..lines).map(line).collect() }
    }

    pub(super) fn action(&self, spec: &step::Action, now: Timestamp) -> Action {
        match *spec {
            step::Action::Cancel => Action::Cancel,
            step::Action::Requeue(due) => Action::Requeue { due },
            step::Action::Delete => Action::Delete,
            step::Action::Move(to) => Action::Move { queue: self.queue(to) },
            step::Action::Reprioritise(priority) => Action::Reprioritise { priority },
            step::Action::Postpone(due) => Action::Postpone { due },
            step::Action::Unpark(due) => Action::Unpark { due },
            step::Action::CancelParked => Action::CancelParked,
            step::Action::Withdraw => Action::Withdraw,
            step::Action::Restore => Action::Restore,
            step::Action::DeleteEnded(millis) => {
                Action::DeleteEnded { by: now.minus(Duration::from_millis(millis)) }
            }
        }
    }

    /// Other sequences' jobs are none of its business.
    pub(super) fn any_queue(&self) -> Filter {
        let mut filter = Filter::default();
        filter.queues = Some(self.queues());
        filter
    }

    pub(super) fn filter(&self, spec: &step::Filter) -> Filter {
        let mut filter = self.any_queue();
        if let Some(number) = spec.queue {
            filter.queues = Some(vec![self.queue(number)]);
        }
        filter.states.clone_from(&spec.states);
        filter.kinds = spec.kind.map(|number| vec![one_kind(number)]);
        filter.tags = spec.tag.map(|number| vec![one_tag(number)]);
        filter
    }
}

/// A log line without its sequence.
pub(super) fn line(line: LogLine) -> Line {
    Line { attempt: line.attempt, worker: line.worker, at: line.at, message: line.message }
}

fn one_kind(number: u8) -> Kind {
    kind(&format!("kind{number}"))
}

fn one_tag(number: u8) -> Tag {
    tag(&format!("tag{number}"))
}

fn some_kinds(bits: u8) -> BTreeSet<Kind> {
    (0..step::KINDS).filter(|bit| bits >> bit & 1 == 1).map(one_kind).collect()
}

fn some_tags(bits: u8) -> BTreeSet<Tag> {
    (0..step::TAGS).filter(|bit| bits >> bit & 1 == 1).map(one_tag).collect()
}
