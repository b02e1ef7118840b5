//! Recurrences of iCalendar, whose next tick is told without walking over all that were.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, TimeZone, Utc};
use rrule::{Frequency, RRule, RRuleSet};

use crate::error::{Error, Result};

/// The most ticks of a recurrence rule that is to end after so many, and of one by hours, minutes or seconds: they are counted
/// each time.
const MOST: (u32, u32) = (10_000, 1_000);
/// The most times of day that a recurrence rule may name: as many are made for each day of a year at once.
const TIMES: usize = 100;

/// Reads a recurrence of which each tick can be told soon.
pub(super) fn read(text: &str) -> Result<RRuleSet> {
    let bad = |why: &dyn fmt::Display| Error::invalid(format!("this is no recurrence rule: {why}"));
    let set: RRuleSet = text.parse().map_err(|error| bad(&error))?;
    if set.get_dt_start().timezone().is_local() {
        return Err(bad(
            &"its DTSTART has no zone; write one, as in DTSTART;TZID=Europe/Berlin:20260101T090000",
        ));
    }
    let within_days = set.get_rrule().iter().filter(|rule| is_within_days(rule)).count();
    if within_days > 0 && within_days < set.get_rrule().len() {
        return Err(bad(&"it has rules by hours, minutes or seconds beside longer ones; make two schedules"));
    }
    for rule in set.get_rrule() {
        let most = if is_within_days(rule) { MOST.1 } else { MOST.0 };
        if rule.get_count().is_some_and(|count| count > most) {
            return Err(bad(&format_args!("its COUNT is more than {most}")));
        }
        let [hours, minutes, seconds] =
            [rule.get_by_hour(), rule.get_by_minute(), rule.get_by_second()].map(|all| all.len().max(1));
        if hours * minutes * seconds > TIMES {
            return Err(bad(&format_args!(
                "it names more than {TIMES} times of a day; use FREQ=HOURLY, MINUTELY or SECONDLY, or a cron line"
            )));
        }
    }
    Ok(set)
}

fn is_within_days(rule: &RRule) -> bool {
    matches!(rule.get_freq(), Frequency::Hourly | Frequency::Minutely | Frequency::Secondly)
}

/// The first tick of a recurrence after a moment. Ticks are counted from where it starts, and most of them long ago: so it
/// is begun again a whole number of its rounds later, where that changes no tick.
pub(super) fn next(set: &RRuleSet, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let start = *set.get_dt_start();
    // Its ticks are whole seconds, and some of them come twice.
    let from = DateTime::from_timestamp(after.timestamp() + 1, 0)?.with_timezone(&start.timezone());
    let mut set = set.clone();
    if let Some(later) = later_start(&set, from.naive_local()) {
        let rules = (set.get_rrule().clone(), set.get_rdate().clone(), set.get_exdate().clone());
        set = RRuleSet::new(later).set_rrules(rules.0).set_rdates(rules.1).set_exdates(rules.2);
    }
    let found = set.after(from).limit().all(1).dates;
    found.first().map(|tick| tick.with_timezone(&Utc))
}

/// The latest start, a round or more before this time of the clock, with which a recurrence has the same ticks from then on;
/// none if that is not known, or it is the one that it has.
fn later_start(set: &RRuleSet, until: NaiveDateTime) -> Option<DateTime<rrule::Tz>> {
    /// How many rounds earlier it is looked for a start that the clocks show exactly once.
    const EARLIER: i64 = 50;
    let start = *set.get_dt_start();
    let naive = start.naive_local();
    let at = |naive: NaiveDateTime| start.timezone().from_local_datetime(&naive).single();
    if let Some(seconds) = common(set, seconds_of_round) {
        let rounds = (until - naive).num_seconds() / i64::try_from(seconds).ok()? - 1;
        let after = |n: i64| naive.checked_add_signed(TimeDelta::try_seconds(n * seconds as i64)?);
        return (rounds - EARLIER..=rounds).rev().take_while(|n| *n > 0).find_map(|n| at(after(n)?));
    }
    let years = i64::try_from(common(set, years_of_round)?).ok()?;
    let rounds = i64::from(until.year() - naive.year()) / years - 1;
    let after = |n: i64| naive.with_year(naive.year() + i32::try_from(n * years).ok()?);
    (rounds - EARLIER..=rounds).rev().take_while(|n| *n > 0).find_map(|n| at(after(n)?))
}

/// The least common multiple of the rounds of all rules; none if one has none.
fn common(set: &RRuleSet, round: impl Fn(&RRule) -> Option<u64>) -> Option<u64> {
    if set.get_rrule().iter().any(|rule| rule.get_count().is_some()) {
        return None;
    }
    set.get_rrule().iter().map(round).try_fold(1, |all, one| lcm(all, one?)).filter(|round| *round > 1)
}

/// After how many seconds of the clock a rule may begin anew with the same ticks.
fn seconds_of_round(rule: &RRule) -> Option<u64> {
    let interval = u64::from(rule.get_interval());
    let (hour, day) = (3_600, 86_400);
    match rule.get_freq() {
        Frequency::Yearly | Frequency::Monthly => None,
        Frequency::Weekly => Some(7 * day * interval),
        Frequency::Daily => Some(day * interval),
        Frequency::Hourly => Some(hour * interval),
        Frequency::Minutely => lcm(60 * interval, hour),
        Frequency::Secondly => lcm(interval, hour),
    }
}

/// After how many years.
fn years_of_round(rule: &RRule) -> Option<u64> {
    let interval = u64::from(rule.get_interval());
    match rule.get_freq() {
        Frequency::Yearly => Some(interval.max(2)).filter(|years| years % interval == 0),
        Frequency::Monthly => lcm(interval, 12).map(|months| months / 12).map(|years| years.max(2)),
        _ => None,
    }
}

fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut divisor, mut rest) = (a, b);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor.max(1)).checked_mul(b)
}
