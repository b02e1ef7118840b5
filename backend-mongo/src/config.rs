//! How a store is reached.

use std::fmt;
use std::sync::Arc;

use leasehold_core::authoring::url;
use leasehold_core::backend::LogCaps;
use leasehold_core::{Clock, Error, ErrorKind, Result};

use crate::error::BACKEND;

/// The least that all logs may have: more than the longest line.
const LEAST_BYTES: u64 = 64 << 10;

/// How a MongoDB store is reached and how much is kept in it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The connection string. Write concern and read preference in it are not followed: what is acknowledged is
    /// always written to the journals of a majority.
    pub url: String,
    /// The database. Defaults to the one that the URL names, else `leasehold`.
    pub database: Option<String>,
    /// What the names of all collections begin with. Defaults to `leasehold_`.
    pub prefix: String,
    /// Where the hour is read. Defaults to none: the server's own clock.
    pub clock: Option<Arc<dyn Clock>>,
    /// How much is kept of logs. Of a job's an eighth goes at a time. The bytes of all jobs are counted as the server
    /// counts them: they are the size of the capped collection, which
    /// [`setup`](leasehold_core::Backend::setup) gives it; at least 64 KiB.
    pub log_caps: LogCaps,
    /// What watchers are told of. Defaults to [`Events::Signals`].
    pub events: Events,
}

/// Where those who watch hear from. Whoever changes something signals it in any case, so that processes of either
/// kind work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Events {
    /// From a small capped collection of signals, which costs the server next to nothing.
    #[default]
    Signals,
    /// From a change stream, which also tells what is changed by hand and outlives short failovers without a gap. Each
    /// process that watches reads the server's whole oplog: many of them cost more than half of its throughput. Needs
    /// a replica set.
    ChangeStream,
}

impl Config {
    /// The server that a `mongodb://` or `mongodb+srv://` URL names, with defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            database: None,
            prefix: "leasehold_".into(),
            clock: None,
            log_caps: LogCaps::default(),
            events: Events::default(),
        }
    }

    /// Sets the database. Defaults to the one that the URL names, else `leasehold`.
    #[must_use]
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }

    /// Sets what the names of all collections begin with. Defaults to `leasehold_`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets a clock in place of the server's, for tests. Defaults to the server's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Sets how much is kept of logs. Defaults to [`LogCaps::default`].
    #[must_use]
    pub fn log_caps(mut self, caps: LogCaps) -> Self {
        self.log_caps = caps;
        self
    }

    /// Sets what watchers are told of. Defaults to [`Events::Signals`].
    #[must_use]
    pub fn events(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// Refuses what cannot name collections, and a log that would have no room for a line.
    pub(crate) fn checked(self) -> Result<Self> {
        let odd = |text: &str| text.contains(['$', '\0']) || text.starts_with("system.") || text.len() > 100;
        if odd(&self.prefix) {
            return Err(wrong("the prefix must have no `$`, not begin with `system.`, and be short"));
        }
        if self.log_caps.store_bytes < LEAST_BYTES {
            return Err(wrong("the logs need room for 64 KiB at least; set a larger `store_bytes`"));
        }
        let not_allowed = ['/', '\\', '.', ' ', '"', '$', '\0'];
        if self.database.as_ref().is_some_and(|name| name.is_empty() || name.contains(not_allowed)) {
            return Err(wrong(
                "the database's name must not be empty, nor have any of / \\ . \" $ or spaces",
            ));
        }
        Ok(self)
    }

    /// The URL as it may be shown: with no user, password or options in it (clause B5).
    pub(crate) fn location(&self) -> String {
        url::shown(&self.url)
    }

    /// `text` with no credentials of the URL in it (clause B5).
    pub(crate) fn without_secrets(&self, text: &str) -> String {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let user = rest.rsplit_once('@').map(|(user, _)| user);
        let password = user.and_then(|user| user.split_once(':')).map(|(_, password)| password);
        let options = self.url.split_once('?').map(|(_, options)| options);
        [Some(self.url.as_str()), user, password, options]
            .into_iter()
            .flatten()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

pub(crate) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message).on(BACKEND)
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("location", &self.location())
            .field("database", &self.database)
            .field("prefix", &self.prefix)
            .field("clock", &self.clock)
            .field("log_caps", &self.log_caps)
            .field("events", &self.events)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_secret() {
        let config = Config::new("mongodb://ann:hunt:er2@host:1,other:2/db?authSource=admin&x=hunter3");
        assert_eq!(config.location(), "mongodb://host:1,other:2/db");
        let shown =
            format!("{config:?} {}", config.without_secrets("cannot parse hunt:er2 in ann:hunt:er2@host"));
        assert!(!shown.contains("hunt"), "{shown}");
    }

    #[test]
    fn refuses_names_that_cannot_be() {
        for config in [Config::new("").prefix("a$"), Config::new("").database("a.b")] {
            assert_eq!(config.checked().unwrap_err().kind(), ErrorKind::Config);
        }
    }
}
