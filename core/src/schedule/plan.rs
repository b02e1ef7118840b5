use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use crate::job::State;
use crate::time::Timestamp;

/// How late a tick may be and still count as on time.
pub const ON_TIME: Duration = Duration::from_secs(60);
/// The most missed ticks that are made up for.
pub const MOST_MISSED: u32 = 1_000;

/// What becomes of ticks for which no scheduler was there: those that are more than [a minute](ON_TIME) late. While a
/// schedule is paused it misses none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are left out.
    Skip,
    /// The first of them fires, for all. The default.
    #[default]
    Once,
    /// Each fires, the oldest first, up to so many; at most [`MOST_MISSED`]. What is beyond is left out.
    All(u32),
}

/// What a tick does while the job of an earlier one has not ended.
///
/// With any but [`Allow`](Self::Allow) at most one job of the schedule runs: unless the job brings a limit key of its own, it
/// has one of the schedule's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It fires; both may run at once. The default.
    #[default]
    Allow,
    /// It is left out.
    Skip,
    /// It fires, and its job waits for the other's end; if one waits already, it is left out.
    QueueOne,
    /// The other is cancelled, and it fires; its job waits for the other's end.
    CancelRunning,
}

/// What is to be done about a schedule that is due; nothing any more by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The ticks that fire, the earliest first.
    pub fire: Vec<Timestamp>,
    /// Whether the job that was fired last is cancelled first.
    pub cancel: bool,
    /// When it is due again; none if its rule is exhausted.
    pub next: Option<Timestamp>,
}

/// Decides about a schedule whose first tick that was not decided about yet is `next`, of which the job that was fired last is
/// in this state.
pub fn plan(
    rule: &Rule,
    catch_up: CatchUp,
    overlap: Overlap,
    next: Timestamp,
    latest: Option<State>,
    hour: Timestamp,
) -> Plan {
    let on_time = hour.minus(ON_TIME);
    let mut fire = missed(rule, catch_up, next, on_time);
    let first = if next < on_time { rule.next(on_time.minus(MILLISECOND)) } else { Some(next) };
    let follow = |tick: &Timestamp| rule.next(*tick);
    fire.extend(std::iter::successors(first, follow).take_while(|tick| *tick <= hour));
    let (fire, cancel) = beside(overlap, latest, fire);
    Plan { fire, cancel, next: rule.next(hour) }
}

const MILLISECOND: Duration = Duration::from_millis(1);

fn missed(rule: &Rule, catch_up: CatchUp, next: Timestamp, on_time: Timestamp) -> Vec<Timestamp> {
    let most = match catch_up {
        CatchUp::Skip => 0,
        CatchUp::Once => 1,
        CatchUp::All(most) => most.min(MOST_MISSED),
    };
    let all = std::iter::successors(Some(next), |tick| rule.next(*tick));
    all.take_while(|tick| *tick < on_time).take(most as usize).collect()
}

/// Which of these ticks fire beside the job that was fired last, and whether that is cancelled.
fn beside(overlap: Overlap, latest: Option<State>, ticks: Vec<Timestamp>) -> (Vec<Timestamp>, bool) {
    let is_open = latest.is_some_and(|state| !state.is_terminal());
    let one = |tick: Option<&Timestamp>| tick.copied().into_iter().collect();
    match overlap {
        Overlap::Allow => (ticks, false),
        Overlap::Skip if is_open => (Vec::new(), false),
        Overlap::QueueOne if is_open && latest != Some(State::Running) => (Vec::new(), false),
        Overlap::Skip | Overlap::QueueOne => (one(ticks.first()), false),
        Overlap::CancelRunning => (one(ticks.last()), is_open && !ticks.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * S)
    }

    /// A tick each ten seconds.
    fn rule() -> Rule {
        Rule::every(Duration::from_secs(10), at(0)).expect("a rule")
    }

    fn fired(catch_up: CatchUp, next: i64, hour: i64) -> (Vec<i64>, Option<i64>) {
        let plan = plan(&rule(), catch_up, Overlap::Allow, at(next), None, at(hour));
        let seconds = |tick: Timestamp| (tick.as_millis() - at(0).as_millis()) / S;
        (plan.fire.into_iter().map(seconds).collect(), plan.next.map(seconds))
    }

    #[test]
    fn ticks_on_time_all_fire_whatever_is_said_of_missed_ones() {
        for catch_up in [CatchUp::Skip, CatchUp::Once, CatchUp::All(5)] {
            assert_eq!(fired(catch_up, 20, 20), (vec![20], Some(30)));
            assert_eq!(fired(catch_up, 20, 45), (vec![20, 30, 40], Some(50)));
            assert_eq!(fired(catch_up, 20, 80), (vec![20, 30, 40, 50, 60, 70, 80], Some(90)));
        }
    }

    #[test]
    fn missed_ticks_are_left_out_made_one_or_made_up_for() {
        let on_time = [940, 950, 960, 970, 980, 990, 1_000];
        let with = |missed: &[i64]| [missed, &on_time].concat();
        assert_eq!(fired(CatchUp::Skip, 20, 1_000), (with(&[]), Some(1_010)));
        assert_eq!(fired(CatchUp::Once, 20, 1_000), (with(&[20]), Some(1_010)));
        assert_eq!(fired(CatchUp::All(3), 20, 1_000), (with(&[20, 30, 40]), Some(1_010)));
        assert_eq!(fired(CatchUp::All(u32::MAX), 920, 1_000), (with(&[920, 930]), Some(1_010)));
    }

    #[test]
    fn a_year_without_a_scheduler_is_decided_about_at_once() {
        let year = 366 * 24 * 3_600;
        assert_eq!(fired(CatchUp::Once, 0, year).0.len(), 8);
        assert_eq!(fired(CatchUp::All(u32::MAX), 0, year).0.len(), MOST_MISSED as usize + 7);
    }

    #[test]
    fn what_fires_beside_a_job_that_has_not_ended() {
        let ticks = vec![at(0), at(10)];
        let (none, first, last) = (vec![], vec![at(0)], vec![at(10)]);
        for (overlap, latest, expected) in [
            (Overlap::Allow, Some(State::Running), (&ticks, false)),
            (Overlap::Skip, None, (&first, false)),
            (Overlap::Skip, Some(State::Failed), (&first, false)),
            (Overlap::Skip, Some(State::Running), (&none, false)),
            (Overlap::Skip, Some(State::Scheduled), (&none, false)),
            (Overlap::QueueOne, Some(State::Succeeded), (&first, false)),
            (Overlap::QueueOne, Some(State::Running), (&first, false)),
            (Overlap::QueueOne, Some(State::Queued), (&none, false)),
            (Overlap::CancelRunning, Some(State::Cancelled), (&last, false)),
            (Overlap::CancelRunning, Some(State::Running), (&last, true)),
        ] {
            let (fire, cancel) = beside(overlap, latest, ticks.clone());
            assert_eq!((&fire, cancel), expected, "{overlap:?} beside {latest:?}");
        }
        assert_eq!(beside(Overlap::CancelRunning, Some(State::Running), vec![]), (vec![], false));
    }
}
