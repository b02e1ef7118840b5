use std::any::{Any, TypeId};
use std::ops::Deref;
use std::sync::Arc;

use foldhash::HashMap;
use serde::de::DeserializeOwned;

use super::attempt::Attempt;
use crate::id::JobId;
use crate::job::{JobRecord, Payload, Reason};
use crate::policy::JobFailure;

/// What a handler function can take as an argument.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a handler",
    note = "take `Args<T>` for the payload, `State<T>` for shared state, `Attempt`, `Payload` or `JobId`"
)]
pub trait FromAttempt: Sized + Send {
    /// Takes it from the attempt.
    ///
    /// # Errors
    /// A failure that ends the attempt before the handler has begun.
    fn from_attempt(attempt: &Attempt) -> Result<Self, JobFailure>;
}

/// The payload, parsed as JSON. One that does not fit fails the job for good: trying again cannot help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Args<T>(pub T);

impl<T: DeserializeOwned + Send> FromAttempt for Args<T> {
    fn from_attempt(attempt: &Attempt) -> Result<Self, JobFailure> {
        attempt.job().payload.parse().map(Args).map_err(|error| JobFailure {
            reason: Reason::BadPayload,
            ..JobFailure::error("bad_payload", error.message()).permanent()
        })
    }
}

impl<T> Deref for Args<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// What was given to the worker by [`WorkerBuilder::state`](super::WorkerBuilder::state).
#[derive(Debug)]
pub struct State<T>(pub Arc<T>);

impl<T: Send + Sync + 'static> FromAttempt for State<T> {
    fn from_attempt(attempt: &Attempt) -> Result<Self, JobFailure> {
        attempt.states().find().map(State).ok_or_else(|| {
            let name = std::any::type_name::<T>();
            JobFailure::error("missing_state", format!("the worker was built without `.state({name})`"))
        })
    }
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for State<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl FromAttempt for Attempt {
    fn from_attempt(attempt: &Attempt) -> Result<Self, JobFailure> {
        Ok(attempt.clone())
    }
}

impl FromAttempt for JobId {
    fn from_attempt(attempt: &Attempt) -> Result<Self, JobFailure> {
        Ok(attempt.job().id)
    }
}

impl FromAttempt for JobRecord {
    fn from_attempt(attempt: &Attempt) -> Result<Self, JobFailure> {
        Ok(attempt.job().clone())
    }
}

impl FromAttempt for Payload {
    fn from_attempt(attempt: &Attempt) -> Result<Self, JobFailure> {
        Ok(attempt.job().payload.clone())
    }
}

/// Shared state by type.
#[derive(Default)]
pub(super) struct States(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    pub(super) fn add<T: Send + Sync + 'static>(&mut self, state: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(state));
    }

    fn find<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned().and_then(|state| state.downcast().ok())
    }
}
