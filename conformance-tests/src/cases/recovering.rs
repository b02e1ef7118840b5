//! C3, C4 and C5: jobs whose worker is gone.

use std::collections::BTreeSet;

use leasehold_core::backend::{Answer, ExpiredLease, Verdict};
use leasehold_core::policy::{Backoff, RetryPolicy, after_expiry};
use leasehold_core::{JobId, Reason, State, WorkerId};

use crate::bench::{
    Bench, LEASE, LOST_ATTEMPT, SUCCEED, job, jobs, kind, lines, millis, queue, retry_in, secs, text,
    token_of,
};
use crate::breach::{Kept, must, must_eq};
use crate::case::cases;

cases! {
    /// A job whose worker is gone is shown to whoever asks, and runs again once it was recovered.
    [C3] gives_a_lost_job_out_again;
    /// A worker that was killed and started again under its name strands nothing that it held before.
    [C3, F1] strands_no_job_of_a_restarted_worker;
    /// What is told of a lost lease is all that a policy needs.
    [C3, C5] tells_what_a_policy_needs_of_a_lost_lease;
    /// Lost leases are listed longest ago first, at most as many as asked for, and looking changes nothing.
    [C3] lists_lost_leases_longest_ago_first;
    /// However many leases were lost at once, all are recovered, a bounded batch at a time.
    [C3] recovers_many_leases_in_batches;
    /// One item of a recovery that is lost spoils no other.
    [C3, C11] lets_a_held_job_spoil_no_recovery;
    /// A crash keeps the attempt spent, and is counted apart.
    [C4, C5] spends_the_attempt_of_a_crash;
    /// A job that takes down every worker it meets is quarantined once its budget is spent, however many
    /// attempts it has left.
    [C5] quarantines_a_poison_job;
    /// A job that crashes on its last attempt ends for want of attempts, and never runs again.
    [C4] fails_a_job_that_crashed_on_its_last_attempt;
    /// A recovered job waits for as long as the recoverer says.
    [C3, S3] makes_a_recovered_job_wait;
    /// Nothing that was written under the lost lease is lost with it.
    [C3, S6] keeps_what_the_lost_attempt_wrote;
    /// Of many recoverers at once one recovers each lease, and each crash counts once.
    [C3, C5] recovers_each_lease_once_under_racing_recoverers;
}

fn ids(leases: &[ExpiredLease]) -> Vec<JobId> {
    leases.iter().map(|lease| lease.job).collect()
}

async fn gives_a_lost_job_out_again(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.let_run_out(&lease).await?;
    let other = t.another().await?;
    let lost = other.expired(10).await?;
    must_eq!(ids(&lost), [lease.job.id]);
    must_eq!(other.recover((lost[0].job, lost[0].token), LOST_ATTEMPT).await?, Answer::Applied);
    must_eq!(other.expired(10).await?, []);
    let again = other.take().await?;
    must_eq!((again.job.id, again.job.attempt, again.job.worker), (lease.job.id, 2, Some(other.worker)));
    other.finish(&again, SUCCEED).await?;
    Ok(())
}

async fn strands_no_job_of_a_restarted_worker(t: Bench) -> Kept {
    let lease = t.hold().await?;
    // The same process starts again, and as every start of a worker it has an id of its own.
    let mut restarted = t.another().await?;
    restarted.worker = WorkerId::generate();
    must_eq!(restarted.claim(1).await?.len(), 0, "jobs given while the lease of the dead one is valid");
    restarted.let_run_out(&lease).await?;
    for lost in restarted.expired(10).await? {
        must_eq!(lost.worker, Some(t.worker));
        restarted.recover((lost.job, lost.token), LOST_ATTEMPT).await?;
    }
    must_eq!(restarted.take().await?.job.id, lease.job.id);
    Ok(())
}

async fn tells_what_a_policy_needs_of_a_lost_lease(t: Bench) -> Kept {
    let policy = RetryPolicy::new(Backoff::Fixed { delay: secs(3) });
    let new = leasehold_core::NewJob::new(kind("mail"), text(""))
        .queue(queue("a"))
        .max_attempts(5)
        .crash_budget(4)
        .retry(policy.clone());
    let mut lease = t.hold_this(new).await?;
    t.lose(&lease, LOST_ATTEMPT).await?;
    lease = t.claim_from(&queue("a"), 1).await?.remove(0);
    t.let_run_out(&lease).await?;
    let wanted = ExpiredLease {
        job: lease.job.id,
        token: lease.token,
        queue: queue("a"),
        kind: kind("mail"),
        worker: Some(t.worker),
        attempt: 2,
        max_attempts: 5,
        crashes: 1,
        crash_budget: 4,
        retry: Some(policy),
    };
    must_eq!(t.expired(10).await?, [wanted]);
    Ok(())
}

async fn lists_lost_leases_longest_ago_first(t: Bench) -> Kept {
    let mut held = Vec::new();
    for length in [40, 10, 30, 20] {
        held.push((length, t.hold_this(job().lease(secs(length))).await?.job.id));
    }
    held.sort_unstable();
    let wanted: Vec<JobId> = held.into_iter().map(|(_, id)| id).collect();
    t.advance(secs(30));
    must_eq!(ids(&t.expired(10).await?), wanted[..2]);
    t.advance(secs(30));
    must_eq!(ids(&t.expired(10).await?), wanted);
    must_eq!(ids(&t.expired(3).await?), wanted[..3]);
    must_eq!(t.expired(0).await?, []);
    must_eq!(t.counts().await?.of(State::Running), 4);
    Ok(())
}

async fn recovers_many_leases_in_batches(t: Bench) -> Kept {
    t.add_all(jobs(500)).await?;
    t.claim(500).await?;
    t.advance(LEASE + millis(1));
    let mut rounds = 0;
    loop {
        let lost = t.expired(60).await?;
        if lost.is_empty() {
            break;
        }
        must!(lost.len() <= 60, "60 lost leases were asked for and {} were told", lost.len());
        for lease in lost {
            must_eq!(t.recover((lease.job, lease.token), LOST_ATTEMPT).await?, Answer::Applied);
        }
        rounds += 1;
        must!(rounds <= 500, "the same leases are told again and again");
    }
    must_eq!(t.claim(1_000).await?.len(), 500);
    Ok(())
}

async fn lets_a_held_job_spoil_no_recovery(t: Bench) -> Kept {
    t.add_all(jobs(3)).await?;
    let leases = t.claim(3).await?;
    t.advance(LEASE + millis(1));
    let lost = t.expired(10).await?;
    t.renew(&leases[1], LEASE).await?;
    let settlements = lost.iter().map(|lease| leasehold_core::backend::Settlement {
        job: lease.job,
        token: lease.token,
        verdict: LOST_ATTEMPT,
        failure: None,
    });
    let answers = t.recover_all(settlements.collect()).await?;
    must_eq!(answers.iter().filter(|answer| **answer == Answer::Applied).count(), 2);
    must_eq!(t.state(leases[1].job.id).await?, State::Running);
    must_eq!(t.counts().await?.of(State::Queued), 2);
    Ok(())
}

async fn spends_the_attempt_of_a_crash(t: Bench) -> Kept {
    let id = t.add(job()).await?;
    for crash in 1..=3 {
        let lease = t.take().await?;
        must_eq!((lease.job.attempt, lease.job.crashes), (crash, crash - 1));
        t.lose(&lease, LOST_ATTEMPT).await?;
        let job = t.find(id).await?;
        must_eq!((job.attempt, job.crashes), (crash, crash));
    }
    let lease = t.take().await?;
    t.finish(&lease, retry_in(secs(0))).await?;
    let job = t.find(id).await?;
    must_eq!((job.attempt, job.crashes), (4, 3), "attempts and crashes after an ordinary failure");
    Ok(())
}

async fn quarantines_a_poison_job(t: Bench) -> Kept {
    let id = t.add(job().max_attempts(100).crash_budget(2)).await?;
    let mut runs = 0;
    while let Some(lease) = t.claim(1).await?.pop() {
        runs += 1;
        must!(runs <= 10, "a poison job runs for ever");
        t.let_run_out(&lease).await?;
        for lost in t.expired(10).await? {
            let decision = after_expiry(&lost, &RetryPolicy::default(), 0.0);
            t.recover((lost.job, lost.token), decision.verdict).await?;
        }
        t.advance(secs(3_600));
    }
    must_eq!(runs, 3);
    let job = t.find(id).await?;
    must_eq!((job.state, job.reason, job.crashes), (State::Failed, Some(Reason::Poison), 3));
    Ok(())
}

async fn fails_a_job_that_crashed_on_its_last_attempt(t: Bench) -> Kept {
    let lease = t.hold_this(job().max_attempts(1)).await?;
    t.lose(&lease, Verdict::Fail { reason: Reason::MaxAttempts }).await?;
    let job = t.find(lease.job.id).await?;
    must_eq!((job.state, job.reason), (State::Failed, Some(Reason::MaxAttempts)));
    must_eq!(job.finished_at, Some(t.hour()));
    t.advance(secs(3_600));
    must_eq!(t.claim(1).await?.len(), 0);
    Ok(())
}

async fn makes_a_recovered_job_wait(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.lose(&lease, Verdict::Retry { reason: Reason::LeaseExpired, delay: secs(10), queue: None }).await?;
    let job = t.find(lease.job.id).await?;
    must_eq!((job.state, job.due), (State::Scheduled, t.hour().plus(secs(10))));
    t.advance(millis(9_999));
    must_eq!(t.claim(1).await?.len(), 0);
    t.advance(millis(1));
    t.take().await?;
    Ok(())
}

async fn keeps_what_the_lost_attempt_wrote(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.log(&lease, 0, lines(["one", "two"])).await?;
    let (job, token) = token_of(&lease);
    let progress = Some(leasehold_core::Progress {
        done: 3,
        total: Some(9),
        message: "half".into(),
        cursor: Some("{\"at\": \"$3\"}".into()),
    });
    let renewal = leasehold_core::backend::Renewal { job, token, lease: LEASE, progress: progress.clone() };
    t.renew_all(vec![renewal]).await?;
    t.lose(&lease, LOST_ATTEMPT).await?;
    must_eq!(t.said(job).await?, ["one", "two"]);
    must_eq!(t.find(job).await?.progress, progress);
    Ok(())
}

async fn recovers_each_lease_once_under_racing_recoverers(t: Bench) -> Kept {
    let added = t.add_all(jobs(100)).await?;
    t.claim(100).await?;
    t.advance(LEASE + millis(1));
    let mut recoverers = Vec::new();
    for client in t.several(5).await? {
        recoverers.push(tokio::spawn(async move {
            let mut applied = Vec::new();
            for lost in client.expired(100).await? {
                if client.recover((lost.job, lost.token), LOST_ATTEMPT).await? == Answer::Applied {
                    applied.push(lost.job);
                }
            }
            Ok::<_, crate::breach::Trouble>(applied)
        }));
    }
    let mut applied = Vec::new();
    for recoverer in recoverers {
        applied.extend(recoverer.await??);
    }
    must_eq!(applied.len(), 100);
    must_eq!(applied.into_iter().collect::<BTreeSet<_>>().len(), 100);
    for job in t.find_all(&added).await?.into_iter().flatten() {
        must_eq!((job.state, job.crashes), (State::Queued, 1));
    }
    Ok(())
}
