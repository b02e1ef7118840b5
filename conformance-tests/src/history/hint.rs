use leasehold_core::backend::{Event, Watch};
use leasehold_core::{JobId, QueueName, State};
use serde::{Deserialize, Serialize};

/// What a watcher asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watching {
    /// Only of these queues; none for all.
    pub queues: Option<Vec<QueueName>>,
    /// Whether of new log lines too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub logs: bool,
}

/// An [`Event`] that a watcher was told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// Jobs of this queue are there to be claimed.
    Waiting(QueueName),
    /// A job of this queue is in a new state.
    Changed(JobId, QueueName, State),
    /// Somebody asked to cancel a running job of this queue.
    CancelRequested(JobId, QueueName),
    /// Lines were added to the log of a job of this queue.
    Logged(JobId, QueueName),
    /// This queue's settings changed.
    QueueSet(QueueName),
    /// Of this history no more is written down of what the watcher is told.
    Unrecorded,
}

impl Hint {
    /// What a history keeps of an event; none of one that says nothing certain.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        Some(match event.clone() {
            Event::Waiting { queue } => Self::Waiting(queue),
            Event::Changed { job, queue, state } => Self::Changed(job, queue, state),
            Event::CancelRequested { job, queue } => Self::CancelRequested(job, queue),
            Event::Logged { job, queue } => Self::Logged(job, queue),
            Event::QueueSet { queue } => Self::QueueSet(queue),
            _ => return None,
        })
    }

    /// The queue that it is about.
    pub fn queue(&self) -> Option<&QueueName> {
        match self {
            Self::Waiting(queue)
            | Self::Changed(_, queue, _)
            | Self::CancelRequested(_, queue)
            | Self::Logged(_, queue)
            | Self::QueueSet(queue) => Some(queue),
            Self::Unrecorded => None,
        }
    }

    /// The job that it is about.
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Changed(job, ..) | Self::CancelRequested(job, _) | Self::Logged(job, _) => Some(*job),
            Self::Waiting(_) | Self::QueueSet(_) | Self::Unrecorded => None,
        }
    }
}

impl From<&Watch> for Watching {
    fn from(watch: &Watch) -> Self {
        Self { queues: watch.queues.clone(), logs: watch.logs }
    }
}
