use crate::id::JobId;
use crate::job::State;
use crate::name::QueueName;

/// Asks for events.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// Only of these queues; none for all.
    pub queues: Option<Vec<QueueName>>,
    /// Whether to tell of new log lines too, which are many: [`Event::Logged`].
    pub logs: bool,
}

impl Watch {
    /// Whether an event is one of those asked for.
    pub fn wants(&self, event: &Event) -> bool {
        let logged = matches!(event, Event::Logged { .. });
        let of_another = |queues: &Vec<QueueName>| event.queue().is_some_and(|of| !queues.contains(of));
        (self.logs || !logged) && !self.queues.as_ref().is_some_and(of_another)
    }
}

/// Something happened. A hint: read the store for the truth (F3).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Jobs of this queue are there to be claimed, now or soon.
    Waiting {
        /// The queue.
        queue: QueueName,
    },
    /// A job is in a new state.
    Changed {
        /// The job.
        job: JobId,
        /// Its queue.
        queue: QueueName,
        /// Its state.
        state: State,
    },
    /// More jobs changed at once than are told one by one: whoever waits for one looks for itself.
    Changes,
    /// Somebody asked to cancel a running job.
    CancelRequested {
        /// The job.
        job: JobId,
        /// Its queue.
        queue: QueueName,
    },
    /// Lines were added to a job's log.
    Logged {
        /// The job.
        job: JobId,
        /// Its queue.
        queue: QueueName,
    },
    /// A queue's settings changed.
    QueueSet {
        /// The queue.
        queue: QueueName,
    },
    /// Events are missing here, or the store can only tell that something changed: look for yourself.
    Gap,
}

impl Event {
    /// The queue it is about, if it is about one.
    pub fn queue(&self) -> Option<&QueueName> {
        match self {
            Self::Waiting { queue }
            | Self::Changed { queue, .. }
            | Self::CancelRequested { queue, .. }
            | Self::Logged { queue, .. }
            | Self::QueueSet { queue } => Some(queue),
            Self::Changes | Self::Gap => None,
        }
    }
}
