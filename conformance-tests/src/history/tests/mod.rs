//! The checker finds what it is there to find, and nothing else: each invariant has tales that break it, and
//! twins of them that do not.

mod beyond;
mod fleet;
mod invariants;
mod lines;
mod narrow;
mod second;
mod tale;

use leasehold_core::backend::Answer;
use leasehold_core::{ManualClock, State};

use self::tale::{LEASE, Tale};
use crate::history::event::{Call, Event, Fault, Reply, What};
use crate::history::{Rules, check};

#[test]
fn a_plain_life_breaks_nothing() {
    let mut tale = Tale::new();
    let lease = tale.held();
    tale.renew(lease, Answer::Applied);
    tale.log(lease, Answer::Applied);
    tale.settle_after(lease, "retry", 20, Some(Answer::Applied));
    tale.pass(20);
    let lease = tale.claim(lease.job, 2);
    tale.ends_well(lease);
    tale.settle(lease, "succeed", Answer::AlreadyApplied);
    tale.passes();
}

#[test]
fn an_answer_to_no_call_is_the_harness_own_fault() {
    let mut tale = Tale::new();
    tale.event("p", 9, What::Ok { reply: Reply::Other });
    let verdict = tale.verdict();
    assert_eq!(verdict.harness.len(), 1, "{verdict}");
    assert!(!verdict.is_valid() && verdict.findings.is_empty());
}

#[test]
fn a_process_that_writes_after_its_death_is_the_harness_own_fault() {
    let killed = || Fault { what: "kill".into(), kills: Some("w".into()), step: 0 };
    let mut tale = Tale::new();
    let job = tale.enqueue();
    tale.fault(killed());
    tale.claim_by("w#2", job, 1);
    assert!(check(&tale.events, &Rules::default()).is_valid());
    tale.claim(job, 2);
    assert!(!check(&tale.events, &Rules::default()).harness.is_empty());
}

#[test]
fn a_number_that_comes_twice_is_the_harness_own_fault() {
    let mut tale = Tale::new();
    for _ in 0..2 {
        tale.event("p", 9, What::Invoke { call: Call::Prune });
    }
    assert_eq!(tale.verdict().harness.len(), 1);
}

#[test]
fn a_drained_run_without_a_last_look_is_not_valid() {
    let mut tale = Tale::new();
    let lease = tale.held();
    tale.settle(lease, "succeed", Answer::Applied);
    let verdict = check(&tale.events, &Rules::drained(1));
    assert_eq!(verdict.harness.len(), 1, "{verdict}");
}

#[test]
fn a_run_that_did_too_little_proves_nothing() {
    let tale = || {
        let mut tale = Tale::new();
        let lease = tale.held();
        tale.settle(lease, "succeed", Answer::Applied);
        tale.events
    };
    let plain = Rules::default;
    assert!(check(&tale(), &plain().at_least(|least| least.grants = 1).planned(3)).is_valid());
    let unmet = [
        plain().at_least(|least| least.grants = 2),
        plain().losses(1),
        plain().unknown(1),
        plain().planned(4),
        plain().at_least(|least| least.faults = 1),
        plain().at_least(|least| least.grants_under_faults = 1),
    ];
    for rules in unmet {
        let verdict = check(&tale(), &rules);
        assert!(verdict.vacuous.len() == 1 && !verdict.is_valid(), "{verdict}");
    }
}

#[test]
fn a_verdict_tells_the_story_of_the_job() {
    let mut tale = Tale::new();
    let other = tale.held();
    let first = tale.held();
    let second = tale.claim(first.job, 2);
    for lease in [second, other] {
        tale.ends_well(lease);
    }
    let verdict = tale.verdict().to_string();
    assert!(verdict.contains(&format!("job {}", first.job)), "{verdict}");
    assert!(verdict.contains(&first.token.to_string()[..8]), "{verdict}");
    let offending = verdict.lines().filter(|line| line.starts_with('>')).count();
    assert_eq!(offending, 2, "{verdict}");
}

#[test]
fn a_clock_that_steps_widens_what_can_be_explained() {
    let tale = |step| {
        let mut tale = Tale::new();
        let first = tale.held();
        tale.fault(Fault { what: "step".into(), kills: None, step });
        tale.recover(first, "retry", Answer::Applied);
        let second = tale.claim(first.job, 2);
        tale.ends_well(second);
        tale.verdict()
    };
    assert!(!tale(0).is_valid());
    let stepped = tale(i64::try_from(LEASE).unwrap());
    assert!(stepped.is_valid(), "{stepped}");
}

/// With a manual clock only its moves let time pass.
#[test]
fn a_manual_clock_stands_still_between_its_moves() {
    let tale = |moved: u64| {
        let mut tale = Tale::new();
        let clock = ManualClock::default();
        let at = |tale: &mut Tale, done, to| tale.event("n", 0, What::Clock { to, done });
        at(&mut tale, true, leasehold_core::Clock::now(&clock));
        let first = tale.held();
        tale.pass(10 * LEASE);
        clock.advance(std::time::Duration::from_millis(moved));
        at(&mut tale, false, leasehold_core::Clock::now(&clock));
        at(&mut tale, true, leasehold_core::Clock::now(&clock));
        tale.recover(first, "fail", Answer::Applied);
        tale.last(first.job, State::Failed);
        tale.verdict()
    };
    assert!(!tale(LEASE).is_valid(), "a lease that ends exactly now is valid");
    let after = tale(LEASE + 1);
    assert!(after.is_valid(), "{after}");
}

/// The events that a tale is made of read back from their lines.
fn assert_reads_back(events: &[Event]) {
    for event in events {
        let line = serde_json::to_string(event).unwrap();
        let back: Event = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(&back, event, "{line}");
    }
}
