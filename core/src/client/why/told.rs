use std::fmt;
use std::time::Duration;

use super::Why;
use crate::id::WorkerId;
use crate::name::Tag;

/// A span in seconds, or milliseconds if it is shorter than one.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => write!(f, "{} ms", self.0.as_millis()),
            seconds @ 1..120 => write!(f, "{seconds} s"),
            seconds @ 120..7_200 => write!(f, "{} min", seconds / 60),
            seconds @ 7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

fn of(worker: Option<WorkerId>) -> String {
    worker.map_or_else(|| "somebody".to_owned(), |worker| format!("the worker {worker}"))
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { state, reason, failure, .. } => {
                write!(f, "it has ended: {state}")?;
                reason.iter().try_for_each(|reason| write!(f, " for {reason}"))?;
                failure.iter().try_for_each(|failure| write!(f, ", {failure}"))
            }
            Self::Running { worker, since, cancel_requested } => {
                write!(f, "it runs, for {}, by {}", Span(*since), of(*worker))?;
                if *cancel_requested { f.write_str(", which is asked to end it") } else { Ok(()) }
            }
            Self::LeaseOver { worker, since, is_anybody_there } => {
                write!(f, "the lease of {} ran out {} ago; ", of(*worker), Span(*since))?;
                f.write_str(match is_anybody_there {
                    true => "a living worker takes it back within its recovery interval",
                    false => "no worker lives that could take it back: start one",
                })
            }
            Self::Parked => f.write_str("it is parked: it waits until somebody unparks it"),
            Self::Flow { flow, parent: Some(parent), state } => {
                let is = state.map_or_else(|| "there no more".to_owned(), |state| state.to_string());
                write!(f, "it waits in the flow {flow} for the job {parent}, which is {is}")
            }
            Self::Flow { flow, parent: None, .. } => {
                write!(
                    f,
                    "all that it waited for in the flow {flow} has ended; a worker lets it go within a minute"
                )
            }
            Self::NotDue { left, reason, .. } => {
                write!(f, "it is due in {}", Span(*left))?;
                reason.iter().try_for_each(|reason| write!(f, " ({reason})"))
            }
            Self::Paused { queue, pause } => {
                write!(f, "the queue {queue} is paused by {}", pause.by)?;
                if pause.reason.is_empty() { Ok(()) } else { write!(f, ": {}", pause.reason) }
            }
            Self::Limit { key, max, holder, .. } => {
                write!(f, "at most {max} of the limit key {key} run at once, and the job {holder} does")
            }
            Self::Rate { queue, rate } => {
                write!(f, "the queue {queue} gives out {} jobs in {} at most", rate.limit, Span(rate.per))
            }
            Self::NoWorkerOfQueue { queue, alive: 0 } => {
                write!(f, "no worker lives; start one that takes from the queue {queue}")
            }
            Self::NoWorkerOfQueue { queue, alive } => {
                write!(f, "none of the {alive} living workers takes from the queue {queue}")
            }
            Self::NoWorkerOfKind { kind } => {
                write!(f, "no living worker of its queue has a handler for the kind {kind}")
            }
            Self::NoWorkerOfTags { tags } => {
                let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
                match tags.is_empty() {
                    true => f.write_str("all living workers of its queue want tags, and it has none"),
                    false => write!(f, "no living worker of its queue takes its tags ({})", tags.join(" ")),
                }
            }
            Self::Behind { jobs, higher, more } => {
                let least = if *more { "at least " } else { "" };
                write!(f, "it is behind {least}{jobs} jobs of its queue")?;
                if *higher > 0 { write!(f, ", {higher} of them of higher priority") } else { Ok(()) }
            }
            Self::Busy { workers: 1 } => f.write_str("the one worker that takes it is busy"),
            Self::Busy { workers } => write!(f, "all {workers} workers that take it are busy"),
            Self::Next => f.write_str("nothing is in its way: the next claim gives it out"),
        }
    }
}
