//! Keeps capped logs: see `Backend::append_logs` and `Backend::read_logs`.

use leasehold_core::backend::{
    Answer, AppendLogs, LogAppend, LogLine, LogPage, LogSource, NewLine, ReadLogs,
};
use leasehold_core::{JobId, WorkerId};
use redis::Cmd;

use crate::error::Done;
use crate::scripts::{APPEND_LOGS, READ_LOGS};
use crate::session::{Db, moment};
use crate::settle;

/// How many lines of one worker can be found again as its own; of a line of its log only the job's name is kept.
const WORKER_LINES: u64 = 100_000;
/// The largest whole number that scripts tell from the next one.
const EXACT: u64 = (1 << 53) - 1;

pub(crate) async fn append_logs(db: &Db, request: &AppendLogs) -> Done<Vec<Answer>> {
    let head = |command: &mut Cmd| push_caps(db, command);
    let answers: Vec<u8> = db.run_parts(&APPEND_LOGS, head, &request.appends, push).await?;
    answers.into_iter().map(settle::read).collect()
}

/// How much is kept, as scripts that add lines are told.
pub(crate) fn push_caps(db: &Db, command: &mut Cmd) {
    let caps = db.config.log_caps;
    command.arg(caps.job_lines).arg(caps.job_bytes).arg(caps.store_bytes).arg(WORKER_LINES);
}

/// The lines of a job that comes from another store.
pub(crate) fn push_lines(command: &mut Cmd, lines: &[LogLine]) {
    command.arg(lines.len());
    for line in lines {
        command.arg(line.attempt).arg(line.worker.map_or_else(String::new, |worker| worker.to_string()));
        command.arg(line.at.as_millis()).arg(<&str>::from(line.level)).arg(&line.message);
    }
}

#[expect(clippy::unnecessary_wraps, reason = "as all that adds items to a command")]
fn push(command: &mut Cmd, append: &LogAppend) -> Done<()> {
    let LogAppend { job, token, position, lines } = append;
    command.arg(job.to_string()).arg(token.claim(*job).to_string()).arg(*position).arg(lines.len());
    for NewLine { level, message } in lines {
        command.arg(<&str>::from(*level)).arg(message);
    }
    Ok(())
}

/// A line's sequence, job, attempt, worker, moment, level and message.
type Line = (u64, String, u32, String, i64, String, String);

pub(crate) async fn read_logs(db: &Db, request: ReadLogs) -> Done<LogPage> {
    let (of, id) = match request.source {
        LogSource::Job(job) => ("job", job.to_string()),
        LogSource::Worker(worker) => ("worker", worker.to_string()),
    };
    let (gap, lines): (bool, Vec<Line>) = db
        .run(&READ_LOGS, |command| {
            command.arg(of).arg(id).arg(request.after.min(EXACT)).arg(request.limit);
        })
        .await?;
    Ok(LogPage { lines: lines.into_iter().map(line).collect::<Done<_>>()?, gap })
}

fn line((sequence, job, attempt, worker, at, level, message): Line) -> Done<LogLine> {
    let job: JobId = job.parse()?;
    let worker: Option<WorkerId> = if worker.is_empty() { None } else { Some(worker.parse()?) };
    Ok(LogLine::new(sequence, job, attempt, worker, moment(at), NewLine::read(&level, message)?))
}
