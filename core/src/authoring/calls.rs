//! What becomes of a call whose time runs out, or which ends half way (clauses E1 and E3).

use std::future::Future;

use tokio::time::timeout_at;

use crate::error::{Error, ErrorKind, Result};
use crate::time::Deadline;

/// Does the work of a call within its deadline. What is under way when it passes is unknown if the call `writes`.
///
/// # Errors
/// Those of the work, [`late`] and [`no_answer`].
pub async fn bounded<T>(
    deadline: Deadline,
    writes: bool,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    if deadline.has_passed() {
        return Err(late());
    }
    timeout_at(deadline.instant(), work).await.unwrap_or_else(|_| Err(no_answer(writes)))
}

/// The deadline had passed before anything was sent: the call certainly changed nothing.
pub fn late() -> Error {
    Error::new(ErrorKind::Unavailable, "the deadline passed before the call began; nothing was changed")
}

/// The deadline has passed while the call was under way, and what was sent by then `writes` or does not.
pub fn no_answer(writes: bool) -> Error {
    let (kind, advice) = if writes {
        (ErrorKind::Unknown, "it may have taken effect; repeat the call")
    } else {
        (ErrorKind::Unavailable, "repeat the call")
    };
    Error::new(kind, format!("the store did not answer by the deadline: {advice}"))
}

/// What an error means to a call that had written a part of what it was to write: it did not fail any more.
#[must_use]
pub fn in_part(error: Error) -> Error {
    if error.kind() != ErrorKind::Unavailable {
        return error;
    }
    Error::new(ErrorKind::Unknown, "a part of it took effect; repeat the call").caused_by(error)
}

/// The handle was closed.
pub fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_answered_is_unknown_only_if_it_was_sent_and_writes() {
        let kind = async |seconds: u64, writes| {
            let deadline = Deadline::after(Duration::from_secs(seconds));
            tokio::time::advance(Duration::from_secs(1)).await;
            let never = std::future::pending::<Result<()>>();
            bounded(deadline, writes, never).await.unwrap_err().kind()
        };
        assert_eq!(kind(0, true).await, ErrorKind::Unavailable);
        assert_eq!(kind(9, true).await, ErrorKind::Unknown);
        assert_eq!(kind(9, false).await, ErrorKind::Unavailable);
        assert_eq!(bounded(Deadline::default(), true, async { Ok(1) }).await.unwrap(), 1);
    }

    #[test]
    fn what_failed_half_way_is_unknown() {
        let kind = |kind| in_part(Error::new(kind, "why")).kind();
        assert_eq!(kind(ErrorKind::Unavailable), ErrorKind::Unknown);
        assert_eq!(kind(ErrorKind::Full), ErrorKind::Full);
    }
}
