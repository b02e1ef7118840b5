//! The second opinion: what the search finds, and what it finds an order for.

use leasehold_core::backend::Answer::{AlreadyApplied, Applied, Lost};
use leasehold_core::{ClaimId, State, Timestamp};

use super::tale::{LEASE, Lease, Tale};
use crate::history::Invariant::Linear;
use crate::history::event::{Call, ChangeKind, Fate, Reply, Seen, What, Write};

fn finds(tale: Tale) {
    let verdict = tale.verdict();
    assert!(verdict.broken().contains_key(&Linear), "{verdict}");
}

#[test]
fn a_job_given_out_while_it_runs() {
    let mut tale = Tale::new();
    let first = tale.held();
    let second = tale.claim(first.job, 2);
    tale.ends_well(second);
    finds(tale);
}

#[test]
fn an_answer_that_was_right_a_moment_before() {
    let mut tale = Tale::new();
    let first = tale.held();
    tale.settle(first, "retry", Applied);
    let second = tale.claim(first.job, 2);
    tale.renew(first, Applied);
    tale.ends_well(second);
    finds(tale);
}

#[test]
fn a_refusal_that_nothing_explains() {
    for (fate, fits) in [(Fate::Refused, false), (Fate::Applied, true)] {
        let mut tale = Tale::new();
        let job = tale.enqueue();
        tale.amend_as(job, ChangeKind::Cancel, fate);
        tale.last(job, State::Cancelled);
        if fits {
            tale.passes();
        } else {
            finds(tale);
        }
    }
}

#[test]
fn a_parked_job_that_was_unparked_and_cancelled_too() {
    for (fate, fits) in [(Fate::Applied, false), (Fate::AlreadyApplied, false), (Fate::Refused, true)] {
        let mut tale = Tale::new();
        let job = tale.enqueue_parked();
        tale.amend_as(job, ChangeKind::Unpark, Fate::Applied);
        tale.amend_as(job, ChangeKind::CancelParked, fate);
        if fits {
            let lease = tale.claim(job, 1);
            tale.ends_well(lease);
            tale.passes();
        } else {
            tale.last(job, State::Cancelled);
            finds(tale);
        }
    }
}

#[test]
fn a_word_on_a_parked_job_that_was_not_heard() {
    for (change, fate, fits) in [
        (ChangeKind::Unpark, Fate::AlreadyApplied, false),
        (ChangeKind::CancelParked, Fate::Refused, false),
        (ChangeKind::CancelParked, Fate::AlreadyApplied, false),
        (ChangeKind::CancelParked, Fate::Applied, true),
    ] {
        let mut tale = Tale::new();
        let job = tale.enqueue_parked();
        tale.amend_as(job, change, fate);
        let state = if fits { State::Cancelled } else { State::Scheduled };
        tale.rules.drained = fits;
        tale.last_as(Seen { due: Timestamp::MAX, ..Tale::seen(job, state, 0) });
        if fits {
            tale.passes();
        } else {
            finds(tale);
        }
    }
}

#[test]
fn a_parked_job_given_out() {
    for parks in [true, false] {
        let mut tale = Tale::new();
        let job = tale.enqueue();
        tale.amend_so(job, ChangeKind::Postpone, parks, Fate::Applied);
        let lease = tale.claim(job, 1);
        tale.ends_well(lease);
        if parks {
            finds(tale);
        } else {
            tale.passes();
        }
    }
}

#[test]
fn a_look_at_an_attempt_that_was_not_yet() {
    for (attempt, fits) in [(2, false), (1, true)] {
        let mut tale = Tale::new();
        let lease = tale.held();
        tale.look(Seen { attempt, ..Tale::seen(lease.job, State::Running, 1) });
        tale.ends_well(lease);
        let verdict = tale.verdict();
        assert_eq!(!verdict.broken().contains_key(&Linear), fits, "{verdict}");
    }
}

/// Nothing is known of a settlement: it may have been made before the recovery was refused, or never.
#[test]
fn an_unknown_call_may_take_effect_or_not() {
    for (answer, verdict, state) in [(Lost, "fail", State::Succeeded), (Applied, "fail", State::Failed)] {
        let mut tale = Tale::new();
        let lease = tale.held();
        tale.settle_after(lease, "succeed", 0, None);
        tale.pass(LEASE + 5);
        tale.recover(lease, verdict, answer);
        tale.last(lease.job, state);
        tale.passes();
    }
}

#[test]
fn a_lost_claim_may_have_held_the_job() {
    let mut tale = Tale::new();
    let (job, claim) = (tale.enqueue(), ClaimId::generate());
    tale.grant_as("w", claim, None);
    tale.pass(LEASE + 5);
    tale.recover(Lease { job, token: claim.token(job) }, "retry", Applied);
    let second = tale.claim(job, 2);
    tale.ends_well(second);
    tale.passes();
}

#[test]
fn the_latest_settlement_is_remembered_and_an_older_one_may_be() {
    for older in [Lost, AlreadyApplied] {
        let mut tale = Tale::new();
        let first = tale.held();
        tale.settle(first, "retry", Applied);
        let second = tale.claim(first.job, 2);
        tale.settle(second, "succeed", Applied);
        tale.settle(first, "retry", older);
        tale.settle(second, "succeed", AlreadyApplied);
        tale.last(second.job, State::Succeeded);
        tale.passes();
    }
}

/// Where a driver may send a call twice, the first may end a lease, and the second be told that it is lost.
#[test]
fn a_call_that_was_made_twice_unseen() {
    for repeats in [true, false] {
        let mut tale = Tale::new();
        tale.rules.repeats_inside = repeats;
        let first = tale.held();
        let write = Write {
            job: first.job,
            token: first.token,
            verdict: "retry".into(),
            span: 0,
            queue: None,
            append: None,
        };
        tale.event("w", 99, What::Invoke { call: Call::Settle(vec![write]) });
        let second = tale.claim_by("v", first.job, 2);
        tale.ends_well(second);
        tale.event("w", 99, What::Ok { reply: Reply::Settle(vec![Lost]) });
        let verdict = tale.verdict();
        assert_eq!(verdict.is_valid(), repeats, "{verdict}");
    }
}

#[test]
fn a_life_that_is_too_long_is_counted() {
    let mut tale = Tale::new();
    let lease = tale.held();
    for _ in 0..200 {
        tale.renew(lease, Applied);
    }
    tale.ends_well(lease);
    let verdict = tale.verdict();
    assert!(verdict.is_valid(), "{verdict}");
    assert_eq!((verdict.tally.ordered, verdict.unjudged.len()), (0, 1), "{verdict}");
}
