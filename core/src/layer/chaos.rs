use std::any::Any;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Operation;
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::time::Deadline;

/// How often [`Chaos`] does what. Each is a probability from 0 to 1; all default to 0.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The request is lost: nothing happens, and the caller is told that the store is unavailable.
    pub refused: f64,
    /// The request is lost, and the caller cannot know.
    pub request_lost: f64,
    /// The answer is lost: it happened, and the caller cannot know.
    pub reply_lost: f64,
    /// The request arrives twice; the caller gets the second answer.
    pub repeated: f64,
    /// Nothing happens, and no answer ever comes.
    pub hung: f64,
    /// The request waits while others pass it.
    pub delayed: f64,
    /// The request is lost, as it seems, and arrives just before a later one to the same method.
    pub late: f64,
}

/// For how many turns of its runtime a delayed request waits at most.
const TURNS: usize = 64;

/// A store that is reached over a bad line, for tests: loses, repeats, delays and reorders requests and answers by
/// chance, repeatably from a seed. `describe`, `setup`, `now` and `watch` are spared.
#[derive(Debug)]
pub struct Chaos {
    inner: Arc<dyn Backend>,
    /// The calls that it meets; none for all.
    only: Option<Vec<Operation>>,
    state: Mutex<(Faults, fastrand::Rng)>,
    /// The requests that are still on their way, by method.
    late: Mutex<HashMap<Operation, Vec<Box<dyn Any + Send>>>>,
}

impl Chaos {
    /// Puts `faults` between the caller and `inner`.
    pub fn new(inner: Arc<dyn Backend>, faults: Faults, seed: u64) -> Self {
        let dice = fastrand::Rng::with_seed(seed);
        Self { inner, only: None, state: Mutex::new((faults, dice)), late: Mutex::default() }
    }

    /// Spares all calls but these. Defaults to all.
    #[must_use]
    pub fn only(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        self.only = Some(operations.into_iter().collect());
        self
    }

    /// Changes the faults from now on.
    pub fn set(&self, faults: Faults) {
        self.state().0 = faults;
    }

    fn state(&self) -> MutexGuard<'_, (Faults, fastrand::Rng)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hits(&self, operation: Operation, fault: impl Fn(&Faults) -> f64) -> bool {
        use Operation::{Describe, Now, Setup, Watch};
        let spared = matches!(operation, Describe | Setup | Now | Watch)
            || self.only.as_ref().is_some_and(|only| !only.contains(&operation));
        let (faults, dice) = &mut *self.state();
        // The die is cast in any case, so that a run differs from another only where its faults do.
        dice.f64() < fault(faults) && !spared
    }

    async fn wait_while_others_pass(&self) {
        let turns = self.state().1.usize(1..=TURNS);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    fn keep(&self, operation: Operation, request: impl Any + Send) {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.entry(operation).or_default().push(Box::new(request));
    }

    /// The requests to a method that arrive now, long after they were made.
    fn arriving<R: 'static>(&self, operation: Operation) -> Vec<R> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = late.remove(&operation).unwrap_or_default();
        requests.into_iter().filter_map(|request| request.downcast().ok()).map(|request| *request).collect()
    }

    async fn around<R: Clone + Send + 'static, T, F>(
        &self,
        operation: Operation,
        deadline: Deadline,
        request: R,
        call: impl Fn(R, Deadline) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let fault = |kind, message| Err(Error::new(kind, message).during(operation.name()).on("chaos"));
        if self.hits(operation, |faults| faults.refused) {
            return fault(ErrorKind::Unavailable, "the line was down");
        }
        if self.hits(operation, |faults| faults.hung) {
            std::future::pending::<()>().await;
        }
        if self.hits(operation, |faults| faults.request_lost) {
            return fault(ErrorKind::Unknown, "the request was lost");
        }
        if self.hits(operation, |faults| faults.late) {
            self.keep(operation, request);
            return fault(ErrorKind::Unknown, "the request is late");
        }
        for late in self.arriving(operation) {
            let _ = call(late, deadline).await;
        }
        if self.hits(operation, |faults| faults.delayed) {
            self.wait_while_others_pass().await;
        }
        if self.hits(operation, |faults| faults.repeated) {
            let _ = call(request.clone(), deadline).await;
        }
        let answer = call(request, deadline).await;
        if self.hits(operation, |faults| faults.reply_lost) {
            return fault(ErrorKind::Unknown, "the answer was lost");
        }
        answer
    }
}

crate::around!(Chaos);
