//! Moments, spans and numbers in the words of people.

use std::time::{Duration, UNIX_EPOCH};

use leasehold::Timestamp;
use serde::Serialize;

/// The text of a job as a terminal may show it: what would move its cursor, colour it or turn its direction is shown as a
/// code.
pub(crate) fn printable(text: &str) -> String {
    let is_harmless = |c: char| c == '\n' || !(c.is_control() || is_direction(c));
    if text.chars().all(is_harmless) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| if is_harmless(c) { c.to_string() } else { c.escape_unicode().to_string() })
        .collect()
}

const fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A moment, as 2026-05-04T12:00:00Z.
pub(crate) fn moment(at: Timestamp) -> String {
    let millis = u64::try_from(at.as_millis()).unwrap_or(0);
    let at = UNIX_EPOCH + Duration::from_millis(millis);
    humantime::format_rfc3339_seconds(at).to_string()
}

/// The same where there is one.
pub(crate) fn moment_or(at: Option<Timestamp>, none: &str) -> String {
    at.map_or_else(|| none.to_owned(), moment)
}

/// A span in its two largest units, as 3h 5m.
pub(crate) fn span(span: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = span.as_secs();
    if seconds == 0 {
        return format!("{}ms", span.as_millis());
    }
    let mut left = seconds;
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        if left >= size {
            parts.push(format!("{}{unit}", left / size));
            left %= size;
        }
    }
    parts.truncate(2);
    parts.join(" ")
}

/// How long ago that was, or how long it takes until then.
pub(crate) fn relative(at: Timestamp, now: Timestamp) -> String {
    if at >= Timestamp::MAX {
        "never".to_owned()
    } else if at > now {
        format!("in {}", span(at.since(now)))
    } else {
        format!("{} ago", span(now.since(at)))
    }
}

/// The word of an enumeration, as JSON and URLs have it.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

/// A text cut to so many letters.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let line: String = text.lines().next().unwrap_or_default().chars().take(most + 1).collect();
    if line.chars().count() <= most && text.lines().nth(1).is_none() {
        return line;
    }
    format!("{}…", line.chars().take(most).collect::<String>())
}

/// A number with a comma behind each three digits.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|part| str::from_utf8(part).ok()).collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read() {
        assert_eq!(span(Duration::from_millis(12)), "12ms");
        assert_eq!(span(Duration::from_secs(3_605)), "1h 5s");
        assert_eq!(span(Duration::from_secs(90_061)), "1d 1h");
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(cut("two\nlines", 10), "two…");
        assert_eq!(cut("exactly", 7), "exactly");
        assert_eq!(cut("too long", 3), "too…");
        assert_eq!(moment(Timestamp::from_millis(0)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn nothing_moves_the_cursor_or_turns_the_line() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\rd\ne"), "a\\u{1b}[2Jb\\u{202e}c\\u{d}d\ne");
    }
}
