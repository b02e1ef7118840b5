//! What a history keeps of requests and answers: what the checker needs, and no more.

use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Claim, EnqueueAnswer, LogAppend, LogLine, LogPage, LogSource, PutRegister,
    ReadLogs, Register, Renewal, Renewed, Select, Settlement, Verdict,
};
use leasehold_core::schedule::ScheduleRecord;
use leasehold_core::{Due, JobRecord, LeasedJob, NewJob};

use super::event::{
    Append, Asked, Change, ChangeKind, DueAs, Entry, Extended, Fate, Granted, Line, Plan, Put, Reading,
    Reply, Seen, Write,
};

/// What a history keeps of a job.
pub(super) fn seen(job: &JobRecord) -> Seen {
    Seen {
        job: job.id,
        state: job.state,
        attempt: job.attempt,
        generation: job.generation,
        queue: job.queue.clone(),
        kind: job.kind.clone(),
        priority: job.options.priority,
        due: job.due,
        payload: hash(job.payload.as_bytes()),
        crashes: job.crashes,
    }
}

/// FNV-1a: the same in every process and version, which the standard library's hashes are not.
fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

pub(super) fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn put(job: &NewJob) -> Put {
    Put {
        job: job.id,
        queue: job.queue.clone(),
        kind: job.kind.clone(),
        priority: job.options.priority,
        due: match job.due {
            Due::Now => DueAs::In(0),
            Due::In(delay) => DueAs::In(millis(delay)),
            Due::At(at) => DueAs::At(at),
        },
        max_attempts: job.options.max_attempts,
        payload: hash(job.payload.as_bytes()),
        crash_budget: job.options.crash_budget,
        tags: job.options.tags.clone(),
        unique: job.options.unique.clone(),
        limit: job.options.limit.clone(),
        retention: job.options.retention,
    }
}

pub(super) fn entry(answer: &EnqueueAnswer) -> Entry {
    match answer {
        EnqueueAnswer::Created => Entry::Created,
        EnqueueAnswer::Existing => Entry::Existing,
        EnqueueAnswer::Held => Entry::Held,
        EnqueueAnswer::Replaced => Entry::Replaced,
        EnqueueAnswer::Refused(_) => Entry::Refused,
    }
}

pub(super) fn granted(leased: &LeasedJob) -> Granted {
    Granted {
        token: leased.token,
        lease: millis(leased.lease),
        started: leased.job.started_at,
        job: seen(&leased.job),
    }
}

pub(super) fn writes(settlements: &[Settlement]) -> Vec<Write> {
    let write = |settlement: &Settlement| Write {
        job: settlement.job,
        token: settlement.token,
        verdict: settlement.verdict.name().into(),
        span: match settlement.verdict {
            Verdict::Retry { delay, .. } | Verdict::Release { delay, .. } => millis(delay),
            Verdict::Succeed { .. } | Verdict::Fail { .. } | Verdict::Cancel { .. } => 0,
        },
        queue: match &settlement.verdict {
            Verdict::Retry { queue, .. } => queue.clone(),
            _ => None,
        },
        append: None,
    };
    settlements.iter().map(write).collect()
}

/// What an amendment changes; nothing that is judged if it moves jobs to another store.
pub(super) fn change(request: &Amend) -> Option<Change> {
    let action = match request.action {
        _ if request.preview => ChangeKind::Preview,
        Action::Cancel => ChangeKind::Cancel,
        Action::Requeue { .. } => ChangeKind::Requeue,
        Action::Delete => ChangeKind::Delete,
        Action::Move { .. } => ChangeKind::Move,
        Action::Reprioritise { .. } => ChangeKind::Reprioritise,
        Action::Postpone { .. } => ChangeKind::Postpone,
        Action::Unpark { .. } => ChangeKind::Unpark,
        Action::CancelParked => ChangeKind::CancelParked,
        Action::Withdraw | Action::Restore | Action::DeleteEnded { .. } => return None,
    };
    let jobs = match &request.select {
        Select::Ids(ids) => Some(ids.clone()),
        Select::Matching { .. } => None,
    };
    let queue = match &request.action {
        Action::Move { queue } => Some(queue.clone()),
        _ => None,
    };
    let parks = matches!(
        request.action,
        Action::Postpone { due: Due::PARKED } | Action::Requeue { due: Due::PARKED }
    );
    Some(Change { action, jobs, queue, parks })
}

pub(super) fn asked(request: &Claim) -> Asked {
    Asked {
        claim: request.id,
        worker: request.worker,
        limit: request.limit,
        queues: request.queues.clone(),
        kinds: request.kinds.clone(),
        tags: request.tags.clone(),
        min_priority: request.min_priority,
    }
}

pub(super) fn renewal(renewal: &Renewal) -> Write {
    Write {
        job: renewal.job,
        token: renewal.token,
        verdict: String::new(),
        span: millis(renewal.lease),
        queue: None,
        append: None,
    }
}

pub(super) fn append(append: &LogAppend) -> Write {
    let lines = append.lines.iter().map(|line| hash(line.message.as_bytes())).collect();
    let kept = Append { position: append.position, lines };
    let (job, token, verdict) = (append.job, append.token, String::new());
    Write { job, token, verdict, span: 0, queue: None, append: Some(kept) }
}

/// What a history keeps of the reading of a job's log; nothing of a worker's.
pub(super) fn reading(request: &ReadLogs) -> Option<Reading> {
    let ReadLogs { source, after, limit } = *request;
    match source {
        LogSource::Job(job) => Some(Reading { job, after, limit }),
        LogSource::Worker(_) => None,
    }
}

pub(super) fn read(page: &LogPage) -> Reply {
    let line = |line: &LogLine| Line { sequence: line.sequence, says: hash(line.message.as_bytes()) };
    Reply::ReadLog { lines: page.lines.iter().map(line).collect(), gap: page.gap }
}

pub(super) fn extended(renewed: &Renewed) -> Extended {
    match *renewed {
        Renewed::Held { until, cancel_requested } => Extended::Held { until, cancel: cancel_requested },
        Renewed::Lost => Extended::Lost,
    }
}

pub(super) fn fate(answer: AmendAnswer) -> Fate {
    match answer {
        AmendAnswer::Applied => Fate::Applied,
        AmendAnswer::AlreadyApplied => Fate::AlreadyApplied,
        AmendAnswer::Requested => Fate::Requested,
        AmendAnswer::Refused(_) | AmendAnswer::Held(_) => Fate::Refused,
        AmendAnswer::NotFound => Fate::NotFound,
    }
}

pub(super) fn plan(request: &PutRegister) -> Plan {
    let PutRegister { name, next, version, expected, .. } = request;
    let read = ScheduleRecord::try_from(Register::from(request.clone()));
    let fires = read.ok().map(|record| record.firing);
    Plan { name: name.clone(), next: *next, version: *version, expected: *expected, fires }
}
