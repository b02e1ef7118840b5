//! Moments, clocks and deadlines.
//!
//! Only the store knows the hour (clause C8). Its moments are [`Timestamp`]s; a backend whose store has no
//! clock of its own, or that is tested on a clock which tests move by hand, reads a [`Clock`]. What this
//! process waits for is measured by tokio's monotonic clock and never compared with a timestamp.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A moment by the store's clock, in milliseconds since 1970-01-01 UTC: the finest that all stores keep.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The last moment of the year 9999, the latest that every store and every format can write.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// The moment `millis` milliseconds after 1970-01-01 UTC.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01 UTC.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The moment `span` later, at most [`Timestamp::MAX`]. Parts of a millisecond round up, so that
    /// nothing is ever early.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let millis = span.as_nanos().div_ceil(1_000_000).min(i64::MAX as u128) as i64;
        Self(self.0.saturating_add(millis)).min(Self::MAX)
    }

    /// The moment `span` earlier, at least 1970.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        let millis = span.as_millis().min(i64::MAX as u128) as i64;
        Self(self.0.saturating_sub(millis).max(0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let millis = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        Self(i64::try_from(millis).unwrap_or(i64::MAX)).min(Self::MAX)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.div_euclid(1_000), self.0.rem_euclid(1_000))
    }
}

/// Where a store without a clock of its own reads the hour.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the host's clock is read")]
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }
}

/// Tokio's clock, set by the host's at the start: under `tokio::time::pause` an hour passes in no time.
#[derive(Debug, Clone)]
pub struct TokioClock {
    started: Instant,
    started_at: Timestamp,
}

impl TokioClock {
    /// A clock that shows the host's time now and goes on with tokio's.
    pub fn start() -> Self {
        Self { started: Instant::now(), started_at: SystemClock.now() }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let elapsed = self.started.elapsed().as_millis();
        Timestamp(self.started_at.0.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX)))
    }
}

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Clone)]
pub struct ManualClock {
    hour: Arc<AtomicI64>,
    /// Where the hour is kept for several processes.
    file: Option<Arc<Path>>,
}

impl ManualClock {
    /// A clock that stands at `at`.
    pub fn at(at: Timestamp) -> Self {
        Self { hour: Arc::new(AtomicI64::new(at.0)), file: None }
    }

    /// A clock that shows the same time in all processes that open this file; one of them moves it. The file is made
    /// if it is not there.
    ///
    /// # Errors
    /// That the file cannot be read or written, or says no hour.
    pub fn in_file(file: impl AsRef<Path>) -> io::Result<Self> {
        let file = file.as_ref();
        let clock = Self { file: Some(file.into()), ..Self::default() };
        if file.exists() {
            clock.hour.store(read_hour(file)?, Ordering::SeqCst);
        } else {
            write_hour(file, clock.hour.load(Ordering::SeqCst))?;
        }
        Ok(clock)
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().plus(span));
    }

    /// Sets the clock, also backwards, as a bad host's clock does. One in a file that cannot be written stands.
    pub fn set(&self, at: Timestamp) {
        match &self.file {
            Some(file) if write_hour(file, at.0).is_err() => {}
            _ => self.hour.store(at.0, Ordering::SeqCst),
        }
    }
}

fn read_hour(file: &Path) -> io::Result<i64> {
    let text = std::fs::read_to_string(file)?;
    text.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whoever reads sees the hour before or after, and never half of it.
fn write_hour(file: &Path, hour: i64) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, hour.to_string())?;
    std::fs::rename(new, file)
}

impl Default for ManualClock {
    /// Stands at 2001-09-09 01:46:40 UTC, a round number of milliseconds.
    fn default() -> Self {
        Self::at(Timestamp(1_000_000_000_000))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        if let Some(hour) = self.file.as_ref().and_then(|file| read_hour(file).ok()) {
            self.hour.store(hour, Ordering::SeqCst);
        }
        Timestamp(self.hour.load(Ordering::SeqCst))
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ManualClock({:?})", self.now())
    }
}

/// When a call must have answered, by this process's monotonic clock (clause E3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// How long a call may take where nobody says otherwise: 5 s.
    pub const DEFAULT: Duration = Duration::from_secs(5);

    /// The deadline `span` from now.
    pub fn after(span: Duration) -> Self {
        // A span beyond what the clock can show is as good as a century.
        let now = Instant::now();
        Self(now.checked_add(span).unwrap_or_else(|| now + Duration::from_hours(24 * 36_525)))
    }

    /// The deadline at this moment of tokio's clock.
    pub(crate) fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// The deadline as a moment of tokio's clock.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// How much time is left; zero once it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether the time is up.
    pub fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}

impl Default for Deadline {
    fn default() -> Self {
        Self::after(Self::DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_never_makes_anything_early() {
        let t = Timestamp::from_millis(10);
        assert_eq!(t.plus(Duration::from_micros(1)), Timestamp::from_millis(11));
        assert_eq!(t.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(t.minus(Duration::MAX), Timestamp::from_millis(0));
        assert_eq!(t.since(Timestamp::MAX), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_follows_paused_time() {
        let clock = TokioClock::start();
        let before = clock.now();
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(clock.now().since(before), Duration::from_hours(1));
    }

    #[test]
    fn a_clock_in_a_file_is_one_clock_for_all_who_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hour");
        let (one, two) = (ManualClock::in_file(&file).unwrap(), ManualClock::in_file(&file).unwrap());
        one.advance(Duration::from_hours(1));
        assert_eq!(two.now().since(ManualClock::default().now()), Duration::from_hours(1));
        assert_eq!(ManualClock::in_file(&file).unwrap().now(), one.now());
        std::fs::write(&file, "noon").unwrap();
        assert!(ManualClock::in_file(&file).is_err());
    }
}
