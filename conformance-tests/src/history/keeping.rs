//! What a history keeps of requests and answers: what the checker needs, and no more.

use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Claim, EnqueueAnswer, LogAppend, PutSchedule, Renewal, Renewed, Select,
    Settlement, Verdict,
};
use leasehold_core::{Due, JobRecord, LeasedJob, NewJob, Payload};

use super::event::{
    Asked, Change, ChangeKind, DueAs, Entry, Extended, Fate, Granted, Plan, Put, Seen, Write,
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
        payload: hash(&job.payload),
        crashes: job.crashes,
    }
}

/// FNV-1a: the same in every process and version, which the standard library's hashes are not.
fn hash(payload: &Payload) -> u64 {
    payload
        .as_bytes()
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
        payload: hash(&job.payload),
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
    };
    settlements.iter().map(write).collect()
}

pub(super) fn change(request: &Amend) -> Change {
    let action = match request.action {
        _ if request.preview => ChangeKind::Preview,
        Action::Cancel => ChangeKind::Cancel,
        Action::Requeue { .. } => ChangeKind::Requeue,
        Action::Delete => ChangeKind::Delete,
        Action::Move { .. } => ChangeKind::Move,
        Action::Reprioritise { .. } => ChangeKind::Reprioritise,
        Action::Postpone { .. } => ChangeKind::Postpone,
    };
    let jobs = match &request.select {
        Select::Ids(ids) => Some(ids.clone()),
        Select::Matching { .. } => None,
    };
    let queue = match &request.action {
        Action::Move { queue } => Some(queue.clone()),
        _ => None,
    };
    Change { action, jobs, queue }
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
    Write { job: renewal.job, token: renewal.token, verdict: String::new(), span: millis(renewal.lease) }
}

pub(super) fn append(append: &LogAppend) -> Write {
    Write { job: append.job, token: append.token, verdict: String::new(), span: 0 }
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

pub(super) fn plan(request: &PutSchedule) -> Plan {
    let PutSchedule { name, next, version, expected, .. } = request;
    Plan { name: name.clone(), next: *next, version: *version, expected: *expected }
}
