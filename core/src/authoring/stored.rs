//! How values are kept by stores that know whole numbers and text.

use std::time::Duration;

use crate::job::JobOptions;

/// A span in whole milliseconds; parts round up, so that nothing is early.
pub fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

/// How many at most, as a whole number with a sign.
pub fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// Options as JSON where the priority is kept apart from them: nothing much for those of most jobs.
///
/// # Errors
/// Those of serde.
pub fn options_text(options: &JobOptions) -> serde_json::Result<String> {
    if options.are_usual() { Ok(USUAL.into()) } else { serde_json::to_string(options) }
}

/// What [`options_text`] wrote; the priority is for the caller to fill in.
///
/// # Errors
/// Those of serde.
pub fn options(text: &str) -> serde_json::Result<JobOptions> {
    if text == USUAL { Ok(JobOptions::default()) } else { serde_json::from_str(text) }
}

const USUAL: &str = "{}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_millisecond_round_up() {
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_millis(7)), 7);
        assert_eq!((millis(Duration::MAX), at_most(usize::MAX)), (i64::MAX, i64::MAX));
    }

    #[test]
    fn options_come_back_without_their_priority() {
        let urgent = JobOptions { priority: 9, ..JobOptions::default() };
        assert_eq!(options_text(&urgent).unwrap(), "{}");
        assert_eq!(options("{}").unwrap(), JobOptions::default());
        let own = JobOptions { max_attempts: 3, ..JobOptions::default() };
        assert_eq!(options(&options_text(&own).unwrap()).unwrap(), own);
        assert!(options("{").is_err());
    }
}
