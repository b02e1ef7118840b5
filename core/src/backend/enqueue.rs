use crate::error::Error;
use crate::id::JobId;
use crate::job::NewJob;

/// Asks for jobs to be taken in.
#[derive(Debug, Clone, Default)]
pub struct Enqueue {
    /// The jobs; none is fine.
    pub jobs: Vec<NewJob>,
}

/// What became of one job of an enqueue.
#[derive(Debug)]
pub struct Enqueued {
    /// The job that is there now: the given one, or the holder of its unique key.
    pub job: JobId,
    /// What happened.
    pub answer: EnqueueAnswer,
}

/// What happened to one job of an enqueue.
#[derive(Debug)]
pub enum EnqueueAnswer {
    /// It was taken in.
    Created,
    /// A job of this id was there already (P2).
    Existing,
    /// Another job holds its unique key; [`Enqueued::job`] names it (P4).
    Held,
    /// Another job holds its unique key and waits; [`Enqueued::job`] names it, and it has this one's payload, priority
    /// and due time now (P4). The given id is no job's.
    Replaced,
    /// It was not taken in; only where batches are not atomic (P3).
    Refused(Error),
}

impl Enqueued {
    /// Whether the given job was taken in by this very call.
    pub fn is_created(&self) -> bool {
        matches!(self.answer, EnqueueAnswer::Created)
    }
}
