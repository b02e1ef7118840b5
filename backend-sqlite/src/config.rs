//! How a file is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backend::LogCaps;
use leasehold_core::{Clock, Error, ErrorKind, Result, SystemClock};

use crate::error::BACKEND;

/// How an SQLite file is opened and how much is kept in it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// Where the hour is read. Defaults to the host's clock.
    pub clock: Arc<dyn Clock>,
    /// How hard a commit is. Defaults to [`Synchronous::Full`].
    pub synchronous: Synchronous,
    /// How long to wait for another process that is writing. Defaults to 5 s.
    pub busy_timeout: Duration,
    /// Whether to make the file if it is not there. Defaults to yes.
    pub create: bool,
    /// How many connections read at once. Defaults to 4.
    pub readers: u32,
    /// How much is kept of logs.
    pub log_caps: LogCaps,
}

/// How hard a commit is: what an acknowledged write outlives (clause P1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// Each commit reaches the disk before it is acknowledged: durability class D2.
    #[default]
    Full,
    /// The loss of power may take the commits since the last checkpoint: durability class D1.
    Normal,
}

impl Config {
    /// The file at `path`, with defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            clock: Arc::new(SystemClock),
            synchronous: Synchronous::default(),
            busy_timeout: Duration::from_secs(5),
            create: true,
            readers: 4,
            log_caps: LogCaps::default(),
        }
    }

    /// What a URL says: `sqlite:FILE` or `sqlite://FILE`, with `%` escapes, and the options
    /// `busy_timeout_ms`, `create` and `readers` after a `?`.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it is no such URL, names a database in memory, or has an option that is
    /// not known.
    pub fn from_url(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("sqlite:").ok_or_else(|| wrong("the URL must begin with sqlite:"))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, options) = rest.split_once('?').unwrap_or((rest, ""));
        let mut config = Self::new(unescape(path)?);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            config.set(name, value)?;
        }
        config.checked()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        fn parse<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
            value
                .parse()
                .map_err(|_| wrong(format!("the URL option {name}={value} does not have a valid value")))
        }
        match name {
            "busy_timeout_ms" => self.busy_timeout = Duration::from_millis(parse(name, value)?),
            "create" => self.create = parse(name, value)?,
            "readers" => self.readers = parse(name, value)?,
            "synchronous" => {
                return Err(wrong("durability is not set by a URL: use Config::synchronous in the program"));
            }
            _ => {
                let known = "busy_timeout_ms, create, readers";
                return Err(wrong(format!("the URL option {name:?} is not known; these are: {known}")));
            }
        }
        Ok(())
    }

    /// Refuses what cannot be opened by several connections.
    pub(crate) fn checked(self) -> Result<Self> {
        let path = self.path.to_str().ok_or_else(|| wrong("the path is not UTF-8, which SQLite asks for"))?;
        if path.is_empty() || path.starts_with(":memory:") || path.starts_with("file:") {
            return Err(wrong(
                "give the path of a file; for jobs that live in memory alone use the memory backend",
            ));
        }
        if self.readers == 0 {
            return Err(wrong("there must be at least one reader"));
        }
        Ok(self)
    }

    /// Sets where the hour is read. Defaults to the host's clock.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Sets how hard a commit is. Defaults to [`Synchronous::Full`].
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets how long to wait for another process that is writing. Defaults to 5 s.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Sets whether to make the file if it is not there. Defaults to yes.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Sets how many connections read at once. Defaults to 4.
    #[must_use]
    pub fn readers(mut self, readers: u32) -> Self {
        self.readers = readers;
        self
    }

    /// Sets how much is kept of logs. Defaults to [`LogCaps::default`].
    #[must_use]
    pub fn log_caps(mut self, caps: LogCaps) -> Self {
        self.log_caps = caps;
        self
    }
}

fn wrong(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message).on(BACKEND)
}

/// Resolves `%` escapes.
fn unescape(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| wrong("a % in the URL must be followed by two hexadecimal digits"))?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| wrong("the path in the URL is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms_of_url() {
        for url in
            ["sqlite:/a%20b/jobs.db?readers=2&create=false", "sqlite:///a%20b/jobs.db?readers=2&create=false"]
        {
            let config = Config::from_url(url).unwrap();
            assert_eq!(config.path, PathBuf::from("/a b/jobs.db"));
            assert_eq!((config.readers, config.create), (2, false));
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let refused = |url: &str| {
            let error = Config::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            error.to_string()
        };
        assert!(refused("sqlite:a.db?reader=2").contains("readers"));
        assert!(refused("sqlite:a.db?synchronous=off").contains("Config::synchronous"));
        for url in [
            "sqlite:",
            "sqlite::memory:",
            "mysql:a",
            "sqlite:a%2",
            "sqlite:a?readers=x",
            "sqlite:a?readers=0",
        ] {
            refused(url);
        }
    }
}
