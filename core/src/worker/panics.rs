use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;

use tokio::task::JoinError;

use crate::job::Reason;
use crate::policy::JobFailure;

/// Where a handler panicked.
pub(super) struct Place {
    location: String,
    backtrace: Backtrace,
}

thread_local! {
    /// Some while this thread polls a handler; what the hook fills in.
    static NOTE: RefCell<Option<Option<Place>>> = const { RefCell::new(None) };
}

/// Has panics of handlers noted rather than printed. Panics elsewhere go to the hook that was there before.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let noted = NOTE.with_borrow_mut(|note| match note {
                Some(place) => {
                    let location = panic.location().map_or_else(String::new, ToString::to_string);
                    *place = Some(Place { location, backtrace: Backtrace::capture() });
                    true
                }
                None => false,
            });
            if !noted {
                before(panic);
            }
        }));
    });
}

/// `handler`, and where it panicked, if it did.
pub(super) async fn noted<T>(handler: impl Future<Output = T>) -> (T, Option<Place>) {
    let mut handler = pin!(handler);
    std::future::poll_fn(move |context| {
        NOTE.set(Some(None));
        let polled = handler.as_mut().poll(context);
        let place = NOTE.take().flatten();
        match polled {
            Poll::Ready(done) => Poll::Ready((done, place)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A panic as a failure: its message, its place, and its backtrace where `RUST_BACKTRACE` asks for one.
pub(super) fn failure(payload: Box<dyn Any + Send>, place: Option<Place>) -> JobFailure {
    let mut message = message(&*payload);
    // What somebody panicked with may panic once more when it is dropped.
    let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
    let _ = dropped.map_err(std::mem::forget);
    if let Some(Place { location, backtrace }) = place {
        message = format!("{message}, at {location}");
        if backtrace.status() == BacktraceStatus::Captured {
            message = format!("{message}\n{backtrace}");
        }
    }
    JobFailure { reason: Reason::Panic, ..JobFailure::error("panic", message) }
}

/// What a panic says, if it says anything.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".into())
}

/// Goes on with the panic of a service, if that is how it ended: without it the worker would be a wreck.
pub(super) fn pass_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
