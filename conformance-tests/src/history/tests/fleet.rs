//! The same for watchers, waiting, stops, limits and schedules.

use std::time::Duration;

use leasehold_core::backend::Answer::Applied;
use leasehold_core::{ClaimId, JobId, Limit, LimitKey, QueueName, RegisterName, State, Timestamp, VersionId};

use super::beyond::end_all;
use super::tale::{LEASE, Lease, Tale, flawed, worker};
use crate::history::Invariant::{I1, I14, I15, I16, I17, I18};
use crate::history::event::{
    Call, Change, ChangeKind, Entry, Fate, Plan, Presence, Put, Reply, Seen, Setting, What, Write,
};
use crate::history::{Hint, Watching};

/// Somebody watches, is told of one thing, and then a job lives and ends.
fn told(hint: impl Fn(JobId) -> Hint, begun: bool, watching: Watching) -> Tale {
    let mut tale = Tale::new();
    tale.does("v", Call::Watch(watching));
    let op = tale.events[0].op;
    let put = Tale::put(JobId::generate());
    let hint = What::Told(hint(put.job));
    if !begun {
        tale.event("v", op, hint.clone());
    }
    let job = tale.enqueue_as(put, Some(Entry::Created));
    let lease = tale.claim(job, 1);
    tale.log(lease, Applied);
    tale.amend_as(job, ChangeKind::Cancel, Fate::Requested);
    tale.settle(lease, "cancel", Applied);
    tale.does("o", Call::SetQueue(Setting { queue: QueueName::default(), paused: false }));
    if begun {
        tale.event("v", op, hint);
    }
    tale.last(job, State::Cancelled);
    tale
}

#[test]
fn i14_a_watcher_that_was_told_what_nobody_did() {
    let queue = QueueName::default;
    let hints: [&dyn Fn(JobId) -> Hint; 6] = [
        &|_| Hint::Waiting(queue()),
        &|_| Hint::QueueSet(queue()),
        &|job| Hint::Changed(job, queue(), State::Running),
        &|job| Hint::Changed(job, queue(), State::Cancelled),
        &|job| Hint::CancelRequested(job, queue()),
        &|job| Hint::Logged(job, queue()),
    ];
    let all = || Watching { queues: None, logs: true };
    for hint in hints {
        told(hint, true, all()).passes();
        told(hint, false, all()).breaks(&[I14]);
    }
    told(|job| Hint::Changed(job, queue(), State::Succeeded), true, all()).breaks(&[I14]);
    told(|_| Hint::Waiting(QueueName::new("x").unwrap()), true, all()).breaks(&[I14]);
}

#[test]
fn i14_a_watcher_that_was_told_what_it_had_not_asked_for() {
    let queue = QueueName::default;
    let others = || Watching { queues: Some(vec![QueueName::new("x").unwrap()]), logs: true };
    told(|_| Hint::Waiting(queue()), true, others()).breaks(&[I14]);
    let own = || Watching { queues: Some(vec![queue()]), logs: false };
    told(|_| Hint::Waiting(queue()), true, own()).passes();
    told(|job| Hint::Logged(job, queue()), true, own()).breaks(&[I14]);
}

#[test]
fn i15_a_job_that_is_left_over() {
    flawed(&[I15], |tale, flaw| {
        let job = tale.enqueue();
        if flaw {
            tale.last(job, State::Queued);
        } else {
            let lease = tale.claim(job, 1);
            tale.ends_well(lease);
        }
    });
}

#[test]
fn i15_a_job_that_waited_too_long() {
    flawed(&[I15], |tale, flaw| {
        tale.rules.granted_within = Some(Duration::from_millis(100));
        let job = tale.enqueue();
        tale.pass(if flaw { 110 } else { 50 });
        let lease = tale.claim(job, 1);
        tale.settle_after(lease, "retry", 200, Some(Applied));
        tale.pass(250);
        let lease = tale.claim(job, 2);
        tale.ends_well(lease);
    });
}

#[test]
fn i15_what_is_broken_may_keep_a_job_waiting() {
    let mut tale = Tale::new();
    tale.rules.granted_within = Some(Duration::from_millis(100));
    let job = tale.enqueue();
    tale.pass(500);
    tale.fault(crate::history::Fault { what: "the store is back".into(), kills: None, step: 0 });
    let lease = tale.claim(job, 1);
    tale.ends_well(lease);
    tale.passes();
}

#[test]
fn i16_a_worker_that_was_stopped_and_goes_on() {
    flawed(&[I16], |tale, flaw| {
        let first = tale.held();
        tale.ends_well(first);
        let stop = |tale: &mut Tale| tale.event("w", 0, What::Stopped { worker: worker() });
        if flaw {
            stop(tale);
        }
        let second = tale.held();
        tale.ends_well(second);
        stop(tale);
    });
}

#[test]
fn i16_a_worker_that_was_stopped_and_still_holds_a_job() {
    flawed(&[I16], |tale, flaw| {
        let lease = tale.held();
        tale.does("w", Call::CheckIn(Presence { worker: worker(), leaving: true }));
        if !flaw {
            tale.settle(lease, "release", Applied);
        }
        tale.event("w", 0, What::Stopped { worker: worker() });
        tale.pass(LEASE + 5);
        let next = if flaw {
            tale.recover(lease, "retry", Applied);
            2
        } else {
            1
        };
        let seen = Tale::seen(lease.job, State::Running, next);
        let token = other_worker(tale, seen);
        tale.ends_well(Lease { job: lease.job, token });
    });
}

fn other_worker(tale: &mut Tale, seen: Seen) -> leasehold_core::LeaseToken {
    let claim = ClaimId::generate();
    let token = claim.token(seen.job);
    let asked =
        crate::history::Asked { worker: leasehold_core::WorkerId::generate(), ..Tale::asked(claim, 1) };
    let crashes = tale.crashes.get(&seen.job).copied().unwrap_or(0);
    let job = Seen { crashes, ..seen };
    let granted = crate::history::Granted { token, lease: LEASE, started: None, job };
    tale.call("x", Call::Claim(asked), Some(Reply::Claim(vec![granted])));
    token
}

fn limited(max: u32) -> Put {
    let limit = Some(Limit::new(LimitKey::new("key").unwrap(), max));
    Put { limit, ..Tale::put(JobId::generate()) }
}

#[test]
fn i17_more_jobs_than_a_limit_allows() {
    for strict in [true, false] {
        flawed(&[I17], |tale, flaw| {
            tale.rules.strict_limits = strict;
            let jobs = [2, if flaw { 2 } else { 3 }, 2]
                .map(|max| tale.enqueue_as(limited(max), Some(Entry::Created)));
            let first = tale.claim(jobs[0], 1);
            let other = tale.claim(jobs[2], 1);
            let third = tale.claim(jobs[1], 1);
            end_all(tale, [first, other, third]);
        });
    }
}

#[test]
fn i17_a_limit_within_one_answer() {
    flawed(&[I17], |tale, flaw| {
        tale.rules.strict_limits = true;
        let jobs = [1, 1].map(|max| tale.enqueue_as(limited(max + u32::from(!flaw)), Some(Entry::Created)));
        let leases = tale.claim_all(&jobs.map(|job| Tale::seen(job, State::Running, 1)));
        end_all(tale, leases);
    });
}

#[test]
fn i17_a_lease_that_may_be_taken_back_counts_no_more() {
    let mut tale = Tale::new();
    tale.rules.strict_limits = true;
    let jobs = [1, 1].map(|max| tale.enqueue_as(limited(max), Some(Entry::Created)));
    let first = tale.claim(jobs[0], 1);
    tale.pass(LEASE);
    // A recovery of which nothing is known may have had its effect.
    let write = Write {
        job: first.job,
        token: first.token,
        verdict: "retry".into(),
        span: 0,
        queue: None,
        append: None,
    };
    tale.call("r", Call::Recover(vec![write]), None);
    let second = tale.claim(jobs[1], 1);
    end_all(&mut tale, [second]);
    let first = tale.claim(jobs[0], 2);
    tale.ends_well(first);
    tale.passes();
}

#[test]
fn a_job_ends_by_itself_only_if_it_would_rather_end_than_wait() {
    for ends in [true, false] {
        let mut tale = Tale::new();
        let Put { limit, .. } = limited(1);
        let limit = limit.map(|limit| if ends { limit.or_end() } else { limit });
        let job = tale.enqueue_as(Put { limit, ..limited(1) }, Some(Entry::Created));
        tale.last_as(Tale::seen(job, State::Cancelled, 0));
        let verdict = tale.verdict();
        assert_eq!(verdict.is_valid(), ends, "{verdict}");
    }
}

#[test]
fn a_job_that_was_sent_round_again_by_an_unknown_call_may_end_by_itself_again() {
    let mut tale = Tale::new();
    let limit = limited(1).limit.map(Limit::or_end);
    let job = tale.enqueue_as(Put { limit, ..limited(1) }, Some(Entry::Created));
    tale.look(Tale::seen(job, State::Cancelled, 0));
    let change = Change { action: ChangeKind::Requeue, jobs: Some(vec![job]), queue: None, parks: false };
    tale.call("o", Call::Amend(change), None);
    tale.amend_as(job, ChangeKind::Requeue, Fate::Refused);
    tale.last_as(Seen { generation: 1, ..Tale::seen(job, State::Cancelled, 0) });
    tale.passes();
}

#[test]
fn i17_a_paused_queue_that_gives_out_a_job() {
    flawed(&[I17], |tale, flaw| {
        let job = tale.enqueue();
        let set = |paused| Call::SetQueue(Setting { queue: QueueName::default(), paused });
        tale.does("o", set(true));
        // A resumption of which nothing is known may have had its effect.
        tale.call("o", if flaw { Call::Prune } else { set(false) }, None);
        let lease = tale.claim(job, 1);
        tale.ends_well(lease);
    });
}

/// A schedule that is moved on over its tick, and what its writer did of that.
fn tick(tale: &mut Tale, enqueues: &[Entry], writes: usize) {
    let name = RegisterName::new("nightly").unwrap();
    let at = Timestamp::from_millis(1_000);
    let (first, next) = (VersionId::generate(), Some(Timestamp::from_millis(2_000)));
    let plan = Plan { name: name.clone(), next: Some(at), version: first, expected: None, fires: None };
    tale.does("o", Call::PutRegister(plan));
    let job = JobId::of_tick(&name, at);
    for entry in enqueues {
        tale.enqueue_as(Tale::put(job), Some(*entry));
    }
    for _ in 0..writes {
        let version = VersionId::generate();
        let plan = Plan { name: name.clone(), next, version, expected: Some(first), fires: None };
        tale.does("o", Call::PutRegister(plan));
    }
    if !enqueues.is_empty() {
        let lease = tale.claim(job, 1);
        tale.ends_well(lease);
    }
}

#[test]
fn i18_a_tick_that_was_missed() {
    flawed(&[I18], |tale, flaw| tick(tale, if flaw { &[] } else { &[Entry::Created] }, 1));
}

#[test]
fn i18_a_tick_that_was_decided_and_never_enqueued() {
    flawed(&[I18], |tale, flaw| {
        let (name, at) = (RegisterName::new("nightly").unwrap(), Timestamp::from_millis);
        let job = JobId::of_tick(&name, at(1_000));
        let mut expected = None;
        // It is looked after again at 11 s unless it is done, which is no tick; the next one is a minute later.
        for (next, fires) in [(1_000, vec![]), (11_000, vec![at(1_000)]), (61_000, vec![])] {
            if next == 61_000 && !flaw {
                tale.enqueue_as(Tale::put(job), Some(Entry::Created));
            }
            let (version, fires) = (VersionId::generate(), Some(fires));
            let plan = Plan { name: name.clone(), next: Some(at(next)), version, expected, fires };
            tale.does("o", Call::PutRegister(plan));
            expected = Some(version);
        }
        if !flaw {
            let lease = tale.claim(job, 1);
            tale.ends_well(lease);
        }
    });
}

#[test]
fn i18_a_tick_that_became_two_jobs() {
    flawed(&[I1, I18], |tale, flaw| {
        tick(tale, &[Entry::Created, if flaw { Entry::Created } else { Entry::Existing }], 1);
    });
}

#[test]
fn i18_a_version_that_was_written_over_twice() {
    flawed(&[I18], |tale, flaw| tick(tale, &[Entry::Created], 1 + usize::from(flaw)));
}

#[test]
fn i18_a_tick_that_the_rules_ask_for() {
    flawed(&[I18], |tale, flaw| {
        let ticks = [1_000, 3_000].map(Timestamp::from_millis).into_iter().take(1 + usize::from(flaw));
        let rules = std::mem::take(&mut tale.rules);
        tale.rules = rules.ticks(RegisterName::new("nightly").unwrap(), ticks);
        tick(tale, &[Entry::Created], 1);
    });
}

#[test]
fn i18_a_tick_that_the_rules_do_not_know() {
    flawed(&[I18], |tale, flaw| {
        let ticks = if flaw { Vec::new() } else { vec![Timestamp::from_millis(1_000)] };
        let rules = std::mem::take(&mut tale.rules);
        tale.rules = rules.ticks(RegisterName::new("nightly").unwrap(), ticks);
        tick(tale, &[Entry::Created], 1);
    });
}
