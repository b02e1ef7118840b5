//! For each invariant, tales that break it beside twins that do not.

use leasehold_core::backend::Answer::{AlreadyApplied, Applied, Lost};
use leasehold_core::{ClaimId, JobId, State, Timestamp};

use super::tale::{LEASE, Lease, MAX_ATTEMPTS, Tale, flawed};
use crate::history::Invariant::{I1, I2, I3, I4, I5, I6, I7, I8, I9};
use crate::history::event::{Call, ChangeKind, DueAs, Entry, Fate, Put, Reply, Seen, What, Write};

#[test]
fn i1_an_acknowledged_job_that_is_gone() {
    flawed(&[I1], |tale, flaw| {
        let job = tale.enqueue();
        if !flaw {
            tale.amend(job, ChangeKind::Delete);
        }
    });
}

#[test]
fn i1_a_job_whose_enqueue_failed_and_is_there() {
    flawed(&[I1], |tale, flaw| {
        let job = JobId::generate();
        let call = Call::Enqueue(vec![Tale::put(job)]);
        tale.event("p", 9, What::Invoke { call });
        let why = String::new();
        tale.event("p", 9, if flaw { What::Fail { why } } else { What::Info { why } });
        let lease = tale.claim(job, 1);
        tale.ends_well(lease);
    });
}

#[test]
fn i1_two_who_created_one_job() {
    flawed(&[I1], |tale, flaw| {
        let lease = tale.held();
        tale.enqueue_as(Tale::put(lease.job), Some(if flaw { Entry::Created } else { Entry::Existing }));
        tale.ends_well(lease);
    });
}

#[test]
fn i2_a_job_that_nobody_enqueued() {
    flawed(&[I2], |tale, flaw| {
        let job = if flaw { JobId::generate() } else { tale.enqueue() };
        let lease = tale.claim(job, 1);
        tale.ends_well(lease);
    });
}

#[test]
fn i2_a_job_that_was_altered() {
    let alterations: [fn(&mut Seen); 3] =
        [|seen| seen.payload += 1, |seen| seen.priority = 5, |seen| seen.queue = "x".try_into().unwrap()];
    for alter in alterations {
        flawed(&[I2], |tale, flaw| {
            let lease = tale.held();
            tale.settle(lease, "succeed", Applied);
            let mut last = Tale::seen(lease.job, State::Succeeded, 1);
            if flaw {
                alter(&mut last);
            }
            tale.last_as(last);
        });
    }
}

#[test]
fn i2_a_change_by_an_operator_is_no_invention() {
    let mut tale = Tale::new();
    let lease = tale.held();
    tale.settle(lease, "succeed", Applied);
    tale.amend(lease.job, ChangeKind::Move);
    let last = Seen { queue: "x".try_into().unwrap(), ..Tale::seen(lease.job, State::Succeeded, 1) };
    tale.last_as(last);
    tale.passes();
}

#[test]
fn i2_a_job_that_changed_its_queue_though_nobody_sent_it_there() {
    flawed(&[I2], |tale, flaw| {
        let Lease { job, token } = tale.held();
        let queue = (!flaw).then(|| "x".try_into().unwrap());
        let write = Write { job, token, verdict: "retry".into(), span: 0, queue, append: None };
        tale.call("w", Call::Settle(vec![write]), Some(Reply::Settle(vec![Applied])));
        let lease = tale.claim(job, 2);
        tale.settle(lease, "succeed", Applied);
        let last = Seen { queue: "x".try_into().unwrap(), ..Tale::seen(job, State::Succeeded, 2) };
        tale.last_as(last);
    });
}

#[test]
fn i3_a_job_given_out_while_it_is_held() {
    flawed(&[I3], |tale, flaw| {
        let first = tale.held();
        if !flaw {
            tale.pass(LEASE + 5);
            tale.recover(first, "retry", Applied);
        }
        let second = tale.claim(first.job, 2);
        tale.ends_well(second);
    });
}

#[test]
fn i3_a_renewal_makes_the_lease_last() {
    flawed(&[I3], |tale, flaw| {
        let first = tale.held();
        tale.pass(LEASE - 10);
        if flaw {
            tale.renew(first, Applied);
        }
        tale.pass(20);
        tale.recover(first, "retry", Applied);
        let second = tale.claim(first.job, 2);
        tale.ends_well(second);
    });
}

#[test]
fn i3_a_slow_claim_may_have_been_given_early() {
    let mut tale = Tale::new();
    let job = tale.enqueue();
    // The lease began at some moment of the call, so it may be over soon after the answer.
    let first = tale.slowly(LEASE).claim(job, 1);
    tale.pass(5);
    tale.recover(first, "retry", Applied);
    let second = tale.claim(job, 2);
    tale.ends_well(second);
    tale.passes();
}

#[test]
fn i3_an_attempt_given_out_twice() {
    flawed(&[I3, I6], |tale, flaw| {
        let first = tale.held();
        tale.settle(first, if flaw { "retry" } else { "release" }, Applied);
        let second = tale.claim(first.job, 1);
        tale.ends_well(second);
    });
}

#[test]
fn i3_a_repeated_claim_is_one_grant() {
    flawed(&[I3], |tale, flaw| {
        let job = tale.enqueue();
        let claim = ClaimId::generate();
        tale.grant_as("w", claim, None);
        tale.grant_as("w", claim, Some(Tale::seen(job, State::Running, 1)));
        let again = Tale::seen(job, State::Running, if flaw { 2 } else { 1 });
        let token = tale.grant_as("w", claim, Some(again)).unwrap();
        tale.ends_well(Lease { job, token });
    });
}

#[test]
fn i4_a_stale_write_that_was_accepted() {
    let stale: [fn(&mut Tale, Lease, bool); 3] = [
        |tale, lease, flaw| tale.settle(lease, "release", if flaw { Applied } else { Lost }),
        |tale, lease, flaw| tale.renew(lease, if flaw { Applied } else { Lost }),
        |tale, lease, flaw| tale.log(lease, if flaw { Applied } else { Lost }),
    ];
    for write in stale {
        flawed(&[I4], |tale, flaw| {
            let first = tale.held();
            tale.pass(LEASE + 5);
            tale.recover(first, "retry", Applied);
            let second = tale.claim(first.job, 2);
            write(tale, first, flaw);
            tale.ends_well(second);
        });
    }
}

#[test]
fn i4_a_write_under_a_token_that_nobody_was_given() {
    flawed(&[I4], |tale, flaw| {
        let lease = tale.held();
        let made_up = Lease { token: ClaimId::generate().token(lease.job), ..lease };
        tale.renew(made_up, if flaw { Applied } else { Lost });
        tale.ends_well(lease);
    });
}

#[test]
fn i4_a_lost_claim_may_have_been_given_the_job() {
    let mut tale = Tale::new();
    let (job, claim) = (tale.enqueue(), ClaimId::generate());
    tale.grant_as("w", claim, None);
    tale.ends_well(Lease { job, token: claim.token(job) });
    tale.passes();
}

#[test]
fn i4_a_holder_that_was_refused() {
    flawed(&[I4], |tale, flaw| {
        let first = tale.held();
        tale.pass(LEASE + 5);
        if !flaw {
            tale.recover(first, "retry", Applied);
        }
        tale.settle(first, "succeed", Lost);
        let second = tale.claim(first.job, 2);
        tale.ends_well(second);
    });
}

#[test]
fn i4_a_settlement_that_was_forgotten() {
    flawed(&[I4], |tale, flaw| {
        let lease = tale.held();
        tale.ends_well(lease);
        tale.settle(lease, "succeed", if flaw { Lost } else { AlreadyApplied });
    });
}

#[test]
fn i4_a_repetition_of_what_nobody_did() {
    flawed(&[I4], |tale, flaw| {
        let lease = tale.held();
        let first = if flaw { Lost } else { Applied };
        tale.settle(lease, "succeed", first);
        tale.settle(lease, "succeed", AlreadyApplied);
        tale.last(lease.job, State::Succeeded);
    });
}

#[test]
fn i5_a_job_given_out_after_its_end() {
    flawed(&[I3, I5, I6], |tale, flaw| {
        let first = tale.held();
        tale.settle(first, "succeed", Applied);
        let mut again = Tale::seen(first.job, State::Running, 1);
        if !flaw {
            tale.amend(first.job, ChangeKind::Requeue);
            again.generation = 1;
        }
        let token = tale.grant_as("w", ClaimId::generate(), Some(again.clone())).unwrap();
        tale.settle(Lease { job: first.job, token }, "succeed", Applied);
        tale.last_as(Seen { state: State::Succeeded, ..again });
    });
}

#[test]
fn i5_a_job_seen_alive_after_its_end() {
    flawed(&[I5], |tale, flaw| {
        let lease = tale.held();
        tale.settle(lease, "fail", Applied);
        tale.look(Tale::seen(lease.job, if flaw { State::Queued } else { State::Failed }, 1));
        tale.last(lease.job, State::Failed);
    });
}

#[test]
fn i5_an_end_that_is_another_one_at_last() {
    flawed(&[I5], |tale, flaw| {
        let lease = tale.held();
        tale.settle(lease, "succeed", Applied);
        tale.last(lease.job, if flaw { State::Failed } else { State::Succeeded });
    });
}

#[test]
fn i5_a_job_that_ended_twice() {
    flawed(&[I4, I5], |tale, flaw| {
        let lease = tale.held();
        tale.pass(LEASE + 5);
        tale.settle(lease, "fail", Applied);
        tale.recover(lease, "fail", if flaw { Applied } else { Lost });
        tale.last(lease.job, State::Failed);
    });
}

#[test]
fn i6_an_attempt_that_went_back() {
    flawed(&[I3, I6], |tale, flaw| {
        let first = tale.held();
        tale.settle(first, "retry", Applied);
        let second = tale.claim(first.job, 2);
        tale.settle(second, "retry", Applied);
        let third = tale.claim(first.job, if flaw { 1 } else { 3 });
        tale.ends_well(third);
    });
}

#[test]
fn i6_an_attempt_too_many() {
    flawed(&[I6], |tale, flaw| {
        let mut lease = tale.held();
        for attempt in 2..=MAX_ATTEMPTS + u32::from(flaw) {
            tale.settle(lease, "retry", Applied);
            lease = tale.claim(lease.job, attempt);
        }
        tale.ends_well(lease);
    });
}

#[test]
fn i6_an_attempt_that_was_skipped() {
    flawed(&[I6], |tale, flaw| {
        let job = tale.enqueue();
        if !flaw {
            // Somebody was given the first attempt and never learnt of it.
            let claim = ClaimId::generate();
            tale.grant_as("w", claim, None);
            tale.pass(LEASE + 5);
            tale.recover(Lease { job, token: claim.token(job) }, "retry", Applied);
        }
        let lease = tale.claim(job, 2);
        tale.ends_well(lease);
    });
}

#[test]
fn i7_a_run_without_a_lease_of_its_own() {
    flawed(&[I7], |tale, flaw| {
        let lease = tale.held();
        tale.start(if flaw { "another" } else { "w" }, lease);
        tale.ends_well(lease);
    });
}

#[test]
fn i7_a_run_too_many() {
    flawed(&[I7], |tale, flaw| {
        let lease = tale.held();
        tale.start("w", lease);
        if flaw {
            tale.start("w", lease);
        }
        tale.ends_well(lease);
    });
}

#[test]
fn i7_a_rerun_that_nothing_explains() {
    flawed(&[I7], |tale, flaw| {
        let first = tale.held();
        tale.start("w", first);
        tale.pass(LEASE + 5);
        if !flaw {
            tale.recover(first, "retry", Applied);
        }
        let second = tale.claim(first.job, 2);
        tale.start("w", second);
        tale.ends_well(second);
    });
}

#[test]
fn i8_a_retry_that_came_too_soon() {
    flawed(&[I8], |tale, flaw| {
        let first = tale.held();
        tale.settle_after(first, "retry", 50, Some(Applied));
        tale.pass(if flaw { 10 } else { 50 });
        let second = tale.claim(first.job, 2);
        tale.ends_well(second);
    });
}

#[test]
fn i8_a_retry_that_an_operator_hurried() {
    let mut tale = Tale::new();
    let first = tale.held();
    tale.settle_after(first, "retry", 50, Some(Applied));
    tale.amend(first.job, ChangeKind::Postpone);
    let second = tale.claim(first.job, 2);
    tale.ends_well(second);
    tale.passes();
}

#[test]
fn i8_a_retry_that_was_unparked() {
    flawed(&[I8], |tale, flaw| {
        let first = tale.held();
        tale.settle_after(first, "retry", 50, Some(Applied));
        tale.amend_as(first.job, ChangeKind::Unpark, if flaw { Fate::Applied } else { Fate::AlreadyApplied });
        tale.pass(if flaw { 10 } else { 50 });
        let second = tale.claim(first.job, 2);
        tale.ends_well(second);
    });
}

#[test]
fn i8_a_retry_that_never_came() {
    flawed(&[I8], |tale, flaw| {
        let first = tale.held();
        tale.settle_after(first, "retry", 10, Some(Applied));
        tale.pass(10);
        if flaw {
            tale.last(first.job, State::Scheduled);
        } else {
            let second = tale.claim(first.job, 2);
            tale.ends_well(second);
        }
    });
}

#[test]
fn i9_a_job_given_out_before_its_time() {
    flawed(&[I9], |tale, flaw| {
        let put = Put { due: DueAs::In(50), ..Tale::put(JobId::generate()) };
        let job = tale.enqueue_as(put, Some(Entry::Created));
        tale.pass(if flaw { 10 } else { 50 });
        let lease = tale.claim(job, 1);
        tale.ends_well(lease);
    });
}

#[test]
fn i9_a_job_given_out_before_its_time_by_the_stores_own_account() {
    flawed(&[I9], |tale, flaw| {
        let job = tale.enqueue();
        let due = Timestamp::from_millis(if flaw { i64::MAX } else { 0 });
        let given = Seen { due, ..Tale::seen(job, State::Running, 1) };
        let token = tale.grant_as("w", ClaimId::generate(), Some(given)).unwrap();
        tale.ends_well(Lease { job, token });
    });
}

#[test]
fn every_tale_can_be_written_down() {
    let mut tale = Tale::new();
    let lease = tale.held();
    tale.settle_after(lease, "retry", 5, None);
    tale.amend(lease.job, ChangeKind::Cancel);
    tale.look(Tale::seen(lease.job, State::Cancelled, 1));
    tale.start("w", lease);
    tale.call("p", Call::Prune, Some(Reply::Prune(3)));
    tale.call("p", Call::Other("counts".into()), Some(Reply::Other));
    tale.last(lease.job, State::Cancelled);
    super::assert_reads_back(&tale.events);
}
