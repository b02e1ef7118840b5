//! P8: jobs that come from another store.

use std::collections::BTreeSet;

use leasehold_core::backend::{
    Action, Admit, Admitted, AmendAnswer, Answer, Arrival, Filter, LogLine, LogSource, Order, Prune, Renewal,
    Renewed, TagRule, Verdict,
};
use leasehold_core::{Due, JobId, JobRecord, Keep, NewJob, Progress, Reason, State, Timestamp, UniqueScope};

use crate::bench::{
    Bench, FAIL, LEASE, RETRY, SUCCEED, failure, in_time, job, jobs, kind, limit_key, lines, retry_in, secs,
    tag, tags, text, token_of, unique_key,
};
use crate::breach::{Breach, Done, Kept, Trouble, must, must_eq};
use crate::case::cases;

cases! {
    /// A job of another store is taken in as it was there, with its log, whatever it had been through and however it ended.
    [P8, P6, S2, S4, S6, L2] takes_a_job_in_as_it_was;
    /// One that is there is left as it is, whoever brings it again; and it counts once.
    [P8, P2, S2] leaves_what_is_there_as_it_is;
    /// What holds its unique key gets in with it or not at all; what does not hold it gets in beside the holder.
    [P8, P4] takes_a_job_in_with_its_key_or_not_at_all;
    /// What was taken in so is given out in its place: by priority, then by due time, as far as it is due, its limit has room
    /// and its tags match; and it spends the attempts that it had left.
    [P8, C4, C6, C7, C9] gives_out_what_was_taken_in;
    /// An ended one is kept as long as its end and its retention say, and no longer.
    [P8, F5] keeps_what_was_taken_in_as_long_as_asked;
    /// Of a log that is longer than the cap the latest lines come along, and a reader is told of the others.
    [P8, L1, L3] caps_a_log_that_comes_along;
    /// Ten thousand are taken in by one call.
    [P8, P3] takes_in_ten_thousand;
    /// Whatever the holder of a lease writes of a job that has gone and come back is lost.
    [P8, C2] loses_what_is_written_under_an_earlier_lease;
}

async fn admit_all(t: &Bench, jobs: Vec<Arrival>) -> Done<Vec<Admitted>> {
    let asked = jobs.len();
    let answers = t.backend().admit(in_time(asked), Admit { jobs }).await?;
    if answers.len() != asked {
        let answered = answers.len();
        return Err(Trouble::Unmet(format!("{asked} jobs were to be admitted and {answered} answers came")));
    }
    Ok(answers)
}

async fn admit(t: &Bench, job: JobRecord) -> Done<Admitted> {
    Ok(admit_all(t, vec![Arrival { job, logs: Vec::new() }]).await?.remove(0))
}

async fn created(t: &Bench, job: JobRecord) -> Kept {
    let (id, told) = (job.id, admit(t, job).await?);
    must!(matches!(told, Admitted::Created), "the job {id} was answered {told:?}");
    Ok(())
}

async fn log_of(t: &Bench, job: JobId) -> Done<Vec<LogLine>> {
    Ok(t.read_log(LogSource::Job(job), 0, 1_000).await?.lines)
}

/// A job as it goes to another store: one that was withdrawn waits again.
pub(super) fn carried(mut job: JobRecord, now: Timestamp) -> JobRecord {
    if job.is_withdrawn() {
        (job.state, job.reason, job.finished_at) = (State::waiting(job.due, now), None, None);
    }
    job
}

/// Jobs in every state but running, that have been through all that there is.
async fn all_kinds(t: &Bench) -> Result<Vec<JobId>, Breach> {
    let full = || {
        job()
            .priority(7)
            .tag(tag("a"))
            .tag(tag("b"))
            .header("h", "v")
            .limit(limit_key("l"), 9)
            .unique(unique_key("u"), UniqueScope::UntilFinished)
            .max_attempts(20)
    };
    let mut ids = t
        .add_all([NewJob::new(kind("work"), text("\0\u{7f}é")), job().delay(secs(60)), job().parked()])
        .await?;
    // Tried and failed, more often than is remembered, with lines of each attempt.
    let tried = t.add(full()).await?;
    for n in 0..12 {
        let lease = t.take().await?;
        must_eq!(lease.job.id, tried);
        t.log(&lease, 0, lines([format!("{n}: first\0"), format!("{n}: second")])).await?;
        let told = Progress { done: n, total: Some(12), message: "half".into(), cursor: Some("c".into()) };
        let (job, token) = token_of(&lease);
        must_eq!(
            t.renew_all(vec![Renewal { job, token, lease: LEASE, progress: Some(told) }]).await?.len(),
            1
        );
        t.settle_failing(&lease, retry_in(secs(0)), failure("Odd", &format!("failed {n}\0"))).await?;
    }
    must_eq!(t.amend(tried, Action::Postpone { due: Due::In(secs(600)) }).await?, AmendAnswer::Applied);
    ids.push(tried);
    let ends = [
        Verdict::Succeed { result: Some(text("the result\0")) },
        FAIL,
        Verdict::Cancel { reason: Reason::Aborted },
    ];
    for end in ends {
        let lease = t.hold_this(job().priority(9)).await?;
        t.log(&lease, 0, lines(["once"])).await?;
        t.finish(&lease, end).await?;
        ids.push(lease.job.id);
    }
    // Sent round again, and ended once more.
    must_eq!(t.amend(ids[5], Action::Requeue { due: Due::Now }).await?, AmendAnswer::Applied);
    let lease = t.take().await?;
    must_eq!(lease.job.id, ids[5]);
    t.finish(&lease, SUCCEED).await?;
    Ok(ids)
}

async fn takes_a_job_in_as_it_was(t: Bench) -> Kept {
    let other = t.in_another_place().await?;
    let ids = all_kinds(&t).await?;
    t.advance(secs(1));
    other.clock().advance(t.hour().since(other.hour()));
    for id in &ids {
        let before = t.find(*id).await?;
        let logs = log_of(&t, *id).await?;
        if before.state.is_waiting() {
            must_eq!(t.amend(*id, Action::Withdraw).await?, AmendAnswer::Applied, "{before:?}");
        }
        let mut job = carried(t.find(*id).await?, t.hour());
        must_eq!((job.due, job.attempt, job.state), (before.due, before.attempt, before.state));
        job.reason = before.reason;
        must_eq!(job, before);
        let told = admit_all(&other, vec![Arrival { job, logs: logs.clone() }]).await?;
        must!(matches!(told[0], Admitted::Created), "{before:?} was answered {told:?}");
        must_eq!(other.find(*id).await?, before);
        let told: Vec<_> = log_of(&other, *id).await?;
        let say = |lines: &[LogLine]| {
            let one = |l: &LogLine| (l.job, l.attempt, l.worker, l.at, l.level, l.message.clone());
            lines.iter().map(one).collect::<Vec<_>>()
        };
        must_eq!(say(&told), say(&logs));
        let sequences: BTreeSet<u64> = told.iter().map(|line| line.sequence).collect();
        must_eq!(sequences.len(), logs.len(), "lines of {id} share a sequence");
    }
    let listed = other.list(&Filter::default(), Order::OldestFirst, 3).await?;
    must_eq!(listed.len(), ids.len());
    let (was, is) = (t.counts().await?, other.counts().await?);
    must_eq!(is.enqueued, ids.len() as u64);
    must_eq!(
        (is.of(State::Succeeded), is.of(State::Failed)),
        (was.of(State::Succeeded), was.of(State::Failed))
    );
    must_eq!((is.of(State::Queued), is.of(State::Scheduled)), (1, 3));
    must_eq!(is.total(), ids.len() as u64);
    Ok(())
}

async fn leaves_what_is_there_as_it_is(t: Bench) -> Kept {
    let other = t.in_another_place().await?;
    let lease = t.hold().await?;
    t.log(&lease, 0, lines(["a line"])).await?;
    t.finish(&lease, FAIL).await?;
    let job = t.find(lease.job.id).await?;
    let arrival = Arrival { job: job.clone(), logs: log_of(&t, job.id).await? };
    must!(matches!(admit_all(&other, vec![arrival.clone()]).await?[0], Admitted::Created), "not taken in");
    must_eq!(other.amend(job.id, Action::Requeue { due: Due::Now }).await?, AmendAnswer::Applied);
    let (before, counts) = (other.find(job.id).await?, other.counts().await?);
    for _ in 0..3 {
        let told = admit_all(&other, vec![arrival.clone()]).await?.remove(0);
        must!(matches!(told, Admitted::Existing), "a job that is there was answered {told:?}");
    }
    must_eq!((other.find(job.id).await?, other.counts().await?), (before, counts));
    must_eq!(other.said(job.id).await?, ["a line"]);
    must_eq!(other.take().await?.job.id, job.id);
    must_eq!(other.claim(9).await?.len(), 0);
    must!(admit_all(&other, Vec::new()).await?.is_empty(), "of no jobs");
    Ok(())
}

async fn takes_a_job_in_with_its_key_or_not_at_all(t: Bench) -> Kept {
    let other = t.in_another_place().await?;
    other.clock().advance(t.hour().since(other.hour()));
    let keyed = |scope| job().unique(unique_key("k"), scope);
    let scopes = [UniqueScope::UntilClaimed, UniqueScope::UntilFinished, UniqueScope::For(secs(60))];
    for scope in scopes {
        let holder = other.add(keyed(scope)).await?;
        let id = t.add(keyed(scope)).await?;
        must_eq!(t.amend(id, Action::Withdraw).await?, AmendAnswer::Applied);
        let waiting = carried(t.find(id).await?, t.hour());
        let told = admit(&other, waiting.clone()).await?;
        must!(matches!(told, Admitted::Held(by) if by == holder), "{scope:?} was answered {told:?}");
        must_eq!(other.find_all(&[id]).await?, [None]);
        must_eq!(other.amend(holder, Action::Delete).await?, AmendAnswer::Applied);
        created(&other, waiting).await?;
        // It has its key there.
        let late = other.enqueue([keyed(scope)]).await?;
        must_eq!(late[0].job, id, "{scope:?}");
        must_eq!(other.amend(id, Action::Delete).await?, AmendAnswer::Applied);
        must_eq!(t.amend(id, Action::Delete).await?, AmendAnswer::Applied);
    }
    // One that has ended holds no key, and gets in beside the holder; one whose period is over as well.
    let lease = t.hold_this(keyed(UniqueScope::UntilFinished)).await?;
    t.finish(&lease, SUCCEED).await?;
    let aged = t.add(keyed(UniqueScope::For(secs(5)))).await?;
    must_eq!(t.amend(aged, Action::Withdraw).await?, AmendAnswer::Applied);
    for clock in [t.clock(), other.clock()] {
        clock.advance(secs(6));
    }
    let holder = other.add(keyed(UniqueScope::UntilFinished)).await?;
    for id in [lease.job.id, aged] {
        created(&other, carried(t.find(id).await?, t.hour())).await?;
    }
    must_eq!(other.enqueue([keyed(UniqueScope::UntilFinished)]).await?[0].job, holder);
    Ok(())
}

async fn gives_out_what_was_taken_in(t: Bench) -> Kept {
    let other = t.in_another_place().await?;
    other.clock().advance(t.hour().since(other.hour()));
    let all = [
        job().priority(1),
        job().priority(5),
        job().delay(secs(30)).priority(9),
        job().limit(limit_key("k"), 1),
        job().limit(limit_key("k"), 1),
        job().tag(tag("gpu")).max_attempts(2),
        job().parked().priority(9),
    ];
    let ids = t.add_all(all).await?;
    let needs = TagRule::WorkerHasAll(tags(&["gpu"]));
    let mut claim = t.asking(1);
    claim.tags = TagRule::JobHasAll(tags(&["gpu"]));
    let lease = t.claim_as(claim).await?.remove(0);
    must_eq!(lease.job.id, ids[5]);
    t.finish(&lease, RETRY).await?;
    for id in &ids {
        must_eq!(t.amend(*id, Action::Withdraw).await?, AmendAnswer::Applied);
        created(&other, carried(t.find(*id).await?, t.hour())).await?;
    }
    let mut claim = other.asking(9);
    claim.tags = TagRule::WorkerHasAll(tags(&[]));
    let given: Vec<JobId> = other.claim_as(claim).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [ids[1], ids[0], ids[3]]);
    let mut claim = other.asking(9);
    claim.tags = needs;
    let given = other.claim_as(claim).await?;
    must_eq!(given.iter().map(|lease| (lease.job.id, lease.job.attempt)).collect::<Vec<_>>(), [(ids[5], 2)]);
    must_eq!(other.settle(&given[0], RETRY).await?, Answer::Applied);
    must_eq!(other.state(ids[5]).await?, State::Failed, "its attempts were spent");
    other.clock().advance(secs(30));
    must_eq!(other.claim(9).await?.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), [ids[2]]);
    must!(other.find(ids[6]).await?.is_parked(), "a parked job is not parked any more");
    Ok(())
}

async fn keeps_what_was_taken_in_as_long_as_asked(t: Bench) -> Kept {
    let other = t.in_another_place().await?;
    other.clock().advance(t.hour().since(other.hour()));
    let (short, long) = (job().keep(Keep::For(secs(60))), job().keep(Keep::For(secs(600))));
    let mut ids = Vec::new();
    for new in [short, long] {
        let lease = t.hold_this(new).await?;
        t.finish(&lease, SUCCEED).await?;
        ids.push(lease.job.id);
    }
    other.clock().advance(secs(30));
    for id in &ids {
        let mut record = t.find(*id).await?;
        let expiry = record.expires_at;
        // Nobody is believed who says something else.
        record.expires_at = record.expiry();
        created(&other, record).await?;
        must_eq!(other.find(*id).await?.expires_at, expiry);
    }
    let prune = Prune { limit: 9, workers_after: secs(9_999) };
    must_eq!(other.backend().prune(in_time(0), prune).await?.jobs, 0);
    other.clock().advance(secs(31));
    must_eq!(other.backend().prune(in_time(0), prune).await?.jobs, 1);
    must!(other.find_all(&ids).await?[0].is_none(), "the wrong job was removed");
    must_eq!(other.counts().await?.deleted, 1);
    Ok(())
}

async fn caps_a_log_that_comes_along(t: Bench) -> Kept {
    const LINES: usize = 900;
    let other = t.in_another_place().await?;
    let lease = t.hold().await?;
    // Of 2 KiB each: 900 are more than any store keeps of one job.
    let said = |n: usize| format!("{n} {}", "x".repeat(2_048));
    t.finish(&lease, SUCCEED).await?;
    let job = t.find(lease.job.id).await?;
    let line = |n| {
        let new = lines([said(n)]).remove(0);
        LogLine::new(0, job.id, 1, job.worker, t.hour(), new)
    };
    let logs = (0..LINES).map(line).collect();
    let told = admit_all(&other, vec![Arrival { job: job.clone(), logs }]).await?;
    must!(matches!(told[0], Admitted::Created), "{told:?}");
    let page = other.read_log(LogSource::Job(job.id), 0, 1_000).await?;
    must!(page.gap, "{} of {LINES} lines are there, and nobody is told that others fell", page.lines.len());
    let first = LINES - page.lines.len();
    must!(page.lines.len() >= 300, "only {} lines are left", page.lines.len());
    for (n, line) in (first..).zip(&page.lines) {
        must_eq!(line.message, said(n));
    }
    Ok(())
}

async fn takes_in_ten_thousand(t: Bench) -> Kept {
    const MANY: usize = 10_000;
    let other = t.in_another_place().await?;
    other.clock().advance(t.hour().since(other.hour()));
    let ids = t.add_all(jobs(MANY)).await?;
    must!(t.amend_all(&ids, Action::Withdraw).await?.iter().all(|it| *it == AmendAnswer::Applied), "not all");
    let found = t.find_all(&ids).await?.into_iter().flatten().map(|job| carried(job, t.hour()));
    let all: Vec<Arrival> = found.map(|job| Arrival { job, logs: Vec::new() }).collect();
    for created in [true, false] {
        let told = admit_all(&other, all.clone()).await?;
        let as_told = |told: &&Admitted| matches!(told, Admitted::Created) == created;
        must_eq!(told.iter().filter(as_told).count(), MANY);
    }
    must_eq!(
        (other.counts().await?.of(State::Queued), other.counts().await?.enqueued),
        (MANY as u64, MANY as u64)
    );
    must_eq!(other.claim(1).await?.len(), 1);
    Ok(())
}

async fn loses_what_is_written_under_an_earlier_lease(t: Bench) -> Kept {
    let lease = t.hold().await?;
    must_eq!(t.settle(&lease, RETRY).await?, Answer::Applied);
    let id = lease.job.id;
    must_eq!(t.amend(id, Action::Withdraw).await?, AmendAnswer::Applied);
    let job = carried(t.find(id).await?, t.hour());
    must_eq!(t.amend(id, Action::DeleteEnded { by: t.hour() }).await?, AmendAnswer::Applied);
    must_eq!(t.settle(&lease, RETRY).await?, Answer::Lost);
    created(&t, job).await?;
    must_eq!(t.settle(&lease, SUCCEED).await?, Answer::Lost);
    must_eq!(t.log(&lease, 0, lines(["late"])).await?, Answer::Lost);
    must_eq!(t.renew(&lease, LEASE).await?, Renewed::Lost);
    let again = t.take().await?;
    must_eq!((again.job.id, again.job.attempt), (id, 2));
    t.finish(&again, SUCCEED).await?;
    Ok(())
}
