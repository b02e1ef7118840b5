use std::collections::VecDeque;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::plan::{CatchUp, Overlap};
use super::rule::{Rule, moment};
use crate::backend::{PutRegister, Register, Space};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{JobId, VersionId};
use crate::job::{IntoJob, JobOptions, JobRecord, Keep, Limit, NewJob, Payload};
use crate::name::{Kind, LimitKey, QueueName, RegisterName};
use crate::time::Timestamp;

/// The header of a job that says which schedule fired it; [`Origin::of`] reads it.
pub const HEADER: &str = "leasehold-schedule";
/// The header of a job that says for which tick, as RFC 3339 writes moments.
pub const TICK_HEADER: &str = "leasehold-tick";
/// How many runs, and how many earlier versions, a schedule remembers.
const REMEMBERED: usize = 20;
/// How long the jobs of ticks are kept at least once they have ended, so that no scheduler that was held up takes a tick for
/// one that was not fired.
const KEPT: Duration = Duration::from_mins(10);

/// Work that recurs: which job, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Schedule {
    /// When it fires.
    pub rule: Rule,
    /// The queue of its jobs.
    pub queue: QueueName,
    /// Their kind.
    pub kind: Kind,
    /// Their payload.
    pub payload: Payload,
    /// Their options. Each has [`HEADER`] and [`TICK_HEADER`] besides, and is kept for ten minutes at least once it has
    /// ended.
    pub options: JobOptions,
    /// What becomes of missed ticks. Defaults to [`CatchUp::Once`].
    pub catch_up: CatchUp,
    /// What a tick does beside a job that has not ended. Defaults to [`Overlap::Allow`].
    pub overlap: Overlap,
    /// Whether it rests. Defaults to not.
    pub paused: bool,
    /// The set that it was [declared](crate::client::Schedules::declare) in; none if by itself.
    pub set: Option<String>,
}

impl Schedule {
    /// Fires jobs like this one by this rule. The job's id and due time are each tick's own.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the arguments make no valid job.
    pub fn new(rule: Rule, job: impl IntoJob) -> Result<Self> {
        let NewJob { queue, kind, payload, options, .. } = job.into_job()?;
        let (catch_up, overlap) = (CatchUp::default(), Overlap::default());
        Ok(Self { rule, queue, kind, payload, options, catch_up, overlap, paused: false, set: None })
    }

    /// Sets what becomes of missed ticks.
    #[must_use]
    pub fn catch_up(mut self, catch_up: CatchUp) -> Self {
        self.catch_up = catch_up;
        self
    }

    /// Sets what a tick does beside a job that has not ended.
    #[must_use]
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.overlap = overlap;
        self
    }

    /// Sets the queue of its jobs. Defaults to that of the job that it was made of.
    #[must_use]
    pub fn queue(mut self, queue: QueueName) -> Self {
        self.queue = queue;
        self
    }

    /// The job of a tick.
    pub(crate) fn job_of(&self, name: &RegisterName, tick: Timestamp) -> Result<NewJob> {
        let mut job = self.job(name, JobId::of_tick(name, tick))?;
        if let Some(tick) = moment(tick) {
            let tick = tick.to_rfc3339_opts(SecondsFormat::Millis, true);
            job.options.headers.insert(TICK_HEADER.to_owned(), tick);
        }
        Ok(job)
    }

    /// The job of a run.
    pub(crate) fn job(&self, name: &RegisterName, id: JobId) -> Result<NewJob> {
        let mut job = NewJob::new(self.kind.clone(), self.payload.clone()).id(id).queue(self.queue.clone());
        job.options = self.options.clone();
        job.options.headers.insert(HEADER.to_owned(), name.to_string());
        let retention = &mut job.options.retention;
        for keep in [&mut retention.succeeded, &mut retention.failed, &mut retention.cancelled] {
            if let Keep::For(span) = keep {
                *span = KEPT.max(*span);
            }
        }
        if self.overlap != Overlap::Allow && job.options.limit.is_none() {
            job.options.limit = Some(Limit::one(LimitKey::new(format!("schedule {name}"))?));
        }
        Ok(job)
    }
}

/// Where a job comes from that a schedule fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The schedule's name.
    pub schedule: RegisterName,
    /// The tick; none if it was [run by hand](crate::client::Schedules::run_now).
    pub tick: Option<Timestamp>,
}

impl Origin {
    /// Which schedule fired this job, and for which tick; none if none did.
    pub fn of(job: &JobRecord) -> Option<Self> {
        let headers = &job.options.headers;
        let schedule = RegisterName::new(headers.get(HEADER)?).ok()?;
        let tick = headers.get(TICK_HEADER).and_then(|tick| tick.parse::<DateTime<Utc>>().ok());
        Some(Self { schedule, tick: tick.map(|tick| Timestamp::from_millis(tick.timestamp_millis())) })
    }
}

/// A job that a schedule fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The job; it leads back by its [`Origin`].
    pub job: JobId,
    /// Its tick; none if it was [run by hand](crate::client::Schedules::run_now).
    pub tick: Option<Timestamp>,
    /// Why there is no such job: the store's words, as of a payload that is too large. None if it was enqueued.
    pub refused: Option<String>,
}

/// What a schedule was before it was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// When it was changed, by the store's clock.
    pub at: Timestamp,
    /// What it was until then.
    pub was: Schedule,
}

/// A schedule as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRecord {
    /// Its name.
    pub name: RegisterName,
    /// What it says.
    pub schedule: Schedule,
    /// Its next tick; none while it is paused, or when its rule is exhausted.
    pub next: Option<Timestamp>,
    /// The ticks that fire at this moment, the earliest first: not all of their jobs may be there yet.
    pub firing: Vec<Timestamp>,
    /// Its latest runs, the newest last; twenty at most.
    pub runs: Vec<Run>,
    /// What it was before its latest changes, the newest last; twenty at most, and fewer if they are large.
    pub edits: Vec<Edit>,
    pub(crate) body: Body,
    pub(crate) version: VersionId,
}

/// What is kept of a schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Body {
    pub(crate) schedule: Schedule,
    /// The ticks until this moment were decided about.
    pub(crate) until: Timestamp,
    /// The first one after it, by what was then known of time zones.
    pub(crate) next: Option<Timestamp>,
    /// Ticks that fire, of which not all may be enqueued yet.
    pub(crate) firing: Vec<Timestamp>,
    /// Whether the jobs of earlier ones are to be cancelled before.
    pub(crate) cancels: bool,
    pub(crate) runs: VecDeque<Run>,
    pub(crate) edits: VecDeque<Edit>,
    /// What it was when it began to move to another store. It rests until it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    moving: Option<Moving>,
}

/// What a schedule was that rests because it moves to another store.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Moving {
    paused: bool,
    next: Option<Timestamp>,
}

impl Body {
    pub(crate) fn new(schedule: Schedule, hour: Timestamp) -> Self {
        let mut body = Self {
            schedule,
            until: hour,
            next: None,
            firing: Vec::new(),
            cancels: false,
            runs: VecDeque::new(),
            edits: VecDeque::new(),
            moving: None,
        };
        body.begin(hour);
        body
    }

    /// Looks for the next tick from now on.
    pub(crate) fn begin(&mut self, hour: Timestamp) {
        (self.until, self.moving) = (hour, None);
        self.next = if self.schedule.paused { None } else { self.schedule.rule.next(hour) };
    }

    /// Makes it say this. Its next tick stays unless the rule or the pause is another one.
    pub(crate) fn change(&mut self, schedule: Schedule, hour: Timestamp) {
        let was = std::mem::replace(&mut self.schedule, schedule);
        let (rule, paused) = (was.rule != self.schedule.rule, was.paused != self.schedule.paused);
        push(&mut self.edits, Edit { at: hour, was });
        if rule || paused {
            self.begin(hour);
        }
    }

    /// Lets it rest, to go on in another store as it is.
    pub(crate) fn leave(&mut self) {
        let (paused, next) = (self.schedule.paused, self.next);
        self.moving = Some(self.moving.unwrap_or(Moving { paused, next }));
        (self.schedule.paused, self.next) = (true, None);
    }

    /// Whether it began to move to another store, and was cut off.
    pub(crate) fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// What it is where it arrives.
    pub(crate) fn arrived(mut self) -> Self {
        if let Some(Moving { paused, next }) = self.moving.take() {
            (self.schedule.paused, self.next) = (paused, next);
        }
        self
    }

    pub(crate) fn note(&mut self, run: Run) {
        push(&mut self.runs, run);
    }

    /// The jobs of its latest runs.
    pub(crate) fn jobs(&self) -> Vec<JobId> {
        self.runs.iter().filter(|run| run.refused.is_none()).map(|run| run.job).collect()
    }

    /// The write of it over this version. It is due at its next tick, or when it has to be fired again.
    pub(crate) fn put(
        &mut self,
        name: RegisterName,
        due: Option<Timestamp>,
        expected: Option<VersionId>,
        most: usize,
    ) -> Result<PutRegister> {
        let mut body = Payload::json(self)?;
        // What it was is worth less than what it is.
        while body.len() > most && self.edits.pop_front().is_some() {
            body = Payload::json(self)?;
        }
        if body.len() > most {
            let why =
                format!("a schedule of {} bytes is larger than {most}; its job may carry less", body.len());
            return Err(Error::new(ErrorKind::TooLarge, why));
        }
        Ok(PutRegister { next: due, ..PutRegister::new(Space::Schedule, name, body, expected) })
    }
}

impl TryFrom<Register> for ScheduleRecord {
    type Error = Error;

    fn try_from(register: Register) -> Result<Self> {
        let body: Body = register.said()?;
        let Register { name, version, .. } = register;
        let (runs, edits) = (body.runs.iter().cloned().collect(), body.edits.iter().cloned().collect());
        let (firing, schedule) = (body.firing.clone(), body.schedule.clone());
        let next = firing.first().copied().or(body.next);
        Ok(Self { name, schedule, next, firing, runs, edits, body, version })
    }
}

fn push<T>(all: &mut VecDeque<T>, one: T) {
    all.push_back(one);
    while all.len() > REMEMBERED {
        all.pop_front();
    }
}
