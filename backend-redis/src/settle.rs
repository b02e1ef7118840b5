//! Records how attempts ended: see `Backend::settle`.

use leasehold_core::backend::{Answer, Settlement, Verdict};
use leasehold_core::limits::HISTORY;
use redis::Cmd;

use crate::error::{Done, corrupt};
use crate::scripts::SETTLE;
use crate::session::{Db, millis};

/// Who settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The holder of the lease.
    Holder,
    /// Whoever found that the lease had run out.
    Recoverer,
}

pub(crate) async fn settle(db: &Db, settlements: &[Settlement], by: By) -> Done<Vec<Answer>> {
    let head = |command: &mut Cmd| {
        command.arg(u8::from(by == By::Recoverer)).arg(HISTORY);
    };
    let answers: Vec<u8> = db.run_parts(&SETTLE, head, settlements, push).await?;
    answers.into_iter().map(read).collect()
}

fn push(command: &mut Cmd, settlement: &Settlement) -> Done<()> {
    let Settlement { job, token, verdict, failure } = settlement;
    let (reason, delay, result) = match verdict {
        Verdict::Succeed { result } => (None, None, result.as_ref()),
        Verdict::Fail { reason } | Verdict::Cancel { reason } => (Some(*reason), None, None),
        Verdict::Retry { reason, delay, .. } | Verdict::Release { reason, delay } => {
            (Some(*reason), Some(*delay), None)
        }
    };
    let queue = match verdict {
        Verdict::Retry { queue: Some(queue), .. } => queue.as_str(),
        _ => "",
    };
    command.arg(job.to_string()).arg(token.claim(*job).to_string()).arg(verdict.name());
    if reason.is_none() && failure.is_none() && result.is_none() {
        command.arg(0);
        return Ok(());
    }
    command.arg(5 + usize::from(result.is_some()));
    command.arg(reason.map_or_else(String::new, |reason| reason.to_string())).arg(delay.map_or(0, millis));
    command.arg(failure.as_ref().map(serde_json::to_string).transpose()?.unwrap_or_default());
    command.arg(failure.as_ref().map_or("", |failure| failure.class.as_str())).arg(queue);
    if let Some(result) = result {
        command.arg(result.as_bytes());
    }
    Ok(())
}

/// What a script says became of a write.
pub(crate) fn read(answer: u8) -> Done<Answer> {
    match answer {
        0 => Ok(Answer::Lost),
        1 => Ok(Answer::Applied),
        2 => Ok(Answer::AlreadyApplied),
        other => Err(corrupt(format!("a script answered {other:?}"))),
    }
}
