//! The core of the Leasehold job queue: the contract, the policies, the client and the worker.
//!
//! It names no store. Users take the `leasehold` crate, which joins this one with the stores; authors of
//! stores implement [`backend::Backend`] and let `leasehold-conformance` judge it; how is in
//! [the guide](https://github.com/leasehold/leasehold/blob/main/docs/guide/writing-a-backend.md).
//!
//! In reading order: [`job`] says what a job is, [`backend`] what a store promises, [`policy`] what is
//! decided, [`client`] and [`worker`] are what programs hold, [`layer`] is what stands between both and the store.

pub mod authoring;
pub mod backend;
pub mod client;
pub mod error;
pub mod failpoints;
pub mod flow;
pub mod id;
pub mod job;
pub mod layer;
pub mod limits;
pub mod name;
pub mod policy;
#[cfg(feature = "schedules")]
pub mod schedule;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod worker;

pub use backend::Backend;
pub use client::{Consumer, HeldJob, Lock, LockGuard, Queue, Store};
pub use error::{Error, ErrorKind, Result};
pub use id::{ClaimId, FlowId, JobId, LeaseToken, VersionId, WorkerId};
pub use job::{
    Due, Failure, IntoJob, JobArgs, JobOptions, JobRecord, Keep, LeasedJob, Limit, NewJob, OnConflict,
    Payload, Progress, Reason, Retention, State, Unique, UniqueScope, WhenFull,
};
pub use limits::Limits;
pub use name::{Kind, LimitKey, QueueName, RegisterName, Tag, UniqueKey, WorkerName};
pub use time::{Clock, Deadline, ManualClock, SystemClock, Timestamp, TokioClock};
pub use worker::{Attempt, Worker};
