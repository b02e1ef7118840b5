//! C2: a write under a lease that is no longer held changes nothing, and its writer is told.

use leasehold_core::backend::{Answer, LogAppend, LogSource, Renewal, Renewed, Settlement, Verdict};
use leasehold_core::{ClaimId, JobRecord, LeaseToken, LeasedJob, Payload, Progress, Reason, State};

use crate::bench::{
    Bench, FAIL, LEASE, LOST_ATTEMPT, RELEASE, RETRY, SUCCEED, failure, in_time, job, lines, millis,
    retry_in, secs, settlement, text, token_of, verdicts,
};
use crate::breach::{Done, Kept, must, must_be, must_eq};
use crate::case::cases;

cases! {
    /// A token that nobody was ever given opens nothing.
    [C2] refuses_a_token_that_nobody_was_given;
    /// The token of one job opens no other, even within one claim.
    [C2, C11] refuses_the_token_of_another_job;
    /// A worker that slept through its lease cannot renew the next holder's, nor write its progress.
    [C2] refuses_to_renew_under_a_stale_token;
    /// Nor can it end, retry or release the next holder's attempt.
    [C2] refuses_to_settle_under_a_stale_token;
    /// Nor can it write into the next holder's log.
    [C2, L2] refuses_to_log_under_a_stale_token;
    /// A sweeper cannot take the next holder's lease back with what it read of the former.
    [C2] refuses_to_recover_under_a_stale_token;
    /// None of these leaves a trace: the next holder's job is to the letter what it was.
    [C2] leaves_no_trace_of_refused_writes;
    /// Once a job was taken back, its former holder is refused although nobody has claimed it yet.
    [C2] refuses_the_former_holder_of_a_waiting_job;
    /// Once a job was settled, its former holder can neither renew nor log.
    [C2, S1] refuses_writes_after_the_settlement;
    /// The same settlement again is already applied, and has no second effect.
    [C2, E2] answers_a_repeated_settlement_as_already_applied;
    /// Also after somebody else has claimed the job meanwhile, whom it does not disturb.
    [C2, E2] recognises_a_settlement_after_another_claim;
    /// Another verdict than the one that was recorded is lost.
    [C2, S1] refuses_another_verdict_after_the_settlement;
    /// A holder whose lease ran out, and whose job nobody took back, is still its holder.
    [C2] never_refuses_an_honest_holder;
    /// A sweeper that paused after it had read a lease overwrites no renewal.
    [C2] recovers_no_lease_that_was_renewed_meanwhile;
    /// Nor a settlement, whatever the verdict was.
    [C2, S1] recovers_no_job_that_was_settled_meanwhile;
    /// A lease that is valid is not recovered, however early somebody asks.
    [C2, C1] recovers_no_live_lease;
    /// Of two sweepers that read the same lease, one recovers it; the other changes nothing.
    [C2, C5] recovers_a_lease_once;
    /// One item that is lost spoils no other of its batch.
    [C11, C2] lets_a_lost_item_spoil_no_other;
    /// A renewal never shortens a lease.
    [C2, C1] never_shortens_a_lease;
}

/// A lease that was lost to another worker: the former holder's and the present one's.
async fn lost_and_present(t: &Bench) -> Done<(LeasedJob, LeasedJob)> {
    let former = t.hold().await?;
    t.lose(&former, LOST_ATTEMPT).await?;
    let present = t.another().await?.take().await?;
    Ok((former, present))
}

fn renewal(lease: &LeasedJob, progress: Option<Progress>) -> Renewal {
    Renewal { job: lease.job.id, token: lease.token, lease: LEASE * 5, progress }
}

async fn refuses_a_token_that_nobody_was_given(t: Bench) -> Kept {
    let mut lease = t.hold().await?;
    let before = t.find(lease.job.id).await?;
    let honest = lease.token;
    lease.token = ClaimId::generate().token(lease.job.id);
    must_eq!(t.renew(&lease, LEASE * 5).await?, Renewed::Lost);
    must_eq!(t.log(&lease, 0, lines(["x"])).await?, Answer::Lost);
    for verdict in verdicts() {
        must_eq!(t.settle(&lease, verdict).await?, Answer::Lost);
    }
    t.advance(LEASE + millis(1));
    must_eq!(t.recover(token_of(&lease), LOST_ATTEMPT).await?, Answer::Lost);
    must_eq!(t.find(lease.job.id).await?, before);
    // A job that waits has no token at all, and neither has one that is not there.
    let waiting = t.add(job()).await?;
    for id in [waiting, leasehold_core::JobId::generate()] {
        let lease = Settlement { job: id, token: honest, verdict: SUCCEED, failure: None };
        must_eq!(t.settle_this(lease).await?, Answer::Lost);
    }
    must_eq!(t.state(waiting).await?, State::Queued);
    Ok(())
}

async fn refuses_the_token_of_another_job(t: Bench) -> Kept {
    t.add_all([job(), job()]).await?;
    let leases = t.claim(2).await?;
    let crossed = Settlement { token: leases[1].token, ..settlement(&leases[0], SUCCEED) };
    must_eq!(t.settle_this(crossed).await?, Answer::Lost);
    for lease in &leases {
        must_eq!(t.state(lease.job.id).await?, State::Running);
        t.finish(lease, SUCCEED).await?;
    }
    Ok(())
}

async fn refuses_to_renew_under_a_stale_token(t: Bench) -> Kept {
    let (former, present) = lost_and_present(&t).await?;
    let progress = Progress { done: 9, total: None, message: "stale".into(), cursor: None };
    must_eq!(t.renew_all(vec![renewal(&former, Some(progress))]).await?, [Renewed::Lost]);
    let job = t.find(present.job.id).await?;
    must_eq!((job.progress, job.lease_until), (None, present.job.lease_until));
    Ok(())
}

async fn refuses_to_settle_under_a_stale_token(t: Bench) -> Kept {
    let (former, present) = lost_and_present(&t).await?;
    for verdict in verdicts() {
        let stale = t.settle_failing(&former, verdict.clone(), failure("stale", "late")).await?;
        must_eq!(stale, Answer::Lost, "the answer to {verdict:?}");
        must_eq!(t.state(present.job.id).await?, State::Running);
    }
    t.finish(&present, SUCCEED).await?;
    must_eq!(t.settle(&former, FAIL).await?, Answer::Lost);
    must_eq!(t.state(present.job.id).await?, State::Succeeded);
    Ok(())
}

async fn refuses_to_log_under_a_stale_token(t: Bench) -> Kept {
    let former = t.hold().await?;
    must_eq!(t.log(&former, 0, lines(["early"])).await?, Answer::Applied);
    t.lose(&former, LOST_ATTEMPT).await?;
    let present = t.take().await?;
    must_eq!(t.log(&former, 1, lines(["late"])).await?, Answer::Lost);
    must_eq!(t.log(&present, 0, lines(["mine"])).await?, Answer::Applied);
    must_eq!(t.said(present.job.id).await?, ["early", "mine"]);
    Ok(())
}

async fn refuses_to_recover_under_a_stale_token(t: Bench) -> Kept {
    let (former, present) = lost_and_present(&t).await?;
    t.let_run_out(&present).await?;
    let answer = t.recover(token_of(&former), Verdict::Fail { reason: Reason::Poison }).await?;
    must_eq!(answer, Answer::Lost);
    let job = t.find(present.job.id).await?;
    must_eq!((job.state, job.crashes), (State::Running, 1));
    Ok(())
}

async fn leaves_no_trace_of_refused_writes(t: Bench) -> Kept {
    let (former, present) = lost_and_present(&t).await?;
    let (before, counts): (JobRecord, _) = (t.find(present.job.id).await?, t.counts().await?);
    let progress = Progress { done: 1, total: Some(2), message: "late".into(), cursor: None };
    t.renew_all(vec![renewal(&former, Some(progress))]).await?;
    t.settle(&former, Verdict::Succeed { result: Some(text("late")) }).await?;
    t.settle_failing(&former, retry_in(secs(99)), failure("late", "late")).await?;
    t.log(&former, 0, lines(["late"])).await?;
    t.recover(token_of(&former), LOST_ATTEMPT).await?;
    must_eq!(t.find(present.job.id).await?, before);
    must_eq!(t.counts().await?, counts);
    must_eq!(t.read_log(LogSource::Job(present.job.id), 0, 9).await?.lines, []);
    Ok(())
}

async fn refuses_the_former_holder_of_a_waiting_job(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.lose(&lease, LOST_ATTEMPT).await?;
    must_eq!(t.renew(&lease, LEASE).await?, Renewed::Lost);
    must_eq!(t.log(&lease, 0, lines(["late"])).await?, Answer::Lost);
    for verdict in [SUCCEED, FAIL, RELEASE] {
        must_eq!(t.settle(&lease, verdict).await?, Answer::Lost);
    }
    let job = t.find(lease.job.id).await?;
    must_eq!((job.state, job.attempt), (State::Queued, 1));
    Ok(())
}

async fn refuses_writes_after_the_settlement(t: Bench) -> Kept {
    for verdict in verdicts() {
        let lease = t.hold().await?;
        t.finish(&lease, verdict.clone()).await?;
        let before = t.find(lease.job.id).await?;
        must_eq!(t.renew(&lease, LEASE * 9).await?, Renewed::Lost, "renewing after {verdict:?}");
        must_eq!(t.log(&lease, 0, lines(["late"])).await?, Answer::Lost, "logging after {verdict:?}");
        must_eq!(t.find(lease.job.id).await?, before);
        t.amend(lease.job.id, leasehold_core::backend::Action::Delete).await?;
    }
    Ok(())
}

async fn answers_a_repeated_settlement_as_already_applied(t: Bench) -> Kept {
    for verdict in verdicts() {
        let lease = t.hold().await?;
        let settled =
            Settlement { failure: Some(failure("io", "broken")), ..settlement(&lease, verdict.clone()) };
        must_eq!(t.settle_this(settled.clone()).await?, Answer::Applied);
        let (before, counts) = (t.find(lease.job.id).await?, t.counts().await?);
        must_eq!(before.history.len(), 1);
        t.advance(secs(5));
        for client in t.several(2).await? {
            must_eq!(
                client.settle_this(settled.clone()).await?,
                Answer::AlreadyApplied,
                "repeating {verdict:?}"
            );
        }
        must_eq!(t.find(lease.job.id).await?, before, "the job after {verdict:?} was repeated");
        must_eq!(t.counts().await?.states, counts.states);
        t.amend(lease.job.id, leasehold_core::backend::Action::Delete).await?;
    }
    Ok(())
}

async fn recognises_a_settlement_after_another_claim(t: Bench) -> Kept {
    for verdict in [RETRY, RELEASE] {
        let former = t.hold().await?;
        t.finish(&former, verdict.clone()).await?;
        let present = t.another().await?.take().await?;
        let before = t.find(present.job.id).await?;
        must_eq!(t.settle(&former, verdict.clone()).await?, Answer::AlreadyApplied, "repeating {verdict:?}");
        must_eq!(t.settle(&former, SUCCEED).await?, Answer::Lost);
        must_eq!(t.find(present.job.id).await?, before);
        t.finish(&present, SUCCEED).await?;
    }
    Ok(())
}

async fn refuses_another_verdict_after_the_settlement(t: Bench) -> Kept {
    for first in verdicts() {
        let lease = t.hold().await?;
        t.finish(&lease, first.clone()).await?;
        let before = t.find(lease.job.id).await?;
        for second in verdicts().into_iter().filter(|second| second.name() != first.name()) {
            let answer = t.settle(&lease, second.clone()).await?;
            must_eq!(answer, Answer::Lost, "the answer to {second:?} after {first:?}");
        }
        must_eq!(t.find(lease.job.id).await?, before);
        t.amend(lease.job.id, leasehold_core::backend::Action::Delete).await?;
    }
    Ok(())
}

async fn never_refuses_an_honest_holder(t: Bench) -> Kept {
    for verdict in verdicts() {
        let lease = t.hold().await?;
        for round in 0..3 {
            t.advance(LEASE * 2);
            must_eq!(t.log(&lease, round, lines(["here"])).await?, Answer::Applied, "log of a late holder");
            must_be!(t.renew(&lease, LEASE).await?, Renewed::Held { .. });
        }
        t.advance(LEASE * 2);
        must_eq!(t.settle(&lease, verdict.clone()).await?, Answer::Applied, "a late holder's {verdict:?}");
        t.amend(lease.job.id, leasehold_core::backend::Action::Delete).await?;
    }
    Ok(())
}

async fn recovers_no_lease_that_was_renewed_meanwhile(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.let_run_out(&lease).await?;
    let read = t.another().await?.expired(9).await?;
    must_eq!(read.len(), 1);
    must_be!(t.renew(&lease, LEASE).await?, Renewed::Held { .. });
    let before = t.find(lease.job.id).await?;
    must_eq!(t.recover((read[0].job, read[0].token), LOST_ATTEMPT).await?, Answer::Lost);
    must_eq!(t.find(lease.job.id).await?, before);
    t.finish(&lease, SUCCEED).await?;
    Ok(())
}

async fn recovers_no_job_that_was_settled_meanwhile(t: Bench) -> Kept {
    for verdict in verdicts() {
        let lease = t.hold().await?;
        t.let_run_out(&lease).await?;
        let read = t.expired(9).await?;
        t.finish(&lease, verdict.clone()).await?;
        let before = t.find(lease.job.id).await?;
        let answer =
            t.recover((read[0].job, read[0].token), Verdict::Fail { reason: Reason::Poison }).await?;
        must!(answer != Answer::Applied, "a job that was settled with {verdict:?} was recovered");
        must_eq!(t.find(lease.job.id).await?, before, "the job that was settled with {verdict:?}");
        t.amend(lease.job.id, leasehold_core::backend::Action::Delete).await?;
    }
    Ok(())
}

async fn recovers_no_live_lease(t: Bench) -> Kept {
    let lease = t.hold().await?;
    for span in [secs(0), LEASE / 2, LEASE / 2] {
        t.advance(span);
        must_eq!(t.recover(token_of(&lease), LOST_ATTEMPT).await?, Answer::Lost);
        must_eq!(t.find(lease.job.id).await?.crashes, 0);
    }
    t.finish(&lease, SUCCEED).await?;
    Ok(())
}

async fn recovers_a_lease_once(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.let_run_out(&lease).await?;
    let other = t.another().await?;
    let (mine, theirs) = (t.expired(9).await?, other.expired(9).await?);
    must_eq!(mine, theirs);
    must_eq!(t.recover((mine[0].job, mine[0].token), LOST_ATTEMPT).await?, Answer::Applied);
    must_eq!(other.recover((theirs[0].job, theirs[0].token), LOST_ATTEMPT).await?, Answer::AlreadyApplied);
    let job = t.find(lease.job.id).await?;
    must_eq!((job.state, job.crashes, job.attempt), (State::Queued, 1, 1));
    let next = t.take().await?;
    must!(
        other.recover((theirs[0].job, theirs[0].token), LOST_ATTEMPT).await? != Answer::Applied,
        "recovered twice"
    );
    must_eq!(t.find(next.job.id).await?.state, State::Running);
    Ok(())
}

async fn lets_a_lost_item_spoil_no_other(t: Bench) -> Kept {
    t.add_all([job(), job(), job()]).await?;
    let mut leases = t.claim(3).await?;
    leases[1].token = LeaseToken::from_uuid(*ClaimId::generate().as_uuid());
    let renewals = leases.iter().map(|lease| renewal(lease, None)).collect();
    let renewed: Vec<bool> = t.renew_all(renewals).await?.iter().map(|r| *r != Renewed::Lost).collect();
    must_eq!(renewed, [true, false, true]);
    let append = |lease: &LeasedJob| LogAppend {
        job: lease.job.id,
        token: lease.token,
        position: 0,
        lines: lines(["x"]),
    };
    let appends = leasehold_core::backend::AppendLogs { appends: leases.iter().map(append).collect() };
    let logged = t.backend().append_logs(in_time(0), appends).await?;
    must_eq!(logged, [Answer::Applied, Answer::Lost, Answer::Applied]);
    let result = Verdict::Succeed { result: Some(Payload::EMPTY) };
    let settled =
        t.settle_all(leases.iter().map(|lease| settlement(lease, result.clone())).collect()).await?;
    must_eq!(settled, [Answer::Applied, Answer::Lost, Answer::Applied]);
    must_eq!(t.state(leases[1].job.id).await?, State::Running);
    Ok(())
}

async fn never_shortens_a_lease(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let until = t.hour().plus(LEASE);
    must_eq!(t.renew(&lease, secs(1)).await?, Renewed::Held { until, cancel_requested: false });
    must_eq!(t.find(lease.job.id).await?.lease_until, Some(until));
    t.advance(secs(10));
    let until = t.hour().plus(LEASE);
    must_eq!(t.renew(&lease, LEASE).await?, Renewed::Held { until, cancel_requested: false });
    t.advance(LEASE);
    must_eq!(t.expired(9).await?, []);
    t.advance(millis(1));
    must_eq!(t.expired(9).await?.len(), 1);
    Ok(())
}
