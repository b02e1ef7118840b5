//! How a store is reached.

use std::fmt;
use std::sync::Arc;

use leasehold_core::authoring::url;
use leasehold_core::backend::LogCaps;
use leasehold_core::{Clock, Error, ErrorKind, Result};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::error::BACKEND;

/// How a Redis or Valkey store is reached and how much is kept in it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The server's URL, `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://` for TLS.
    pub url: String,
    /// What all keys begin with, in braces, so that they are in one slot of a cluster. Defaults to `leasehold`.
    pub namespace: String,
    /// Where the hour is read. Defaults to none: the server's own clock.
    pub clock: Option<Arc<dyn Clock>>,
    /// How much is kept of logs.
    pub log_caps: LogCaps,
}

impl Config {
    /// The server that a URL names, with defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), namespace: "leasehold".into(), clock: None, log_caps: LogCaps::default() }
    }

    /// What a URL says, which may name the namespace too: `redis://HOST?namespace=NAME`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it has an option that is not known.
    pub fn from_url(url: &str) -> Result<Self> {
        let (server, options) = url::options(url);
        let mut config = Self::new(server);
        for option in options {
            match option.name {
                "namespace" => option.value.clone_into(&mut config.namespace),
                _ => return Err(wrong("the one option of a URL is `namespace=NAME`")),
            }
        }
        config.checked()
    }

    /// Sets what all keys begin with. Defaults to `leasehold`.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
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

    /// Refuses a namespace that cannot stand in a key, or would break the braces.
    pub(crate) fn checked(self) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
        if self.namespace.is_empty() || self.namespace.len() > 100 || !self.namespace.chars().all(fits) {
            return Err(wrong("a namespace is 1 to 100 letters, digits or any of _ - . :"));
        }
        Ok(self)
    }

    /// What the driver makes of the URL.
    pub(crate) fn connection(&self) -> Result<ConnectionInfo> {
        // What the driver says of a URL may have a part of it in it.
        let why = |_| {
            wrong("the URL cannot be used; it has the form redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]")
        };
        let info = self.url.as_str().into_connection_info().map_err(why)?;
        if let ConnectionAddr::TcpTls { .. } = info.addr() {
            // The driver takes the one that the process has, which somebody may have chosen before.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        Ok(info)
    }

    /// What every key begins with.
    pub(crate) fn prefix(&self) -> String {
        format!("{{{}}}:", self.namespace)
    }

    /// The URL as it may be shown: with no user and password in it (clause B5).
    pub(crate) fn location(&self) -> String {
        format!("{}?namespace={}", url::shown(&self.url), self.namespace)
    }
}

pub(crate) fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message).on(BACKEND)
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("location", &self.location())
            .field("clock", &self.clock)
            .field("log_caps", &self.log_caps)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_secret() {
        let config = Config::new("redis://ann:hunt:er2@host:1/3").namespace("shop");
        assert_eq!(config.location(), "redis://host:1/3?namespace=shop");
        let wrong = Config::new("redis://ann:hunter2@host:port").connection().unwrap_err();
        for shown in [format!("{config:?}"), format!("{wrong:?}")] {
            assert!(!shown.contains("hunt"), "{shown}");
        }
    }

    #[test]
    fn reads_the_namespace_from_a_url_and_refuses_what_it_does_not_know() {
        let config = Config::from_url("redis://host/2?namespace=a.b:c").unwrap();
        assert_eq!((config.url.as_str(), config.prefix().as_str()), ("redis://host/2", "{a.b:c}:"));
        for url in ["redis://host?namespace=", "redis://host?namespace=a}b", "redis://host?durable=no"] {
            assert_eq!(Config::from_url(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
    }
}
