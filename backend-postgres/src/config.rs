//! How a store is reached.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use leasehold_core::authoring::url::{self, unescaped};
use leasehold_core::backend::LogCaps;
use leasehold_core::{Clock, Error, ErrorKind, Result};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::error::BACKEND;

/// The options of a URL that are the driver's.
const DRIVERS: [&str; 16] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
];

/// How a PostgreSQL store is reached and how much is kept in it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// The URL, `postgres://USER:PASSWORD@HOST/DATABASE`, with the driver's options.
    pub url: String,
    /// The schema that all tables and functions are in. Defaults to `leasehold`.
    pub schema: String,
    /// Where the hour is read. Defaults to none: the server's own clock.
    pub clock: Option<Arc<dyn Clock>>,
    /// How many connections are open at most, beside one or two that listen. Defaults to 10.
    pub connections: usize,
    /// Whether a pooler stands in between that hands out another session for each transaction, as pgbouncer does with
    /// `pool_mode = transaction`. Then every call is a transaction of its own, of four messages in place of one, and
    /// there are no events. Defaults to no.
    pub pooler: bool,
    /// How much is kept of logs.
    pub log_caps: LogCaps,
}

impl Config {
    /// The server that this URL names, with defaults. Options in it are not looked at: see
    /// [`from_url`](Self::from_url).
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            schema: "leasehold".into(),
            clock: None,
            connections: 10,
            pooler: false,
            log_caps: LogCaps::default(),
        }
    }

    /// What a URL says: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, and after a `?` the driver's options
    /// (`sslmode`, `sslrootcert`, `application_name` ...) and ours: `schema`, `connections` and `pooler`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it is no such URL, or has an option that is not known.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::read(url).map_err(|error| error.on(BACKEND))
    }

    fn read(url: &str) -> Result<Self> {
        let (server, options) = url::options(url);
        let mut config = Self::new(server);
        let mut drivers = Vec::new();
        for option in options {
            match option.name {
                "schema" => config.schema = unescaped(option.value)?,
                "connections" => config.connections = option.parse()?,
                "pooler" => config.pooler = option.parse()?,
                name if DRIVERS.contains(&name) => drivers.push(option.text),
                _ => {
                    let known = "schema, connections, pooler, sslmode, sslrootcert, application_name, ...";
                    return Err(option.unknown(known));
                }
            }
        }
        if !drivers.is_empty() {
            config.url = format!("{server}?{}", drivers.join("&"));
        }
        config.checked()
    }

    /// Sets the schema that all tables and functions are in. Defaults to `leasehold`.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Sets a clock in place of the server's, for tests. Defaults to the server's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Sets how many connections are open at most. Defaults to 10.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets whether a pooler stands in between that hands out sessions for single transactions. Defaults to no.
    #[must_use]
    pub fn pooler(mut self, pooler: bool) -> Self {
        self.pooler = pooler;
        self
    }

    /// Sets how much is kept of logs. Defaults to [`LogCaps::default`].
    #[must_use]
    pub fn log_caps(mut self, caps: LogCaps) -> Self {
        self.log_caps = caps;
        self
    }

    /// Refuses what cannot be reached, and names that cannot be those of a schema.
    pub(crate) fn checked(self) -> Result<Self> {
        self.options()?;
        let odd = |c: char| c == '$' || c.is_control();
        if self.schema.is_empty() || self.schema.len() > 63 || self.schema.contains(odd) {
            return Err(wrong("a schema's name has 1 to 63 bytes, no control characters and no `$`"));
        }
        if self.schema.starts_with("pg_") || self.schema == "information_schema" {
            return Err(wrong(format!("the schema {:?} is the server's own; name another one", self.schema)));
        }
        if self.connections == 0 {
            return Err(wrong("there must be at least one connection"));
        }
        Ok(self)
    }

    /// What the driver connects by.
    pub(crate) fn options(&self) -> Result<PgConnectOptions> {
        if !self.url.starts_with("postgres://") && !self.url.starts_with("postgresql://") {
            return Err(wrong("the URL must begin with postgres://"));
        }
        // The driver's message is left out, since it may quote what it cannot read.
        let why = |_| wrong("the URL cannot be read; it is postgres://USER:PASSWORD@HOST:PORT/DATABASE");
        let options = PgConnectOptions::from_str(&self.url).map_err(why)?.disable_statement_logging();
        if self.pooler {
            // Poolers know few settings, and a statement that was prepared once may be in another session.
            return Ok(options.extra_float_digits(None).statement_cache_capacity(0));
        }
        Ok(options)
    }

    /// The URL as it may be shown: with no user, password or options in it (clause B5).
    pub(crate) fn location(&self) -> String {
        format!("{}?schema={}", url::shown(&self.url), self.schema)
    }

    /// The schema as SQL writes it, with the dot that follows it.
    pub(crate) fn prefix(&self) -> String {
        format!("\"{}\".", self.schema.replace('"', "\"\""))
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
            .field("connections", &self.connections)
            .field("pooler", &self.pooler)
            .field("log_caps", &self.log_caps)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_url() {
        let url = "postgres://ann:pw@host:5433/db?schema=a%20%22b&sslmode=require&connections=3&pooler=true";
        let config = Config::from_url(url).unwrap();
        assert_eq!((config.schema.as_str(), config.connections, config.pooler), ("a \"b", 3, true));
        assert_eq!(config.url, "postgres://ann:pw@host:5433/db?sslmode=require");
        assert_eq!(config.prefix(), "\"a \"\"b\".");
    }

    #[test]
    fn shows_no_secret() {
        let config = Config::new("postgres://ann:hunt:er2@host:1/db?password=hunter3");
        let shown = format!("{config:?} {}", config.location());
        assert!(!shown.contains("hunt"), "{shown}");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for rest in
            ["?shema=a", "?schema=", "?schema=pg_x", "?schema=a$b", "?connections=0", "?schema=%2", "?x"]
        {
            let error = Config::from_url(&format!("postgres://host/db{rest}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{rest}");
        }
        for url in ["mysql://host/db", "postgres://host:port/db", "postgres:", ""] {
            assert_eq!(Config::from_url(url).unwrap_err().kind(), ErrorKind::Config, "{url}");
        }
    }
}
