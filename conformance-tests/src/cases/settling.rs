//! S1 to S6 and F5: how attempts end, and what is kept of them.

use std::collections::BTreeSet;
use std::time::Duration;

use leasehold_core::backend::{Action, Answer, NewFailure, Renewal, Renewed, Settlement, Verdict};
use leasehold_core::limits::HISTORY;
use leasehold_core::{Keep, Progress, Reason, Retention, State};

use crate::bench::{
    Bench, CANCEL, FAIL, LEASE, LOST_ATTEMPT, RELEASE, RETRY, SUCCEED, failure, job, millis, release_for,
    retry_in, secs, settlement, text, verdicts,
};
use crate::breach::{Done, Kept, must, must_be, must_eq};
use crate::case::cases;

use super::producing::corpus;

cases! {
    /// Each verdict brings the job to the state and reason that it names.
    [S1] brings_a_job_where_the_verdict_says;
    /// A job that has ended is never given out again, nor does time change it.
    [S1] keeps_an_ended_job_ended;
    /// A retry keeps all of the job but its due time and reason.
    [S3] changes_only_the_time_on_retry;
    /// A job is not given before its retry's time, and is given at it.
    [S3, C8] gives_no_retried_job_before_its_time;
    /// Twenty attempts with a back-off take twenty back-offs of the store's time.
    [S3] burns_no_attempts_while_a_backoff_runs;
    /// A release with a delay waits as long; one without keeps the due time.
    [S3, C6] releases_for_as_long_as_it_was_told;
    /// The first failure and the latest ones are kept, and no more.
    [S4] remembers_the_first_and_the_latest_failures;
    /// A failure is kept with its attempt, worker, time and reason.
    [S4] tells_who_failed_when_and_why;
    /// A recovery's failure joins the same history.
    [S4, C3] remembers_the_failure_of_a_lost_attempt;
    /// A job that waits, now or later, is cancelled at once and never given out.
    [S5] cancels_a_waiting_job_at_once;
    /// A running job goes on, and its holder learns at its next renewal that it should end.
    [S5] asks_a_running_job_to_end;
    /// A job that was asked to end ends as cancelled when it is retried, released or recovered.
    [S5, S1] cancels_an_asked_job_that_comes_back;
    /// A job that was asked to end and succeeds has succeeded.
    [S5, S1] lets_an_asked_job_succeed;
    /// A result comes back byte for byte.
    [S6, P6] returns_results_byte_for_byte;
    /// Progress is what was said last, and stays when the job has ended.
    [S6] keeps_the_latest_progress;
    /// What is kept of an ended job is kept as long as its producer asked for, by how it ended.
    [F5] dates_an_ended_job_by_its_retention;
    /// A batch may settle in every way at once; each item is answered and each job is where it was sent.
    [C11, S1] settles_a_mixed_batch;
}

async fn brings_a_job_where_the_verdict_says(t: Bench) -> Kept {
    let wanted = [
        (SUCCEED, State::Succeeded, None),
        (FAIL, State::Failed, Some(Reason::Error)),
        (Verdict::Fail { reason: Reason::BadPayload }, State::Failed, Some(Reason::BadPayload)),
        (CANCEL, State::Cancelled, Some(Reason::Aborted)),
        (RETRY, State::Queued, Some(Reason::Error)),
        (retry_in(secs(1)), State::Scheduled, Some(Reason::Error)),
        (RELEASE, State::Queued, Some(Reason::Released)),
        (release_for(secs(1)), State::Scheduled, Some(Reason::Snoozed)),
    ];
    for (verdict, state, reason) in wanted {
        let lease = t.hold().await?;
        t.advance(secs(1));
        t.finish(&lease, verdict.clone()).await?;
        let job = t.find(lease.job.id).await?;
        must_eq!((job.state, job.reason), (state, reason), "after {verdict:?}");
        must_eq!(job.lease_until, None, "the lease after {verdict:?}");
        let ended = state.is_terminal().then(|| t.hour());
        must_eq!(job.finished_at, ended, "the end after {verdict:?}");
        must_eq!((job.worker, job.started_at), (lease.job.worker, lease.job.started_at));
        t.amend(job.id, Action::Delete).await?;
    }
    Ok(())
}

async fn keeps_an_ended_job_ended(t: Bench) -> Kept {
    let mut ended = Vec::new();
    for verdict in [SUCCEED, FAIL, CANCEL] {
        let lease = t.hold().await?;
        t.finish(&lease, verdict).await?;
        ended.push(t.find(lease.job.id).await?);
    }
    for _ in 0..3 {
        t.advance(Duration::from_hours(10));
        must_eq!(t.claim(10).await?.len(), 0);
        must_eq!(t.expired(10).await?, []);
    }
    for before in ended {
        must_eq!(t.find(before.id).await?, before);
    }
    Ok(())
}

async fn changes_only_the_time_on_retry(t: Bench) -> Kept {
    let job = job().priority(3).header("a", "b").lease(secs(30));
    let lease = t.hold_this(job).await?;
    t.advance(secs(2));
    t.settle_failing(&lease, retry_in(secs(8)), failure("io", "broken")).await?;
    let mut wanted = lease.job.clone();
    wanted.state = State::Scheduled;
    wanted.reason = Some(Reason::Error);
    wanted.due = t.hour().plus(secs(8));
    wanted.lease_until = None;
    let found = t.find(lease.job.id).await?;
    must_eq!(found.history.len(), 1);
    wanted.history.clone_from(&found.history);
    must_eq!(found, wanted);
    Ok(())
}

async fn gives_no_retried_job_before_its_time(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.finish(&lease, retry_in(secs(30))).await?;
    for _ in 0..3 {
        must_eq!(t.claim(1).await?.len(), 0);
        t.advance(millis(9_999));
    }
    must_eq!(t.claim(1).await?.len(), 0, "jobs given 3 ms before the retry's time");
    t.advance(millis(3));
    must_eq!(t.take().await?.job.attempt, 2);
    Ok(())
}

async fn burns_no_attempts_while_a_backoff_runs(t: Bench) -> Kept {
    t.add(job().max_attempts(20)).await?;
    let (begun, mut attempts) = (t.hour(), 0);
    while attempts < 20 {
        for lease in t.claim(5).await? {
            attempts += 1;
            t.finish(&lease, if attempts < 20 { retry_in(secs(10)) } else { FAIL }).await?;
        }
        t.advance(secs(1));
        must!(t.hour().since(begun) < secs(1_000), "after {attempts} attempts none came any more");
    }
    must_eq!(t.hour().since(begun), secs(191));
    Ok(())
}

async fn releases_for_as_long_as_it_was_told(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let due = lease.job.due;
    t.advance(secs(5));
    t.finish(&lease, RELEASE).await?;
    must_eq!(t.find(lease.job.id).await?.due, due);
    let lease = t.take().await?;
    t.finish(&lease, release_for(secs(7))).await?;
    must_eq!(t.find(lease.job.id).await?.due, t.hour().plus(secs(7)));
    t.advance(millis(6_999));
    must_eq!(t.claim(1).await?.len(), 0);
    t.advance(millis(1));
    t.take().await?;
    Ok(())
}

async fn remembers_the_first_and_the_latest_failures(t: Bench) -> Kept {
    let id = t.add(job()).await?;
    for attempt in 1..=HISTORY + 3 {
        let lease = t.take().await?;
        t.settle_failing(&lease, RETRY, failure("io", &format!("failure {attempt}"))).await?;
    }
    let kept: Vec<u32> = t.find(id).await?.history.iter().map(|failure| failure.attempt).collect();
    let latest = (5..=HISTORY as u32 + 3).collect::<Vec<_>>();
    must_eq!(kept[0], 1);
    must_eq!(kept[1..], latest);
    must_eq!(kept.len(), HISTORY);
    let last = t.find(id).await?.last_failure().map(|failure| failure.message.clone());
    must_eq!(last, Some(format!("failure {}", HISTORY + 3)));
    Ok(())
}

async fn tells_who_failed_when_and_why(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.advance(secs(4));
    let told = NewFailure {
        reason: Reason::Panic,
        class: "my::Error<$x>".into(),
        message: "$secret {\"$set\":1} '; -- \u{1f600}\n  at line 3".into(),
    };
    t.settle_failing(&lease, Verdict::Fail { reason: Reason::Panic }, told.clone()).await?;
    let job = t.find(lease.job.id).await?;
    must_eq!(job.history.len(), 1);
    let kept = &job.history[0];
    must_eq!((kept.attempt, kept.worker, kept.at), (1, Some(t.worker), t.hour()));
    must_eq!((kept.reason, &kept.class, &kept.message), (told.reason, &told.class, &told.message));
    Ok(())
}

async fn remembers_the_failure_of_a_lost_attempt(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.let_run_out(&lease).await?;
    let lost = NewFailure { reason: Reason::LeaseExpired, ..failure("lease_expired", "gone") };
    let recovery = Settlement { failure: Some(lost), ..settlement(&lease, LOST_ATTEMPT) };
    must_eq!(t.another().await?.recover_all(vec![recovery]).await?, [Answer::Applied]);
    let job = t.find(lease.job.id).await?;
    must_eq!((job.state, job.reason), (State::Queued, Some(Reason::LeaseExpired)));
    must_eq!(job.history.len(), 1);
    let kept = &job.history[0];
    must_eq!((kept.attempt, kept.worker, kept.reason), (1, Some(t.worker), Reason::LeaseExpired));
    Ok(())
}

async fn cancels_a_waiting_job_at_once(t: Bench) -> Kept {
    let ids = t.add_all([job(), job().delay(secs(5))]).await?;
    for id in ids {
        must_eq!(t.amend(id, Action::Cancel).await?, leasehold_core::backend::AmendAnswer::Applied);
        let job = t.find(id).await?;
        must_eq!((job.state, job.reason), (State::Cancelled, Some(Reason::Cancelled)));
        must_eq!(job.finished_at, Some(t.hour()));
    }
    t.advance(secs(5));
    must_eq!(t.claim(5).await?.len(), 0);
    Ok(())
}

async fn asks_a_running_job_to_end(t: Bench) -> Kept {
    let lease = t.hold().await?;
    must_be!(t.renew(&lease, LEASE).await?, Renewed::Held { cancel_requested: false, .. });
    let answer = t.another().await?.amend(lease.job.id, Action::Cancel).await?;
    must_eq!(answer, leasehold_core::backend::AmendAnswer::Requested);
    let job = t.find(lease.job.id).await?;
    must_eq!((job.state, job.cancel_requested), (State::Running, true));
    must_be!(t.renew(&lease, LEASE).await?, Renewed::Held { cancel_requested: true, .. });
    t.finish(&lease, Verdict::Cancel { reason: Reason::Cancelled }).await?;
    let job = t.find(lease.job.id).await?;
    must_eq!((job.state, job.reason), (State::Cancelled, Some(Reason::Cancelled)));
    Ok(())
}

async fn asked_to_end(t: &Bench) -> Done<leasehold_core::LeasedJob> {
    let lease = t.hold().await?;
    t.amend(lease.job.id, Action::Cancel).await?;
    Ok(lease)
}

async fn cancels_an_asked_job_that_comes_back(t: Bench) -> Kept {
    for verdict in [RETRY, retry_in(secs(5)), RELEASE, release_for(secs(5))] {
        let lease = asked_to_end(&t).await?;
        t.finish(&lease, verdict.clone()).await?;
        must_eq!(t.state(lease.job.id).await?, State::Cancelled, "an asked job after {verdict:?}");
    }
    let lease = asked_to_end(&t).await?;
    t.lose(&lease, LOST_ATTEMPT).await?;
    must_eq!(t.state(lease.job.id).await?, State::Cancelled, "an asked job after its recovery");
    t.advance(secs(5));
    must_eq!(t.claim(9).await?.len(), 0);
    Ok(())
}

async fn lets_an_asked_job_succeed(t: Bench) -> Kept {
    let lease = asked_to_end(&t).await?;
    t.finish(&lease, Verdict::Succeed { result: Some(text("done")) }).await?;
    let job = t.find(lease.job.id).await?;
    must_eq!((job.state, job.result), (State::Succeeded, Some(text("done"))));
    Ok(())
}

async fn returns_results_byte_for_byte(t: Bench) -> Kept {
    for result in corpus() {
        let lease = t.hold().await?;
        t.finish(&lease, Verdict::Succeed { result: Some(result.clone()) }).await?;
        let shown: String = String::from_utf8_lossy(result.as_bytes()).chars().take(40).collect();
        must!(t.find(lease.job.id).await?.result == Some(result), "the result {shown:?} was altered");
    }
    let lease = t.hold().await?;
    t.finish(&lease, SUCCEED).await?;
    must_eq!(t.find(lease.job.id).await?.result, None);
    Ok(())
}

async fn keeps_the_latest_progress(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let told = [
        Progress {
            done: u64::MAX >> 1,
            total: Some(0),
            message: "$a.b {\"$set\":1}".into(),
            cursor: Some("\u{1f600}{\"$set\":\t1}".repeat(500)),
        },
        Progress { done: 2, total: None, message: "ä\n\u{1f600}".into(), cursor: None },
    ];
    for progress in told {
        let (job, token) = (lease.job.id, lease.token);
        let renewal = Renewal { job, token, lease: LEASE, progress: Some(progress.clone()) };
        must_be!(t.renew_all(vec![renewal]).await?[0], Renewed::Held { .. });
        must_be!(t.renew(&lease, LEASE).await?, Renewed::Held { .. });
        must_eq!(t.find(job).await?.progress, Some(progress));
    }
    t.finish(&lease, SUCCEED).await?;
    must_eq!(t.find(lease.job.id).await?.progress.map(|progress| progress.done), Some(2));
    Ok(())
}

async fn dates_an_ended_job_by_its_retention(t: Bench) -> Kept {
    let retention =
        Retention { succeeded: Keep::For(secs(10)), failed: Keep::Forever, cancelled: Keep::For(secs(30)) };
    for (verdict, kept) in [(SUCCEED, Some(secs(10))), (FAIL, None), (CANCEL, Some(secs(30)))] {
        let lease = t.hold_this(job().retention(retention)).await?;
        t.advance(secs(1));
        must_eq!(t.find(lease.job.id).await?.expires_at, None, "the expiry of a running job");
        t.finish(&lease, verdict.clone()).await?;
        let wanted = kept.map(|kept| t.hour().plus(kept));
        must_eq!(t.find(lease.job.id).await?.expires_at, wanted, "the expiry after {verdict:?}");
    }
    let id = t.add(job().retention(retention)).await?;
    t.amend(id, Action::Cancel).await?;
    must_eq!(t.find(id).await?.expires_at, Some(t.hour().plus(secs(30))));
    Ok(())
}

async fn settles_a_mixed_batch(t: Bench) -> Kept {
    t.add_all((0..50).map(|_| job())).await?;
    let leases = t.claim(50).await?;
    let states =
        [State::Succeeded, State::Failed, State::Cancelled, State::Queued, State::Queued].into_iter().cycle();
    let verdict = |i: usize| verdicts()[i % 5].clone();
    let batch = leases.iter().enumerate().map(|(i, lease)| settlement(lease, verdict(i))).collect();
    let answers: BTreeSet<String> = t.settle_all(batch).await?.iter().map(Answer::to_string).collect();
    must_eq!(answers, BTreeSet::from([Answer::Applied.to_string()]));
    for (lease, state) in leases.iter().zip(states) {
        must_eq!(t.state(lease.job.id).await?, state);
    }
    must_eq!(t.counts().await?.of(State::Queued), 20);
    Ok(())
}
