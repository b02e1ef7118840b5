use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::options::JobOptions;
use super::payload::Payload;
use super::state::{Reason, State};
use crate::id::{JobId, LeaseToken, WorkerId};
use crate::name::{Kind, QueueName};
use crate::time::Timestamp;

/// A job as its store shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobRecord {
    /// Its id for ever.
    pub id: JobId,
    /// Where it waits.
    pub queue: QueueName,
    /// Which handler runs it.
    pub kind: Kind,
    /// Its arguments, byte for byte.
    pub payload: Payload,
    /// What its producer asked for.
    pub options: JobOptions,
    /// Where it is in its life: [`State::Queued`] as soon as a waiting job is due by the store's clock.
    pub state: State,
    /// Why it is there, where there is something to say.
    pub reason: Option<Reason>,
    /// When it may run, or might last.
    pub due: Timestamp,
    /// How many attempts are spent; the number of the present one while it runs. From 1.
    pub attempt: u32,
    /// How many attempts ended with the worker gone.
    pub crashes: u32,
    /// How often an operator sent it round again; attempts count anew from there.
    pub generation: u32,
    /// When the store took it in.
    pub enqueued_at: Timestamp,
    /// When its latest attempt began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// From when on a pruning may remove it; none while it lives or is kept for ever.
    pub expires_at: Option<Timestamp>,
    /// Who runs it, or last ran it.
    pub worker: Option<WorkerId>,
    /// Until when its lease runs, while it runs.
    pub lease_until: Option<Timestamp>,
    /// Whether somebody asked to cancel it while it runs.
    pub cancel_requested: bool,
    /// How far it has come, by its own account.
    pub progress: Option<Progress>,
    /// What it returned.
    pub result: Option<Payload>,
    /// Its failed attempts: the first, and the latest up to [`limits::HISTORY`](crate::limits::HISTORY).
    pub history: Vec<Failure>,
}

impl JobRecord {
    /// The record of a job that was just enqueued.
    pub fn new(
        id: JobId,
        queue: QueueName,
        kind: Kind,
        payload: Payload,
        options: JobOptions,
        due: Timestamp,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            queue,
            kind,
            payload,
            options,
            state: if due > now { State::Scheduled } else { State::Queued },
            reason: None,
            due,
            attempt: 0,
            crashes: 0,
            generation: 0,
            enqueued_at: now,
            started_at: None,
            finished_at: None,
            expires_at: None,
            worker: None,
            lease_until: None,
            cancel_requested: false,
            progress: None,
            result: None,
            history: Vec::new(),
        }
    }

    /// Whether it waits with no time at which it is due, until somebody unparks or cancels it (clause P7).
    pub fn is_parked(&self) -> bool {
        self.state.is_waiting() && self.due == Timestamp::MAX
    }

    /// The latest failed attempt.
    pub fn last_failure(&self) -> Option<&Failure> {
        self.history.last()
    }
}

/// How far a job has come. Kept verbatim (clause S6).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, where that is known.
    pub total: Option<u64>,
    /// What it is at. At most [`Limits::progress_bytes`](crate::limits::Limits::progress_bytes).
    pub message: String,
    /// Where a later attempt goes on, as its handler understands it. At most
    /// [`Limits::cursor_bytes`](crate::limits::Limits::cursor_bytes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// How one attempt failed (clause S4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which attempt.
    pub attempt: u32,
    /// Who ran it.
    pub worker: Option<WorkerId>,
    /// When it was recorded, by the store's clock.
    pub at: Timestamp,
    /// In which way it failed.
    pub reason: Reason,
    /// The error's class, for grouping and for retry rules; a type's name in most cases.
    pub class: String,
    /// What it says, cut to [`Limits::failure_bytes`](crate::limits::Limits::failure_bytes).
    pub message: String,
}

/// A job under a lease: what a claim returns.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LeasedJob {
    /// The job, running.
    pub job: JobRecord,
    /// The right to write to it (clause C2).
    pub token: LeaseToken,
    /// How long each renewal makes the lease last, and how long it lasted at first: from the store's moment of
    /// the claim, which is never before the moment at which the claim was first asked for. Whoever repeats a
    /// claim counts from the first time it asked.
    pub lease: Duration,
}

impl LeasedJob {
    /// A job and the lease it was claimed under.
    pub fn new(job: JobRecord, token: LeaseToken, lease: Duration) -> Self {
        Self { job, token, lease }
    }
}

impl JobRecord {
    /// Adds to the history, which keeps the first failure and the latest (clause S4).
    pub fn remember(&mut self, failure: Failure) {
        if self.history.len() >= crate::limits::HISTORY {
            self.history.remove(1);
        }
        self.history.push(failure);
    }
}
