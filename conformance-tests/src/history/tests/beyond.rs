//! The same for order, keys, cancellations and counts.

use std::time::Duration;

use leasehold_core::backend::Answer::Applied;
use leasehold_core::backend::QueueCounts;
use leasehold_core::{
    ClaimId, JobId, OnConflict, QueueName, Retention, State, Timestamp, Unique, UniqueKey, UniqueScope,
};

use super::tale::{LEASE, Lease, Tale, flawed};
use crate::history::Invariant::{I1, I2, I6, I10, I11, I12, I13};
use crate::history::event::{Call, ChangeKind, Entry, Fate, Put, Reply, Seen, Setting, What};

fn due_at(millis: i64, job: JobId) -> Seen {
    Seen { due: Timestamp::from_millis(millis), ..Tale::seen(job, State::Running, 1) }
}

pub(super) fn end_all(tale: &mut Tale, leases: impl IntoIterator<Item = Lease>) {
    leases.into_iter().for_each(|lease| tale.ends_well(lease));
}

#[test]
fn i1_a_job_that_is_there_twice() {
    flawed(&[I1], |tale, flaw| {
        let lease = tale.held();
        tale.ends_well(lease);
        if flaw {
            tale.last(lease.job, State::Succeeded);
        }
    });
}

#[test]
fn i1_a_job_that_was_pruned_too_early() {
    flawed(&[I1], |tale, flaw| {
        let keep = leasehold_core::Keep::For(Duration::from_millis(50));
        let retention = Retention { succeeded: keep, ..Retention::default() };
        let job = tale.enqueue_as(Put { retention, ..Tale::put(JobId::generate()) }, Some(Entry::Created));
        let lease = tale.claim(job, 1);
        tale.settle(lease, "succeed", Applied);
        tale.pass(if flaw { 10 } else { 50 });
        tale.call("s", Call::Prune, Some(Reply::Prune(1)));
    });
}

#[test]
fn i2_a_job_that_was_not_asked_for() {
    flawed(&[I2], |tale, flaw| {
        let queue = QueueName::new(if flaw { "other" } else { "default" }).unwrap();
        let put = Put { queue: queue.clone(), ..Tale::put(JobId::generate()) };
        let job = tale.enqueue_as(put, Some(Entry::Created));
        let seen = |state| Seen { queue: queue.clone(), ..Tale::seen(job, state, 1) };
        let token = tale.grant_as("w", ClaimId::generate(), Some(seen(State::Running))).unwrap();
        tale.settle(Lease { job, token }, "succeed", Applied);
        tale.last_as(seen(State::Succeeded));
    });
}

#[test]
fn i6_a_crash_that_nobody_counted() {
    flawed(&[I6], |tale, flaw| {
        let first = tale.held();
        tale.pass(LEASE + 5);
        tale.recover(first, "retry", Applied);
        if flaw {
            tale.crashes.clear();
        }
        let second = tale.claim(first.job, 2);
        tale.ends_well(second);
    });
}

#[test]
fn i6_an_attempt_that_was_not_given_back() {
    flawed(&[I6], |tale, flaw| {
        let first = tale.held();
        tale.settle(first, "release", Applied);
        let second = tale.claim(first.job, if flaw { 2 } else { 1 });
        tale.ends_well(second);
    });
}

#[test]
fn i10_an_answer_in_the_wrong_order() {
    flawed(&[I10], |tale, flaw| {
        let (a, b) = (tale.enqueue(), tale.enqueue());
        let mut jobs = vec![due_at(1, a), due_at(if flaw { 0 } else { 2 }, b)];
        jobs[1].priority = 0;
        let leases = tale.claim_all(&jobs);
        end_all(tale, leases);
    });
}

#[test]
fn i10_a_job_that_was_passed_over() {
    let orders: [(i64, i16); 2] = [(5, 0), (20, 1)];
    for (due, priority) in orders {
        flawed(&[I10], |tale, flaw| {
            // An earlier answer tells that the hour has come.
            let other = tale.held();
            tale.ends_well(other);
            let put = Put { priority, ..Tale::put(JobId::generate()) };
            let first = tale.enqueue_as(put, Some(Entry::Created));
            let second = tale.enqueue();
            let first = Seen { priority, ..due_at(due, first) };
            let mut order = vec![first.clone(), due_at(10, second)];
            if flaw {
                order.reverse();
            }
            for seen in order {
                let job = seen.job;
                let token = tale.grant_as("w", ClaimId::generate(), Some(seen.clone())).unwrap();
                tale.settle(Lease { job, token }, "succeed", Applied);
                tale.last_as(Seen { state: State::Succeeded, ..seen });
            }
        });
    }
}

/// Nothing is certain of a job that may not have been there yet, was not due, or that another claim may have held.
#[test]
fn i10_what_may_explain_that_a_job_was_passed_over() {
    let explanations: [fn(&mut Tale, Put); 3] = [
        // Its enqueue was not answered before the claim began.
        |tale, put| {
            tale.call("p", Call::Enqueue(vec![put.clone()]), None);
            let second = tale.enqueue();
            let lease = tale.claim_all(&[due_at(10, second)]);
            end_all(tale, lease);
            let lease = tale.claim_all(&[due_at(5, put.job)]);
            end_all(tale, lease);
        },
        // Another claim of which nothing is known was under way.
        |tale, put| {
            let job = tale.enqueue_as(put, Some(Entry::Created));
            let second = tale.enqueue();
            tale.grant_as("v", ClaimId::generate(), None);
            let lease = tale.claim_all(&[due_at(10, second)]);
            end_all(tale, lease);
            let lease = tale.claim_all(&[due_at(5, job)]);
            end_all(tale, lease);
        },
        // Its queue was paused meanwhile.
        |tale, put| {
            let job = tale.enqueue_as(put, Some(Entry::Created));
            let second = tale.enqueue();
            let set = |paused| Call::SetQueue(Setting { queue: QueueName::default(), paused });
            tale.event("o", 99, What::Invoke { call: set(true) });
            let lease = tale.claim_all(&[due_at(10, second)]);
            end_all(tale, lease);
            tale.event("o", 99, What::Ok { reply: Reply::Other });
            tale.does("o", set(false));
            let lease = tale.claim_all(&[due_at(5, job)]);
            end_all(tale, lease);
        },
    ];
    for explain in explanations {
        let mut tale = Tale::new();
        let other = tale.held();
        tale.ends_well(other);
        explain(&mut tale, Tale::put(JobId::generate()));
        tale.passes();
    }
}

/// A claim tells the hour at which it gave jobs out, and looks for them a moment earlier.
#[test]
fn i10_a_job_that_may_have_become_due_while_a_claim_was_under_way() {
    let mut tale = Tale::new();
    let (first, second) = (tale.enqueue(), tale.enqueue());
    for seen in [due_at(10, second), due_at(5, first)] {
        let lease = tale.claim_all(&[seen]);
        end_all(&mut tale, lease);
    }
    tale.passes();
}

fn keyed(scope: UniqueScope) -> Put {
    let unique = Some(Unique::new(UniqueKey::new("key").unwrap(), scope));
    Put { unique, ..Tale::put(JobId::generate()) }
}

#[test]
fn i11_two_jobs_of_one_key() {
    for scope in [UniqueScope::UntilClaimed, UniqueScope::UntilFinished] {
        flawed(&[I11], |tale, flaw| {
            let first = tale.enqueue_as(keyed(scope), Some(Entry::Created));
            let free = |tale: &mut Tale| {
                let lease = tale.claim(first, 1);
                tale.ends_well(lease);
            };
            if !flaw {
                free(tale);
            }
            let second = tale.enqueue_as(keyed(scope), Some(Entry::Created));
            if flaw {
                free(tale);
            }
            let lease = tale.claim(second, 1);
            tale.ends_well(lease);
        });
    }
}

#[test]
fn i11_a_key_is_held_for_its_period_and_at_its_very_end() {
    flawed(&[I11], |tale, flaw| {
        let scope = UniqueScope::For(Duration::from_millis(100));
        let first = tale.enqueue_as(keyed(scope), Some(Entry::Created));
        let lease = tale.claim(first, 1);
        tale.ends_well(lease);
        tale.pass(if flaw { 50 } else { 101 });
        let second = tale.enqueue_as(keyed(scope), Some(Entry::Created));
        let lease = tale.claim(second, 1);
        tale.ends_well(lease);
    });
}

#[test]
fn i11_a_settlement_that_may_come_later_frees_no_key_for_certain() {
    let mut tale = Tale::new();
    let first = tale.enqueue_as(keyed(UniqueScope::UntilFinished), Some(Entry::Created));
    let lease = tale.claim(first, 1);
    tale.settle_after(lease, "succeed", 0, None);
    let second = tale.enqueue_as(keyed(UniqueScope::UntilFinished), Some(Entry::Created));
    let other = tale.claim(second, 1);
    tale.ends_well(other);
    tale.last(first, State::Succeeded);
    tale.passes();
}

#[test]
fn i11_a_producer_that_was_refused_for_a_free_key() {
    flawed(&[I11], |tale, flaw| {
        let first = tale.enqueue_as(keyed(UniqueScope::UntilFinished), Some(Entry::Created));
        let lease = tale.claim(first, 1);
        if flaw {
            tale.ends_well(lease);
        }
        let reply = Reply::Enqueue(vec![(first, Entry::Held)]);
        tale.call("p", Call::Enqueue(vec![keyed(UniqueScope::UntilFinished)]), Some(reply));
        if !flaw {
            tale.ends_well(lease);
        }
    });
}

#[test]
fn i2_a_payload_that_no_newcomer_brought() {
    flawed(&[I2], |tale, flaw| {
        let first = keyed(UniqueScope::UntilFinished);
        let brought = first.payload + 1;
        let job = tale.enqueue_as(first.clone(), Some(Entry::Created));
        let unique = first.unique.map(|unique| unique.on_conflict(OnConflict::Replace));
        let newcomer = Put { unique, payload: brought, ..Tale::put(JobId::generate()) };
        let reply = Reply::Enqueue(vec![(job, Entry::Replaced)]);
        tale.call("p", Call::Enqueue(vec![newcomer]), Some(reply));
        let payload = brought + u64::from(flaw);
        let leases = tale.claim_all(&[Seen { payload, ..Tale::seen(job, State::Running, 1) }]);
        end_all(tale, leases);
    });
}

#[test]
fn i12_a_cancelled_job_that_was_given_out() {
    flawed(&[I12], |tale, flaw| {
        let job = tale.enqueue();
        tale.amend(job, ChangeKind::Cancel);
        if flaw {
            tale.claim(job, 1);
        }
        tale.last(job, State::Cancelled);
    });
}

#[test]
fn i12_a_holder_that_was_not_told() {
    flawed(&[I12], |tale, flaw| {
        let lease = tale.held();
        tale.renew_told(lease, Applied, false);
        tale.amend_as(lease.job, ChangeKind::Cancel, Fate::Requested);
        tale.renew_told(lease, Applied, !flaw);
        tale.settle(lease, "cancel", Applied);
        tale.last(lease.job, State::Cancelled);
    });
}

#[test]
fn i12_a_cancellation_that_nobody_asked_for() {
    flawed(&[I12], |tale, flaw| {
        let lease = tale.held();
        tale.renew_told(lease, Applied, flaw);
        tale.ends_well(lease);
    });
}

#[test]
fn i12_a_cancelled_job_that_was_tried_again() {
    flawed(&[I12], |tale, flaw| {
        let lease = tale.held();
        tale.amend_as(lease.job, ChangeKind::Cancel, Fate::Requested);
        tale.amend_as(lease.job, ChangeKind::Cancel, Fate::Requested);
        tale.settle(lease, "retry", Applied);
        if flaw {
            tale.claim(lease.job, 2);
        }
        tale.last(lease.job, State::Cancelled);
    });
}

fn counts(jobs: u64, state: State, deleted: u64) -> Vec<QueueCounts> {
    let mut counts = QueueCounts::empty(QueueName::default());
    counts.states.insert(state, jobs);
    (counts.enqueued, counts.deleted) = (jobs + deleted, deleted);
    vec![counts]
}

#[test]
fn i13_counts_of_jobs_that_nobody_enqueued() {
    flawed(&[I13], |tale, flaw| {
        tale.rules.exact_counts = true;
        let lease = tale.held();
        let told = counts(1 + u64::from(flaw), State::Running, 0);
        tale.call("o", Call::Count, Some(Reply::Count(told)));
        tale.ends_well(lease);
    });
}

#[test]
fn i13_a_call_under_way_may_be_counted_or_not() {
    for counted in [0, 1] {
        let mut tale = Tale::new();
        tale.rules.exact_counts = true;
        let put = Tale::put(JobId::generate());
        let job = put.job;
        tale.event("p", 99, What::Invoke { call: Call::Enqueue(vec![put]) });
        tale.call("o", Call::Count, Some(Reply::Count(counts(counted, State::Queued, 0))));
        let reply = Reply::Enqueue(vec![(job, Entry::Created)]);
        tale.event("p", 99, What::Ok { reply });
        let lease = tale.claim(job, 1);
        tale.ends_well(lease);
        tale.passes();
    }
}

#[test]
fn i13_counts_that_do_not_add_up() {
    flawed(&[I13], |tale, flaw| {
        tale.rules.exact_counts = true;
        let lease = tale.held();
        tale.settle(lease, "succeed", Applied);
        tale.amend(lease.job, ChangeKind::Delete);
        let mut told = counts(0, State::Queued, 1);
        told[0].deleted -= u64::from(flaw);
        tale.call("o", Call::Count, Some(Reply::Count(told)));
    });
}

#[test]
fn i13_last_counts_that_are_not_those_of_the_jobs() {
    flawed(&[I13], |tale, flaw| {
        tale.rules.exact_counts = true;
        let lease = tale.held();
        tale.settle(lease, "succeed", Applied);
        let state = if flaw { State::Failed } else { State::Succeeded };
        tale.event("o", 0, What::LastCounts { counts: counts(1, state, 0) });
        tale.last(lease.job, State::Succeeded);
    });
}

#[test]
fn i13_counts_that_are_not_exact_are_not_judged_and_it_is_said() {
    let mut tale = Tale::new();
    let lease = tale.held();
    tale.call("o", Call::Count, Some(Reply::Count(counts(7, State::Queued, 0))));
    tale.ends_well(lease);
    let verdict = tale.verdict();
    assert!(verdict.is_valid(), "{verdict}");
    assert_eq!(verdict.unjudged.len(), 1, "{verdict}");
}
