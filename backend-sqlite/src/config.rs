//! How a file is opened.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::authoring::url::{self, UrlOption, unescaped};
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
        Self::read(url).map_err(|error| error.on(BACKEND))
    }

    fn read(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("sqlite:").ok_or_else(|| wrong("the URL must begin with sqlite:"))?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, options) = url::options(rest);
        let mut config = Self::new(unescaped(path)?);
        for option in options {
            config.set(option)?;
        }
        config.checked()
    }

    fn set(&mut self, option: UrlOption<'_>) -> Result<()> {
        match option.name {
            "busy_timeout_ms" => self.busy_timeout = Duration::from_millis(option.parse()?),
            "create" => self.create = option.parse()?,
            "readers" => self.readers = option.parse()?,
            "synchronous" => {
                return Err(wrong("durability is not set by a URL: use Config::synchronous in the program"));
            }
            _ => return Err(option.unknown("busy_timeout_ms, create, readers")),
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
