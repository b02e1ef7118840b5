use std::convert::Infallible;
use std::future::Future;
use std::marker::PhantomData;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Map};
use serde::Serialize;
use tower::Service;

use super::attempt::Attempt;
use super::extract::FromAttempt;
use crate::job::Payload;
use crate::policy::{HandlerError, JobFailure, Outcome};

/// An async function that runs a job: its arguments are [extracted](FromAttempt) from the attempt, what it
/// returns says [how the attempt went](IntoOutcome).
///
/// ```
/// use leasehold_core::worker::{Args, Json, State};
///
/// async fn square(Args(n): Args<u64>, State(offset): State<u64>) -> Result<Json<u64>, String> {
///     n.checked_mul(n).map(|n| Json(n + *offset)).ok_or_else(|| format!("{n} is too large"))
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler",
    label = "not an async function whose arguments are all extractors",
    note = "arguments may be `Args<T>`, `State<T>`, `Attempt`, `Payload` or `JobId`; the result may be `()`, an \
            `Outcome`, or `Result<T, E>` where `T` is `()`, `Json<_>` or `Payload` and `E` is any error"
)]
pub trait Handler<Arguments>: Clone + Send + Sync + 'static {
    /// Runs one attempt.
    fn call(&self, attempt: Attempt) -> BoxFuture<'static, Outcome>;

    /// How long it needs to end once it is told to, where [nobody says](super::HandlerOptions::grace).
    /// Defaults to not saying.
    fn grace(&self) -> Option<Duration> {
        None
    }
}

macro_rules! handler_of {
    ($($argument:ident),*) => {
        impl<F, Fut, $($argument),*> Handler<fn($($argument),*)> for F
        where
            F: Fn($($argument),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future + Send + 'static,
            Fut::Output: IntoOutcome,
            $($argument: FromAttempt,)*
        {
            #[allow(non_snake_case, unused_variables, reason = "the macro names arguments after their types")]
            fn call(&self, attempt: Attempt) -> BoxFuture<'static, Outcome> {
                $(
                    let $argument = match $argument::from_attempt(&attempt) {
                        Ok(argument) => argument,
                        Err(failure) => return std::future::ready(Outcome::Failure(failure)).boxed(),
                    };
                )*
                self($($argument),*).map(IntoOutcome::into_outcome).boxed()
            }
        }
    };
}

handler_of!();
handler_of!(A);
handler_of!(A, B);
handler_of!(A, B, C);
handler_of!(A, B, C, D);
handler_of!(A, B, C, D, E);
handler_of!(A, B, C, D, E, G);

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "return `()`, an `Outcome`, or `Result<T, E>` where `T` is `()`, `Json<_>` or `Payload` and `E` any error"
)]
pub trait IntoOutcome {
    /// How the attempt went.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Success(None)
    }
}

impl<T: IntoResult, E: HandlerError> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self.map(IntoResult::into_result) {
            Ok(Ok(result)) => Outcome::Success(result),
            Ok(Err(failure)) => Outcome::Failure(failure),
            Err(error) => error.into_outcome(),
        }
    }
}

/// What a job may result in.
pub trait IntoResult {
    /// The bytes to keep, if any.
    ///
    /// # Errors
    /// A failure, if it cannot be written down.
    fn into_result(self) -> Result<Option<Payload>, JobFailure>;
}

impl IntoResult for () {
    fn into_result(self) -> Result<Option<Payload>, JobFailure> {
        Ok(None)
    }
}

impl IntoResult for Payload {
    fn into_result(self) -> Result<Option<Payload>, JobFailure> {
        Ok(Some(self))
    }
}

/// A result to be kept as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResult for Json<T> {
    fn into_result(self) -> Result<Option<Payload>, JobFailure> {
        let why = |error: crate::Error| JobFailure::error("bad_result", error.to_string()).permanent();
        Payload::json(&self.0).map(Some).map_err(why)
    }
}

/// A handler as a `tower` service, so that any `tower` layer can stand around it.
pub struct HandlerService<H, Arguments> {
    handler: H,
    arguments: PhantomData<fn() -> Arguments>,
}

impl<H, Arguments> HandlerService<H, Arguments> {
    pub(super) fn new(handler: H) -> Self {
        Self { handler, arguments: PhantomData }
    }
}

impl<H: Clone, Arguments> Clone for HandlerService<H, Arguments> {
    fn clone(&self) -> Self {
        Self::new(self.handler.clone())
    }
}

impl<H, Arguments> std::fmt::Debug for HandlerService<H, Arguments> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HandlerService({})", std::any::type_name::<H>())
    }
}

impl<H: Handler<Arguments>, Arguments> Service<Attempt> for HandlerService<H, Arguments> {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Map<BoxFuture<'static, Outcome>, fn(Outcome) -> Result<Outcome, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        self.handler.call(attempt).map(Ok)
    }
}
