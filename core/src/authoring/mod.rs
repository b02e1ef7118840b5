//! What all stores need alike: for authors of backends, and for nobody else.
//!
//! None of it has to be used. It is what our own backends turned out to write each for itself: [`fault!`](crate::fault)
//! and [`calls`] for errors and deadlines, [`url`] for what a store is reached by, [`stored`] for how values are kept,
//! [`events`] for streams. What a store that keeps a job as one record needs is with [`JobRecord`](crate::JobRecord),
//! what belongs to a request or an answer is with those in [`backend`](crate::backend).

pub mod calls;
pub mod events;
mod fault;
pub mod stored;
pub mod url;

#[doc(hidden)]
pub use serde_json::Error as JsonError;
