//! Short words for the things that cases are made of.

use std::collections::BTreeSet;
use std::time::Duration;

use leasehold_core::backend::{NewFailure, Verdict};
use leasehold_core::{
    Kind, LimitKey, NewJob, Payload, QueueName, Reason, RegisterName, Tag, UniqueKey, WorkerName,
};

macro_rules! words {
    ($($name:ident -> $type:ident;)+) => {$(
        pub(crate) fn $name(text: &str) -> $type {
            $type::new(text).expect("cases name things validly")
        }
    )+};
}

words! {
    queue -> QueueName;
    kind -> Kind;
    tag -> Tag;
    unique_key -> UniqueKey;
    limit_key -> LimitKey;
    worker_name -> WorkerName;
    schedule_name -> RegisterName;
}

/// A job as plain as can be: of kind `work`, in the queue `default`.
pub(crate) fn job() -> NewJob {
    NewJob::new(kind("work"), text("{}"))
}

/// So many plain jobs, in the order of their ids.
pub(crate) fn jobs(count: usize) -> Vec<NewJob> {
    (0..count).map(|_| job()).collect()
}

pub(crate) fn text(text: &str) -> Payload {
    Payload::from(text.to_owned())
}

pub(crate) fn tags(texts: &[&str]) -> BTreeSet<Tag> {
    texts.iter().map(|text| tag(text)).collect()
}

pub(crate) fn kinds(texts: &[&str]) -> BTreeSet<Kind> {
    texts.iter().map(|text| kind(text)).collect()
}

pub(crate) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The lease that claims ask for where a case does not care.
pub(crate) const LEASE: Duration = secs(60);

pub(crate) const SUCCEED: Verdict = Verdict::Succeed { result: None };
pub(crate) const FAIL: Verdict = Verdict::Fail { reason: Reason::Error };
pub(crate) const CANCEL: Verdict = Verdict::Cancel { reason: Reason::Aborted };
pub(crate) const RETRY: Verdict =
    Verdict::Retry { reason: Reason::Error, delay: Duration::ZERO, queue: None };
pub(crate) const RELEASE: Verdict = Verdict::Release { reason: Reason::Released, delay: Duration::ZERO };
/// What a recovery makes of a lost attempt in most cases.
pub(crate) const LOST_ATTEMPT: Verdict =
    Verdict::Retry { reason: Reason::LeaseExpired, delay: Duration::ZERO, queue: None };

/// Every verdict a holder can give, each once.
pub(crate) fn verdicts() -> [Verdict; 5] {
    [SUCCEED, FAIL, CANCEL, RETRY, RELEASE]
}

pub(crate) fn retry_in(delay: Duration) -> Verdict {
    Verdict::Retry { reason: Reason::Error, delay, queue: None }
}

pub(crate) fn retry_elsewhere(queue: &QueueName, delay: Duration) -> Verdict {
    Verdict::Retry { reason: Reason::RetryRequested, delay, queue: Some(queue.clone()) }
}

pub(crate) fn release_for(delay: Duration) -> Verdict {
    Verdict::Release { reason: Reason::Snoozed, delay }
}

pub(crate) fn failure(class: &str, message: &str) -> NewFailure {
    NewFailure { reason: Reason::Error, class: class.into(), message: message.into() }
}
