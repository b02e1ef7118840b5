use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, TimeZone, Timelike, Utc, Weekday};
use chrono_tz::Tz;
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use rrule::RRuleSet;
use serde::{Deserialize, Serialize};

use super::recurrence;
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// The longest text of a rule, in bytes.
const TEXT: usize = 1_024;
/// The shortest span between two ticks.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest one: a hundred years.
const LONGEST: Duration = Duration::from_hours(24 * 36_525);
/// When a schedule fires. Every rule can be [previewed](Self::preview) before it is used.
///
/// Rules are read when they are made, so one that exists is valid, and fires at least once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Said", into = "Said")]
pub struct Rule {
    said: Said,
    read: Read,
}

/// A rule as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Cron { line: String, zone: String },
    Every { period: Duration, from: Timestamp },
    Recurring { text: String },
}

/// A rule as it is followed.
#[derive(Clone, PartialEq, Eq)]
enum Read {
    Cron(Box<Cron>, Tz),
    Every(Duration, Timestamp),
    Recurring(Box<RRuleSet>),
}

impl Rule {
    /// At each moment that fits this line, in this time zone of the IANA database, such as `Europe/Berlin` or `UTC`.
    ///
    /// The line has five fields (minute, hour, day of month, month, day of week), or six with the second first, or
    /// is one of `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Lists, ranges, steps, names, `L`, `W` and `#`
    /// are read as [croner](https://docs.rs/croner) does. Where both days are said, either fits.
    ///
    /// Where clocks go forward, a tick at a fixed time that is skipped comes right after the gap, and one of a line
    /// with a `*` or a step in its hours or minutes is left out. Where they go back, a fixed time fires once, at its
    /// first coming, the others in both hours.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the line is longer than 1,024 bytes, cannot be read, or
    /// never fits (the 30th of February), or if nobody knows the zone.
    pub fn cron(line: &str, zone: &str) -> Result<Self> {
        Self::that_fires(Said::Cron { line: short(line)?.to_owned(), zone: zone.to_owned() })
    }

    /// Each day at this time, `HH:MM` or `HH:MM:SS`, in this time zone; see [`cron`](Self::cron).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the time cannot be read or nobody knows the zone.
    pub fn daily(at: &str, zone: &str) -> Result<Self> {
        Self::cron(&format!("{} * * *", clock(at)?), zone)
    }

    /// On this day of each week at this time; see [`daily`](Self::daily).
    ///
    /// # Errors
    /// See [`daily`](Self::daily).
    pub fn weekly(day: Weekday, at: &str, zone: &str) -> Result<Self> {
        Self::cron(&format!("{} * * {}", clock(at)?, day.num_days_from_sunday()), zone)
    }

    /// On this day of each month, 1 to 31, at this time; months that lack the day are left out. See
    /// [`daily`](Self::daily).
    ///
    /// # Errors
    /// See [`daily`](Self::daily).
    pub fn monthly(day: u32, at: &str, zone: &str) -> Result<Self> {
        Self::cron(&format!("{} {day} * *", clock(at)?), zone)
    }

    /// Each time that this span has passed since a moment, from it on. Nothing is known of days or zones.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) unless the span is at least a second and at most a hundred
    /// years.
    pub fn every(period: Duration, from: Timestamp) -> Result<Self> {
        Self::that_fires(Said::Every { period, from })
    }

    /// As a recurrence of iCalendar (RFC 5545) says: a `DTSTART` with its zone, one `RRULE` or more, and maybe `RDATE`
    /// and `EXDATE`, a line each.
    ///
    /// ```
    /// use leasehold_core::schedule::Rule;
    ///
    /// let last_friday = "DTSTART;TZID=Europe/Berlin:20260130T170000\nRRULE:FREQ=MONTHLY;BYDAY=-1FR";
    /// let rule = Rule::recurring(last_friday)?;
    /// # Ok::<(), leasehold_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the text is longer than 1,024 bytes or cannot be read, if it
    /// has no tick, names this machine's own time zone, asks by `COUNT` for more than 10,000 ticks, or 1,000 of hours,
    /// minutes or seconds, or names more than 100 times of a day.
    pub fn recurring(text: &str) -> Result<Self> {
        Self::that_fires(Said::Recurring { text: short(text)?.to_owned() })
    }

    fn that_fires(said: Said) -> Result<Self> {
        let rule = Self::try_from(said)?;
        let begin = match &rule.read {
            Read::Recurring(set) => set.get_dt_start().timestamp_millis().saturating_sub(1),
            Read::Cron(..) | Read::Every(..) => 0,
        };
        if rule.next(Timestamp::from_millis(begin)).is_none() {
            return Err(Error::invalid(format!("{rule:?} never fires")));
        }
        Ok(rule)
    }

    /// The first tick after this moment; none if there is none until the end of the year 9999.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let next = match &self.read {
            Read::Cron(cron, zone) => {
                let after = zone.from_utc_datetime(&moment(after)?.naive_utc());
                cron.find_next_occurrence(&after, false).ok().map(|next| next.timestamp_millis())
            }
            Read::Every(period, from) => {
                let (period, from) = (i64::try_from(period.as_millis()).ok()?, from.as_millis());
                let passed = after.as_millis().checked_sub(from)?;
                let ticks = if passed < 0 { 0 } else { passed / period + 1 };
                ticks.checked_mul(period)?.checked_add(from)
            }
            Read::Recurring(set) => recurrence::next(set, moment(after)?).map(|next| next.timestamp_millis()),
        };
        next.filter(|next| *next <= Timestamp::MAX.as_millis()).map(Timestamp::from_millis)
    }

    /// The first `limit` ticks after this moment.
    pub fn preview(&self, after: Timestamp, limit: usize) -> Vec<Timestamp> {
        std::iter::successors(self.next(after), |tick| self.next(*tick)).take(limit).collect()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.said {
            Said::Cron { line, zone } => write!(f, "{line} in {zone}"),
            Said::Every { period, from } => match moment(*from) {
                Some(from) => write!(f, "every {period:?} from {}", from.to_rfc3339()),
                None => write!(f, "every {period:?}"),
            },
            Said::Recurring { text } => f.write_str(&text.replace(['\r', '\n'], " ")),
        }
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({self})")
    }
}

impl From<Rule> for Said {
    fn from(rule: Rule) -> Self {
        rule.said
    }
}

impl TryFrom<Said> for Rule {
    type Error = Error;

    fn try_from(said: Said) -> Result<Self> {
        let read = match &said {
            Said::Cron { line, zone } => Read::Cron(Box::new(read_line(line)?), read_zone(zone)?),
            Said::Every { period, from } => Read::Every(bounded(*period)?, *from),
            Said::Recurring { text } => Read::Recurring(Box::new(recurrence::read(short(text)?)?)),
        };
        Ok(Self { said, read })
    }
}

fn short(text: &str) -> Result<&str> {
    if text.len() <= TEXT {
        return Ok(text);
    }
    Err(Error::invalid(format!("a rule of {} bytes is longer than {TEXT}", text.len())))
}

fn bounded(period: Duration) -> Result<Duration> {
    if (SHORTEST..=LONGEST).contains(&period) {
        return Ok(period);
    }
    Err(Error::invalid(format!(
        "a schedule fires at most once a second and at least once in a hundred years, not every {period:?}"
    )))
}

fn read_line(line: &str) -> Result<Cron> {
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let why = |error: CronError| Error::invalid(format!("{line:?} is no cron line: {error}"));
    parser.parse(short(line)?).map_err(why)
}

fn read_zone(zone: &str) -> Result<Tz> {
    let why = |_| {
        Error::invalid(format!("{zone:?} is no time zone of the IANA database, such as Europe/Berlin or UTC"))
    };
    Tz::from_str(zone).map_err(why)
}

/// The second, minute and hour of a cron line that means this time of day.
fn clock(at: &str) -> Result<String> {
    let time = NaiveTime::parse_from_str(at, "%H:%M:%S").or_else(|_| NaiveTime::parse_from_str(at, "%H:%M"));
    let time =
        time.map_err(|_| Error::invalid(format!("{at:?} is no time of day; write HH:MM or HH:MM:SS")))?;
    Ok(format!("{} {} {}", time.second(), time.minute(), time.hour()))
}

pub(super) fn moment(at: Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(at.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let at = text.parse::<DateTime<Utc>>().expect("a moment");
        Timestamp::from_millis(at.timestamp_millis())
    }

    fn ticks(rule: &Rule, after: &str, limit: usize) -> Vec<String> {
        let shown = |tick: Timestamp| moment(tick).expect("a moment").format("%m-%d %H:%M:%S").to_string();
        rule.preview(at(after), limit).into_iter().map(shown).collect()
    }

    fn refused(rule: Result<Rule>) -> String {
        let error = rule.expect_err("refused");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput, "{error}");
        error.to_string()
    }

    #[test]
    fn a_time_that_clocks_skip_comes_right_after_the_gap() {
        // In Berlin 02:00 to 03:00 is missing on the 29th of March 2026: 03:00 there is 01:00 UTC.
        let rule = Rule::daily("02:30", "Europe/Berlin").unwrap();
        assert_eq!(
            ticks(&rule, "2026-03-27T12:00:00Z", 3),
            ["03-28 01:30:00", "03-29 01:00:00", "03-30 00:30:00"]
        );
    }

    #[test]
    fn a_time_that_comes_twice_fires_once() {
        // 02:00 to 03:00 comes twice on the 25th of October 2026, first as 00:00 to 01:00 UTC.
        let rule = Rule::daily("02:30", "Europe/Berlin").unwrap();
        assert_eq!(
            ticks(&rule, "2026-10-23T12:00:00Z", 3),
            ["10-24 00:30:00", "10-25 00:30:00", "10-26 01:30:00"]
        );
    }

    #[test]
    fn every_half_hour_is_every_half_hour_over_both_changes() {
        let rule = Rule::cron("*/30 * * * *", "Europe/Berlin").unwrap();
        for after in ["2026-03-28T22:10:00Z", "2026-10-24T22:10:00Z"] {
            let all = rule.preview(at(after), 12);
            assert!(all.windows(2).all(|two| two[1].since(two[0]) == Duration::from_secs(1_800)), "{all:?}");
        }
    }

    #[test]
    fn seconds_weekdays_and_days_of_the_month() {
        let rule = Rule::cron("*/20 * * * * *", "UTC").unwrap();
        assert_eq!(ticks(&rule, "2026-01-01T00:00:05Z", 2), ["01-01 00:00:20", "01-01 00:00:40"]);
        let rule = Rule::weekly(Weekday::Sun, "08:00", "UTC").unwrap();
        assert_eq!(ticks(&rule, "2026-11-22T08:00:00Z", 1), ["11-29 08:00:00"]);
        let rule = Rule::monthly(31, "00:00", "UTC").unwrap();
        assert_eq!(ticks(&rule, "2026-01-31T00:00:00Z", 2), ["03-31 00:00:00", "05-31 00:00:00"]);
    }

    #[test]
    fn spans_are_counted_from_their_beginning() {
        let rule = Rule::every(Duration::from_secs(90), at("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(ticks(&rule, "2025-06-01T00:00:00Z", 2), ["01-01 00:00:00", "01-01 00:01:30"]);
        assert_eq!(ticks(&rule, "2026-01-01T00:01:30Z", 1), ["01-01 00:03:00"]);
        assert_eq!(rule.next(Timestamp::MAX), None);
    }

    #[test]
    fn recurrences_keep_their_round_however_long_ago_they_began() {
        for (text, after, expected) in [
            (
                "DTSTART;TZID=Europe/Berlin:20200106T090000\nRRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE",
                "2026-11-22T00:00:00Z",
                ["11-30 08:00:00", "12-02 08:00:00", "12-14 08:00:00"],
            ),
            (
                "DTSTART:19970101T000007Z\nRRULE:FREQ=MINUTELY;INTERVAL=7",
                "2026-11-22T00:00:00Z",
                ["11-22 00:01:07", "11-22 00:08:07", "11-22 00:15:07"],
            ),
            (
                "DTSTART:20000131T120000Z\nRRULE:FREQ=MONTHLY;BYMONTHDAY=-1",
                "2026-11-22T00:00:00Z",
                ["11-30 12:00:00", "12-31 12:00:00", "01-31 12:00:00"],
            ),
            (
                "DTSTART:20260101T120000Z\nRRULE:FREQ=DAILY\nEXDATE:20261123T120000Z",
                "2026-11-22T00:00:00Z",
                ["11-22 12:00:00", "11-24 12:00:00", "11-25 12:00:00"],
            ),
        ] {
            let rule = Rule::recurring(text).unwrap();
            assert_eq!(ticks(&rule, after, 3), expected, "{text}");
        }
    }

    #[test]
    fn a_round_begun_anew_has_the_ticks_of_one_that_was_not() {
        let start = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 7).single().expect("a moment");
        for (freq, interval) in [
            ("SECONDLY", 45_001),
            ("MINUTELY", 7),
            ("MINUTELY", 1_441),
            ("HOURLY", 5),
            ("DAILY", 3),
            ("WEEKLY", 3),
        ] {
            let text =
                format!("DTSTART;TZID=Europe/Berlin:20260101T000007\nRRULE:FREQ={freq};INTERVAL={interval}");
            let set: RRuleSet = text.parse().expect("a rule");
            let rule = Rule::recurring(&text).unwrap();
            // Past the change of clocks in March, which moves no tick of those that are told by the day.
            let all = set.all(30_000).dates;
            let some =
                all.iter().filter(|tick| tick.with_timezone(&Utc) > start + chrono::Days::new(5)).step_by(97);
            for tick in some {
                let before = Timestamp::from_millis(tick.timestamp_millis() - 1);
                assert_eq!(
                    rule.next(before).map(Timestamp::as_millis),
                    Some(tick.timestamp_millis()),
                    "{text} at {tick}"
                );
            }
        }
    }

    #[test]
    fn a_tick_that_comes_twice_is_one_and_ends_nothing() {
        for text in [
            // 02:30 of the 29th of March is 03:30 there, which comes itself.
            "DTSTART;TZID=Europe/Berlin:20260328T003000\nRRULE:FREQ=HOURLY",
            "DTSTART;TZID=Europe/Berlin:20260301T003000\nRRULE:FREQ=DAILY\nRRULE:FREQ=WEEKLY;BYDAY=MO",
            "DTSTART:20260301T003000Z\nRRULE:FREQ=DAILY\nRDATE:20260329T003000Z",
        ] {
            let all = Rule::recurring(text).unwrap().preview(at("2026-03-28T12:00:00Z"), 60);
            assert_eq!(all.len(), 60, "{text}");
            assert!(all.windows(2).all(|two| two[0] < two[1]), "{text}: {all:?}");
        }
    }

    #[test]
    fn the_next_of_a_recurrence_is_found_at_once_however_long_ago_it_began() {
        let begun = tokio::time::Instant::now();
        for (zone, freq) in [
            ("Europe/Berlin", "SECONDLY"),
            ("America/New_York", "MINUTELY;INTERVAL=7"),
            ("Europe/Berlin", "HOURLY;INTERVAL=5"),
            ("Europe/Berlin", "YEARLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR=0,1,2,3,4,5,6,7;BYMINUTE=0,15,30,45"),
            ("Europe/Berlin", "MONTHLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR=0,6,12,18"),
        ] {
            let text = format!("DTSTART;TZID={zone}:19970330T023000\nRRULE:FREQ={freq}");
            let rule = Rule::recurring(&text.replace("0330T02", "0331T02")).unwrap();
            for hour in 0..48 {
                let after = at("2026-03-28T12:00:10Z").plus(Duration::from_hours(hour));
                let next = rule.next(after).unwrap();
                assert!(
                    next > after && next.since(after) < Duration::from_hours(24),
                    "{text} after {after:?}"
                );
            }
        }
        // 240 of them; each was minutes, walked from where it starts.
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_recurrence_that_is_over_has_no_next() {
        let rule = Rule::recurring("DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY;COUNT=3").unwrap();
        assert_eq!(
            ticks(&rule, "2025-12-01T00:00:00Z", 9),
            ["01-01 00:00:00", "01-02 00:00:00", "01-03 00:00:00"]
        );
        assert_eq!(rule.next(at("2026-01-03T00:00:00Z")), None);
    }

    #[test]
    fn what_is_absurd_is_refused_and_said_why() {
        let list = (0..6_000).map(|n| (n % 60).to_string()).collect::<Vec<_>>().join(",");
        assert!(refused(Rule::cron(&format!("{list} * * * *"), "UTC")).contains("longer than 1024"));
        assert!(refused(Rule::cron("*/0 * * * *", "UTC")).contains("*/0"));
        assert!(refused(Rule::cron("0 0 30 2 *", "UTC")).contains("never fires"));
        assert!(refused(Rule::cron("* * *", "UTC")).contains("no cron line"));
        assert!(refused(Rule::cron("", "UTC")).contains("no cron line"));
        assert!(refused(Rule::daily("12:00", "Mars/Olympus")).contains("Mars/Olympus"));
        assert!(refused(Rule::daily("25:00", "UTC")).contains("HH:MM"));
        assert!(refused(Rule::monthly(32, "00:00", "UTC")).contains("no cron line"));
        assert!(
            refused(Rule::every(Duration::from_nanos(1), at("2026-01-01T00:00:00Z")))
                .contains("once a second")
        );
        assert!(refused(Rule::every(Duration::MAX, at("2026-01-01T00:00:00Z"))).contains("hundred years"));
        let year_30000 = Timestamp::from_millis(884_541_340_800_000);
        assert!(refused(Rule::every(Duration::from_secs(60), year_30000)).contains("never fires"));
        assert!(refused(Rule::cron("0 0 0 1 1 * 30000", "UTC")).contains("no cron line"));
        let year_30000 = "DTSTART:300000101T000000Z\nRRULE:FREQ=DAILY";
        assert!(refused(Rule::recurring(year_30000)).contains("recurrence"));
        let until = "DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY;UNTIL=300000101T000000Z";
        assert!(refused(Rule::recurring(until)).contains("recurrence"));
        assert!(refused(Rule::recurring("RRULE:FREQ=DAILY")).contains("recurrence"));
        assert!(refused(Rule::recurring("DTSTART:20260101T000000\nRRULE:FREQ=DAILY")).contains("no zone"));
        let minutes = (0..60).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let dense =
            format!("DTSTART:20260101T000000Z\nRRULE:FREQ=YEARLY;BYDAY=MO;BYHOUR=1,2;BYMINUTE={minutes}");
        assert!(refused(Rule::recurring(&dense)).contains("times of a day"));
        let often = "DTSTART:20260101T000000Z\nRRULE:FREQ=MINUTELY;COUNT=5000";
        assert!(refused(Rule::recurring(often)).contains("COUNT"));
        let mixed = "DTSTART:20260101T000000Z\nRRULE:FREQ=MINUTELY\nRRULE:FREQ=YEARLY";
        assert!(refused(Rule::recurring(mixed)).contains("two schedules"));
        assert!(
            refused(Rule::recurring("DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY;COUNT=4000000"))
                .contains("COUNT")
        );
        assert!(
            refused(Rule::recurring("DTSTART:20260101T000000Z\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"))
                .contains("never fires")
        );
    }

    #[test]
    fn is_kept_as_it_was_said() {
        for rule in [
            Rule::cron("0 9 * * MON-FRI", "America/New_York"),
            Rule::every(Duration::from_secs(5), at("2026-01-01T00:00:00Z")),
            Rule::recurring("DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY"),
        ] {
            let rule = rule.unwrap();
            let kept = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<Rule>(&kept).unwrap(), rule, "{kept}");
        }
        assert!(serde_json::from_str::<Rule>(r#"{"cron":{"line":"*/0 * * * *","zone":"UTC"}}"#).is_err());
    }
}
