use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How long to wait before the next attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backoff {
    /// Always the same.
    Fixed {
        /// The wait.
        delay: Duration,
    },
    /// Longer after each attempt, up to a cap: `first * factor^(attempt - 1)`.
    Exponential {
        /// The wait after the first attempt.
        first: Duration,
        /// What each further wait is multiplied by.
        factor: f64,
        /// The longest wait.
        cap: Duration,
        /// Which part of the wait is left to chance, from 0 to 1, so that jobs that failed together do not
        /// come back together.
        jitter: f64,
    },
    /// The n-th wait after the n-th attempt; the last one from there on. None at all means at once.
    Steps {
        /// The waits.
        delays: Vec<Duration>,
    },
}

impl Default for Backoff {
    /// 1 s, doubled with each attempt up to an hour, half of it left to chance. With the default of 20
    /// attempts a job that never succeeds is given up after 4 to 8 hours of waiting.
    fn default() -> Self {
        Self::Exponential {
            first: Duration::from_secs(1),
            factor: 2.0,
            cap: Duration::from_hours(1),
            jitter: 0.5,
        }
    }
}

impl Backoff {
    /// The wait after attempt number `attempt` (from 1).
    pub fn delay(&self, attempt: u32, roll: f64) -> Duration {
        match self {
            Self::Fixed { delay } => *delay,
            Self::Steps { delays } => {
                let last = delays.len().saturating_sub(1);
                let step = (attempt.max(1) as usize - 1).min(last);
                delays.get(step).copied().unwrap_or_default()
            }
            Self::Exponential { first, factor, cap, jitter } => {
                let power = i32::try_from(attempt.max(1) - 1).unwrap_or(i32::MAX);
                // Bounded, since nothing times infinity would be no number at all.
                let growth = factor.max(1.0).powi(power).min(f64::MAX);
                let full = (first.as_secs_f64() * growth).min(cap.as_secs_f64());
                let wait = full * (1.0 - jitter.clamp(0.0, 1.0) * roll.clamp(0.0, 1.0));
                Duration::try_from_secs_f64(wait).unwrap_or(*cap)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_no_further() {
        let backoff = Backoff::default();
        let waits: Vec<u64> = (1..=14).map(|n| backoff.delay(n, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]);
        assert_eq!(backoff.delay(u32::MAX, 0.0), Duration::from_hours(1));
    }

    #[test]
    fn jitter_only_shortens() {
        for attempt in 1..30 {
            let full = Backoff::default().delay(attempt, 0.0);
            for roll in [0.1, 0.5, 0.999] {
                let wait = Backoff::default().delay(attempt, roll);
                assert!(wait <= full && wait >= full / 2, "{attempt} {roll}");
            }
        }
    }

    #[test]
    fn the_default_gives_up_within_the_hours_it_promises() {
        let total = |roll| (1..20).map(|n| Backoff::default().delay(n, roll)).sum::<Duration>();
        assert!(total(0.0) < Duration::from_mins(8 * 60 + 9), "{:?}", total(0.0));
        assert!(total(1.0) > Duration::from_hours(4), "{:?}", total(1.0));
    }

    #[test]
    fn steps_end_with_the_last() {
        let steps = Backoff::Steps { delays: vec![Duration::from_secs(1), Duration::from_secs(9)] };
        assert_eq!([1, 2, 3].map(|n| steps.delay(n, 0.0).as_secs()), [1, 9, 9]);
        assert_eq!(Backoff::Steps { delays: vec![] }.delay(1, 0.0), Duration::ZERO);
    }

    #[test]
    fn nothing_stays_nothing_however_often() {
        let cap = Duration::from_secs(1);
        let none = Backoff::Exponential { first: Duration::ZERO, factor: 2.0, cap, jitter: 0.0 };
        assert_eq!(none.delay(1_000_000, 0.0), Duration::ZERO);
    }

    #[test]
    fn survives_absurd_settings() {
        let absurd = Backoff::Exponential {
            first: Duration::MAX,
            factor: f64::INFINITY,
            cap: Duration::MAX,
            jitter: -3.0,
        };
        assert_eq!(absurd.delay(9, 0.5), Duration::MAX);
        let not_a_number = Backoff::Exponential {
            first: Duration::ZERO,
            factor: f64::NAN,
            cap: Duration::from_secs(1),
            jitter: f64::NAN,
        };
        assert!(not_a_number.delay(3, 0.5) <= Duration::from_secs(1));
    }
}
