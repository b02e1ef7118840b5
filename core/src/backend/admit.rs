use super::logs::LogLine;
use crate::error::Error;
use crate::id::JobId;
use crate::job::{Due, JobRecord, NewJob, OnConflict};
use crate::time::Timestamp;

/// Asks for jobs of another store to be taken in as they are (P8).
#[derive(Debug, Clone, Default)]
pub struct Admit {
    /// The jobs, no id twice; none is fine.
    pub jobs: Vec<Arrival>,
}

/// A job as another store showed it.
#[derive(Debug, Clone, PartialEq)]
pub struct Arrival {
    /// Its record: one that waits or has ended. `expires_at` is not taken from it, but told by its end and its retention.
    pub job: JobRecord,
    /// Its log, oldest first. The lines get sequences of this store.
    pub logs: Vec<LogLine>,
}

impl Arrival {
    /// The job as if it were enqueued: for stores that take it in like that and, in the same transaction, bring it to where it
    /// stands. It names its unique key only if it holds it `now`, and replaces nobody.
    pub fn newcomer(&self, now: Timestamp) -> NewJob {
        let job = &self.job;
        let mut new = NewJob::new(job.kind.clone(), job.payload.clone());
        (new.id, new.queue, new.options) = (job.id, job.queue.clone(), job.options.clone());
        new.due = Due::At(job.due);
        match &mut new.options.unique {
            Some(unique) if job.held_key(now).is_some() => unique.on_conflict = OnConflict::Keep,
            unique => *unique = None,
        }
        new
    }
}

/// What became of one job that arrives.
#[derive(Debug)]
pub enum Admitted {
    /// It is there now.
    Created,
    /// A job of this id was there already, and is as it was.
    Existing,
    /// It would hold a unique key that another job holds; this is the job (P4).
    Held(JobId),
    /// It was not taken in; only where batches are not atomic (P3).
    Refused(Error),
}
