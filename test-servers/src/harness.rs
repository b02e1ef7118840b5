//! What the harnesses of all stores on servers have in common.

use std::fmt::{Debug, Display};
use std::sync::OnceLock;

use leasehold_conformance::CannotRun;
use leasehold_core::Result;

use crate::{Missing, Proxy};

/// Where another process of a harness's program finds the server.
const SERVER: &str = "LEASEHOLD_CONFORMANCE_SERVER";

/// The server of all cases of a harness, started by the first one that needs it.
#[derive(Debug)]
pub struct OnServer<S> {
    start: fn() -> Result<S, Missing>,
    url: fn(&S) -> &str,
    server: OnceLock<Result<S, String>>,
}

impl<S> OnServer<S> {
    /// The server that `start` starts, which is reached by its `url`.
    pub const fn new(start: fn() -> Result<S, Missing>, url: fn(&S) -> &str) -> Self {
        Self { start, url, server: OnceLock::new() }
    }

    /// The server, which is this process's own.
    ///
    /// # Errors
    /// That it is missing.
    pub fn server(&self) -> Result<&S, CannotRun> {
        let server = self.server.get_or_init(|| (self.start)().map_err(|missing| missing.to_string()));
        server.as_ref().map_err(CannotRun::missing)
    }

    /// The URL of the server, which another process may have started.
    ///
    /// # Errors
    /// That it is missing.
    pub fn url(&self) -> Result<String, CannotRun> {
        if let Ok(url) = std::env::var(SERVER) {
            return Ok(url);
        }
        Ok((self.url)(self.server()?).to_owned())
    }

    /// What another process has to be told so that it finds the server, if there is one.
    pub fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(SERVER.into(), self.url().ok()?)])
    }
}

/// A wire to the server on this port; none is that of a server which is not ours.
///
/// # Errors
/// That there can be none.
pub async fn wire(port: Option<u16>) -> Result<Proxy, CannotRun> {
    let why = "its harness has a proxy in front of one node of ours alone";
    let port = port.ok_or_else(|| CannotRun::unable(why))?;
    Proxy::to(port).await.map_err(|error| CannotRun::missing(error.to_string()))
}

/// What we do to a server by hand, when it fails, says nothing of the backend.
pub fn by_hand<E: Display>(error: E) -> CannotRun {
    CannotRun::missing(format!("a change by hand: {error}"))
}

/// All that is shown of a configuration, and of the store or the error that opening it gave.
pub fn shown(config: &impl Debug, opened: Result<impl Debug>) -> [String; 2] {
    let opened = opened.map_or_else(|error| format!("{error} {error:?}"), |store| format!("{store:?}"));
    [format!("{config:?}"), opened]
}
