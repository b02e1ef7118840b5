//! Tales that a loose checker lets pass, and right ones that a hasty checker takes for broken.

use std::time::Duration;

use leasehold_core::backend::Answer::{self, AlreadyApplied, Applied, Lost};
use leasehold_core::{ClaimId, JobId, Keep, Limit, LimitKey, Retention, State, Timestamp};

use super::tale::{LEASE, Lease, Tale};
use crate::history::Invariant;
use crate::history::event::{
    Append, Call, ChangeKind, DueAs, Entry, Fault, Line, Put, Reading, Reply, Seen, What, Write,
};

fn short_kept() -> Put {
    let keep = Keep::For(Duration::from_millis(50));
    let retention = Retention { succeeded: keep, failed: keep, cancelled: keep };
    Put { retention, ..Tale::put(JobId::generate()) }
}

/// Must break I17 (contract C9: `n` is what the job in question says): a mutex job given beside a running one.
#[test]
fn a_modest_job_given_beside_a_generous_one() {
    let mut tale = Tale::new();
    let put = |max| Put {
        limit: Some(Limit::new(LimitKey::new("k").unwrap(), max)),
        ..Tale::put(JobId::generate())
    };
    let a = tale.enqueue_as(put(3), Some(Entry::Created));
    let b = tale.enqueue_as(put(1), Some(Entry::Created));
    let a = tale.claim(a, 1);
    let b = tale.claim(b, 1);
    tale.ends_well(a);
    tale.ends_well(b);
    tale.rules.strict_limits = true;
    tale.breaks(&[Invariant::I17]);
}

/// The due time is another one than was enqueued.
#[test]
fn a_job_whose_due_time_was_altered() {
    let mut tale = Tale::new();
    let put = Put { due: DueAs::At(Timestamp::from_millis(5)), ..Tale::put(JobId::generate()) };
    let job = tale.enqueue_as(put, Some(Entry::Created));
    let seen = |state| Seen { due: Timestamp::from_millis(900), ..Tale::seen(job, state, 1) };
    let token = tale.grant_as("w", ClaimId::generate(), Some(seen(State::Running))).unwrap();
    tale.settle(Lease { job, token }, "succeed", Applied);
    tale.last_as(seen(State::Succeeded));
    tale.breaks(&[Invariant::I2]);
}

/// Deleted, enqueued again, acknowledged again, and lost.
#[test]
fn a_job_lost_after_it_was_deleted_and_enqueued_again() {
    let mut tale = Tale::new();
    let put = Tale::put(JobId::generate());
    let job = tale.enqueue_as(put.clone(), Some(Entry::Created));
    tale.amend(job, ChangeKind::Delete);
    tale.enqueue_as(put, Some(Entry::Created));
    tale.breaks(&[Invariant::I1]);
}

/// A requeued job that waits is pruned (T42).
#[test]
fn a_requeued_job_is_pruned() {
    let mut tale = Tale::new();
    let job = tale.enqueue_as(short_kept(), Some(Entry::Created));
    let lease = tale.claim(job, 1);
    tale.settle(lease, "succeed", Applied);
    tale.amend(job, ChangeKind::Requeue);
    tale.pass(200);
    tale.call("s", Call::Prune, Some(Reply::Prune(1)));
    tale.breaks(&[Invariant::I1]);
}

/// A job that waits for its retry is pruned.
#[test]
fn a_job_that_waits_for_its_retry_is_pruned() {
    let mut tale = Tale::new();
    let job = tale.enqueue_as(short_kept(), Some(Entry::Created));
    let lease = tale.claim(job, 1);
    tale.settle_after(lease, "retry", 1_000, Some(Applied));
    tale.pass(200);
    tale.call("s", Call::Prune, Some(Reply::Prune(1)));
    tale.breaks(&[Invariant::I1]);
}

/// The pruning says that it removed one, and three are gone.
#[test]
fn a_pruning_removes_more_than_it_says() {
    let mut tale = Tale::new();
    for _ in 0..3 {
        let job = tale.enqueue_as(short_kept(), Some(Entry::Created));
        let lease = tale.claim(job, 1);
        tale.settle(lease, "succeed", Applied);
    }
    tale.pass(200);
    tale.call("s", Call::Prune, Some(Reply::Prune(1)));
    tale.breaks(&[Invariant::I1]);
}

/// The answer to the retry was lost, its repetition was told that it is there.
#[test]
fn a_retry_whose_answer_was_lost_is_given_early() {
    let mut tale = Tale::new();
    let lease = tale.held();
    tale.settle_after(lease, "retry", 50, None);
    tale.settle_after(lease, "retry", 50, Some(AlreadyApplied));
    let next = tale.claim(lease.job, 2);
    tale.ends_well(next);
    tale.breaks(&[Invariant::I8]);
}

/// Any requeue or postponement long ago makes it blind.
#[test]
fn blind_after_any_earlier_requeue() {
    let mut tale = Tale::new();
    let first = tale.held();
    tale.settle(first, "succeed", Applied);
    tale.amend(first.job, ChangeKind::Requeue);
    let again = |attempt, state| Seen { generation: 1, ..Tale::seen(first.job, state, attempt) };
    let token = tale.grant_as("w", ClaimId::generate(), Some(again(1, State::Running))).unwrap();
    tale.settle_after(Lease { job: first.job, token }, "retry", 5_000, Some(Applied));
    let token = tale.grant_as("w", ClaimId::generate(), Some(again(2, State::Running))).unwrap();
    tale.settle(Lease { job: first.job, token }, "succeed", Applied);
    tale.last_as(again(2, State::Succeeded));
    tale.breaks(&[Invariant::I8]);
}

/// Starts = 1 + retries, exactly": nobody ran it.
#[test]
fn a_job_that_was_never_run() {
    let mut tale = Tale::new();
    let ran = tale.held();
    tale.start("w", ran);
    tale.ends_well(ran);
    let not = tale.held();
    tale.ends_well(not);
    tale.rules.runs_told = true;
    tale.breaks(&[Invariant::I7]);
}

/// The lease ran out, nobody recovered.
#[test]
fn a_slot_freed_by_the_clock_alone() {
    let mut tale = Tale::new();
    let put =
        || Put { limit: Some(Limit::new(LimitKey::new("k").unwrap(), 1)), ..Tale::put(JobId::generate()) };
    let a = tale.enqueue_as(put(), Some(Entry::Created));
    let b = tale.enqueue_as(put(), Some(Entry::Created));
    let a = tale.claim(a, 1);
    tale.pass(LEASE + 20);
    let b = tale.claim(b, 1);
    tale.renew(a, Applied);
    tale.ends_well(a);
    tale.ends_well(b);
    tale.rules.strict_limits = true;
    tale.breaks(&[Invariant::I17]);
}

/// Pruned after its end, enqueued again under its id, run again.
#[test]
fn a_job_that_was_pruned_and_enqueued_again() {
    let mut tale = Tale::new();
    let put = short_kept();
    let job = tale.enqueue_as(put.clone(), Some(Entry::Created));
    let lease = tale.claim(job, 1);
    tale.settle(lease, "succeed", Applied);
    tale.pass(200);
    tale.call("s", Call::Prune, Some(Reply::Prune(1)));
    tale.enqueue_as(put, Some(Entry::Created));
    let lease = tale.claim(job, 1);
    tale.ends_well(lease);
    tale.passes();
}

/// The same of a job that crashed in its first life.
#[test]
fn crashes_of_a_former_life() {
    let mut tale = Tale::new();
    let put = short_kept();
    let job = tale.enqueue_as(put.clone(), Some(Entry::Created));
    let lease = tale.claim(job, 1);
    tale.pass(LEASE + 5);
    tale.recover(lease, "fail", Applied);
    tale.pass(200);
    tale.call("s", Call::Prune, Some(Reply::Prune(1)));
    tale.crashes.clear();
    tale.enqueue_as(put, Some(Entry::Created));
    let lease = tale.claim(job, 1);
    tale.ends_well(lease);
    tale.passes();
}

/// The first enqueue of an id was refused for certain, the second one says otherwise how often to try.
#[test]
fn a_refused_enqueue_counts_for_what_was_taken_in() {
    let mut tale = Tale::new();
    let put = Put { max_attempts: 5, ..Tale::put(JobId::generate()) };
    let job = tale.enqueue_as(put.clone(), Some(Entry::Refused));
    tale.enqueue_as(Put { max_attempts: 1, ..put }, Some(Entry::Created));
    let lease = tale.claim(job, 1);
    tale.settle(lease, "retry", Applied);
    tale.last(job, State::Failed);
    tale.passes();
}

/// The clock is stepped only after all is over.
#[test]
fn a_step_at_the_end_excuses_what_was_before() {
    let mut tale = Tale::new();
    let first = tale.held();
    tale.recover(first, "retry", Applied);
    let second = tale.claim(first.job, 2);
    tale.ends_well(second);
    tale.pass(100_000);
    tale.fault(Fault { what: "step".into(), kills: None, step: 90_000 });
    tale.breaks(&[Invariant::I3]);
}

/// What a job's log is told to hold, after `write` has written a line "7" under its lease.
fn logged(read: &[(u64, u64)], gap: bool, write: impl Fn(&mut Tale, Lease)) -> Tale {
    let mut tale = Tale::new();
    let lease = tale.held();
    write(&mut tale, lease);
    let reading = Reading { job: lease.job, after: 0, limit: 100 };
    let lines = read.iter().map(|(sequence, says)| Line { sequence: *sequence, says: *says }).collect();
    tale.call("w", Call::ReadLog(reading), Some(Reply::ReadLog { lines, gap }));
    tale.ends_well(lease);
    tale
}

fn append(tale: &mut Tale, lease: Lease, position: u64, says: u64, answer: Option<Answer>) {
    let append = Some(Append { position, lines: vec![says] });
    let write =
        Write { job: lease.job, token: lease.token, verdict: String::new(), span: 0, queue: None, append };
    tale.call("w", Call::Log(vec![write]), answer.map(|answer| Reply::Log(vec![answer])));
}

#[test]
fn i19_a_log_tells_each_line_once_and_in_its_order() {
    let two = |tale: &mut Tale, lease| {
        append(tale, lease, 0, 7, Some(Applied));
        append(tale, lease, 0, 7, Some(AlreadyApplied));
        append(tale, lease, 1, 8, Some(Applied));
        append(tale, lease, 2, 9, None);
    };
    logged(&[(3, 7), (5, 8)], false, two).passes();
    logged(&[(3, 7), (5, 8), (6, 9)], false, two).passes();
    logged(&[(5, 8)], true, two).passes();
    let broken: [&[(u64, u64)]; 5] = [
        &[(5, 8)],
        &[(5, 7), (3, 8)],
        &[(3, 7), (3, 8)],
        &[(3, 7), (4, 7), (5, 8)],
        &[(3, 7), (4, 6), (5, 8)],
    ];
    for read in broken {
        logged(read, false, two).breaks(&[Invariant::I19]);
    }
}

#[test]
fn i19_a_line_says_the_same_whenever_it_is_read() {
    for (second, is_right) in [(7, true), (8, false)] {
        let tale = logged(&[(1, 7), (2, 8)], false, |tale, lease| {
            append(tale, lease, 0, 7, None);
            append(tale, lease, 1, 8, None);
            let reading = Reading { job: lease.job, after: 0, limit: 1 };
            let lines = vec![Line { sequence: 1, says: second }];
            tale.call("w", Call::ReadLog(reading), Some(Reply::ReadLog { lines, gap: false }));
        });
        if is_right { tale.passes() } else { tale.breaks(&[Invariant::I19]) }
    }
}

#[test]
fn i19_what_was_refused_is_in_no_log() {
    logged(&[(1, 7)], false, |tale, lease| append(tale, lease, 0, 7, Some(Lost)))
        .breaks(&[Invariant::I4, Invariant::I19]);
}

/// Where a driver may send a call twice, the first may write the line, and the second be told that the lease is lost.
#[test]
fn i19_a_line_that_was_sent_twice_unseen() {
    for repeats in [true, false] {
        let mut tale = Tale::new();
        tale.rules.repeats_inside = repeats;
        let first = tale.held();
        let append = Some(Append { position: 0, lines: vec![7] });
        let write = Write {
            job: first.job,
            token: first.token,
            verdict: String::new(),
            span: 0,
            queue: None,
            append,
        };
        tale.event("w", 99, What::Invoke { call: Call::Log(vec![write]) });
        tale.settle(first, "retry", Applied);
        tale.event("w", 99, What::Ok { reply: Reply::Log(vec![Lost]) });
        let reading = Reading { job: first.job, after: 0, limit: 100 };
        let lines = vec![Line { sequence: 1, says: 7 }];
        tale.call("w", Call::ReadLog(reading), Some(Reply::ReadLog { lines, gap: false }));
        let second = tale.claim(first.job, 2);
        tale.ends_well(second);
        let verdict = tale.verdict();
        assert_eq!(verdict.is_valid(), repeats, "{verdict}");
    }
}
