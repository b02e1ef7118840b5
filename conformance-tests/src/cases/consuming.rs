//! C1, C4, C8 and C11: what a claim gives out, and to whom.

use std::collections::BTreeSet;

use leasehold_core::backend::{Claim, Renewed};
use leasehold_core::{ClaimId, JobId, Reason, State, WorkerId, limits};

use crate::bench::{
    Bench, LEASE, LOST_ATTEMPT, RELEASE, RETRY, SUCCEED, in_time, job, jobs, limit_key, millis, release_for,
    secs, token_of,
};
use crate::breach::{Kept, must, must_be, must_eq};
use crate::case::cases;

cases! {
    /// Nobody else is given a job while its lease is valid.
    [C1] gives_each_job_to_one_worker;
    /// Of any number of workers that claim at once, one is given each job, and every job is given.
    [C1, S2] gives_each_job_to_one_of_racing_workers;
    /// Of workers that ask at the same moment, one is given the job that waits.
    [C1, S2] gives_a_job_to_one_of_many_who_ask_at_once;
    /// A lease that ran out is given to nobody before it was recovered.
    [C1, S1] gives_no_job_again_before_it_was_recovered;
    /// What is given is the job, running, with all that its handler needs to know.
    [C1, C4] shows_the_job_it_gives;
    /// A claim spends one attempt, and a retry spends the next.
    [C4] spends_an_attempt_with_each_claim;
    /// A release, which a shutdown, a snooze and a rate limit are, gives the attempt back.
    [C4] gives_the_attempt_back_on_release;
    /// Each attempt counts, and the one after the last is not made: the job has failed.
    [C4] ends_a_job_when_its_attempts_are_spent;
    /// A job whose attempts are all spent is never given out, whatever brought it back to its queue.
    [C4] gives_out_no_job_without_attempts;
    /// At most as many jobs are given as were asked for, none for none, each under its own token.
    [C11] gives_at_most_as_many_as_asked_for;
    /// A backlog of ten thousand jobs makes no claim come back less full than one of ten.
    [C11, C7] fills_its_claims_from_a_large_backlog;
    /// The token is the one that the caller can work out from the claim's id.
    [C11, E2] gives_the_token_that_the_claim_named;
    /// A claim whose answer was lost finds its jobs again, and takes no other.
    [E2, C11] finds_a_lost_claim_by_its_id;
    /// A claim that was lost and partly settled finds what it still holds.
    [E2] finds_what_is_left_of_a_lost_claim;
    /// A claim whose jobs it holds no longer is given no others, and not the same again.
    [E2, C2] gives_nothing_to_a_claim_that_is_over;
    /// A claim is not given later what it was not given at first because its limit key was full.
    [E2, C9] gives_a_repeated_claim_no_more_than_at_first;
    /// A repeated claim neither spends an attempt nor moves the lease's end.
    [E2, C4] spends_nothing_on_a_repeated_claim;
    /// A job is given at the very moment it is due, and not a millisecond sooner.
    [C8] gives_a_job_at_the_moment_it_is_due;
    /// Due times and leases are reckoned by the store's clock.
    [C8] judges_time_by_its_own_clock;
    /// A lease that ends exactly now has not run out.
    [C8] holds_a_lease_to_its_last_moment;
    /// The lease is the job's own where it has one, else the one that the claim asks for.
    [C1] prefers_the_lease_of_the_job;
    /// A clock that is set back takes no lease from its holder and gives no job out twice.
    [C8, C1] keeps_leases_when_its_clock_is_set_back;
    /// Where it says how long until the next job is due, that is not too long.
    [C8, F3] never_says_to_wait_too_long;
}

async fn gives_each_job_to_one_worker(t: Bench) -> Kept {
    let ids = t.add_all(jobs(10)).await?;
    let others = t.several(3).await?;
    let mut given = Vec::new();
    for client in others.iter().cycle().take(12) {
        given.extend(client.claim(1).await?.iter().map(|lease| lease.job.id));
    }
    given.sort();
    must_eq!(given, ids);
    t.advance(LEASE);
    must_eq!(others[1].claim(10).await?.len(), 0, "jobs given at the last moment of their leases");
    Ok(())
}

async fn gives_each_job_to_one_of_racing_workers(t: Bench) -> Kept {
    const JOBS: usize = 200;
    t.add_all(jobs(JOBS)).await?;
    let mut workers = Vec::new();
    for client in t.several(8).await? {
        workers.push(tokio::spawn(async move { client.claim_all(3).await }));
    }
    let mut given = Vec::new();
    for worker in workers {
        given.extend(worker.await??.into_iter().map(|lease| lease.job.id));
    }
    let distinct: BTreeSet<JobId> = given.iter().copied().collect();
    must_eq!(given.len(), distinct.len(), "jobs given, and distinct ones");
    must_eq!(distinct.len(), JOBS, "distinct jobs given");
    Ok(())
}

async fn gives_a_job_to_one_of_many_who_ask_at_once(t: Bench) -> Kept {
    let clients = t.several(6).await?;
    for round in 1..=10 {
        let id = t.add(job()).await?;
        // All begin before any has ended, whoever runs them.
        let claims = futures::future::join_all(clients.iter().map(|client| client.claim(2))).await;
        let mut given = Vec::new();
        for claim in claims {
            given.extend(claim?.into_iter().map(|lease| lease.job.id));
        }
        must_eq!(given, [id], "jobs given in round {round}");
    }
    Ok(())
}

async fn gives_no_job_again_before_it_was_recovered(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.advance(LEASE * 3);
    must_eq!(t.claim(1).await?.len(), 0);
    must_eq!(t.recover(token_of(&lease), LOST_ATTEMPT).await?, leasehold_core::backend::Answer::Applied);
    must_eq!(t.take().await?.job.id, lease.job.id);
    Ok(())
}

async fn shows_the_job_it_gives(t: Bench) -> Kept {
    let id = t.add(job().priority(4)).await?;
    t.advance(secs(3));
    let lease = t.take().await?;
    must_eq!(lease.job.id, id);
    must_eq!(lease.lease, LEASE);
    must_eq!(lease.job, t.find(id).await?);
    must_eq!((lease.job.state, lease.job.attempt), (State::Running, 1));
    must_eq!((lease.job.worker, lease.job.started_at), (Some(t.worker), Some(t.hour())));
    must_eq!(lease.job.lease_until, Some(t.hour().plus(LEASE)));
    Ok(())
}

async fn spends_an_attempt_with_each_claim(t: Bench) -> Kept {
    t.add(job()).await?;
    for attempt in 1..=5 {
        let lease = t.take().await?;
        must_eq!(lease.job.attempt, attempt);
        t.finish(&lease, RETRY).await?;
        must_eq!(t.find(lease.job.id).await?.attempt, attempt, "attempts spent after the retry");
    }
    Ok(())
}

async fn gives_the_attempt_back_on_release(t: Bench) -> Kept {
    t.add(job().max_attempts(2)).await?;
    for _ in 0..5 {
        let lease = t.take().await?;
        must_eq!(lease.job.attempt, 1);
        t.finish(&lease, RELEASE).await?;
        must_eq!(t.find(lease.job.id).await?.attempt, 0, "attempts spent after the release");
    }
    t.finish(&t.take().await?, RETRY).await?;
    let lease = t.take().await?;
    must_eq!(lease.job.attempt, 2);
    t.finish(&lease, release_for(secs(5))).await?;
    t.advance(secs(5));
    must_eq!(t.take().await?.job.attempt, 2, "the attempt after a snooze");
    Ok(())
}

async fn ends_a_job_when_its_attempts_are_spent(t: Bench) -> Kept {
    let id = t.add(job().max_attempts(3)).await?;
    for attempt in 1..=3 {
        must_eq!(t.state(id).await?, State::Queued, "before attempt {attempt} of 3");
        let lease = t.take().await?;
        must_eq!(lease.job.attempt, attempt);
        t.finish(&lease, RETRY).await?;
    }
    let job = t.find(id).await?;
    must_eq!((job.state, job.reason, job.attempt), (State::Failed, Some(Reason::MaxAttempts), 3));
    must_eq!(t.claim(1).await?.len(), 0);
    Ok(())
}

async fn gives_out_no_job_without_attempts(t: Bench) -> Kept {
    let spent = t.hold_this(job().max_attempts(1)).await?;
    t.finish(&spent, RETRY).await?;
    let crashed = t.hold_this(job().max_attempts(1)).await?;
    t.lose(&crashed, LOST_ATTEMPT).await?;
    let good = t.add(job().max_attempts(1)).await?;
    let given: Vec<JobId> = t.claim_all(1).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [good]);
    Ok(())
}

async fn gives_at_most_as_many_as_asked_for(t: Bench) -> Kept {
    t.add_all(jobs(10)).await?;
    must_eq!(t.claim(0).await?.len(), 0);
    let three = t.claim(3).await?;
    must_eq!(three.len(), 3);
    let tokens: BTreeSet<_> = three.iter().map(|lease| lease.token).collect();
    must_eq!(tokens.len(), 3, "distinct tokens");
    must_eq!(t.claim(100).await?.len(), 7);
    must_eq!(t.claim(100).await?.len(), 0);
    Ok(())
}

async fn fills_its_claims_from_a_large_backlog(t: Bench) -> Kept {
    t.add_all(jobs(10_000)).await?;
    for left in (0..10_000).step_by(250).rev() {
        let leases = t.claim(250).await?;
        must_eq!(leases.len(), 250, "jobs given of {}", left + 250);
        let settled = leases.iter().map(|lease| crate::bench::settlement(lease, SUCCEED)).collect();
        t.settle_all(settled).await?;
    }
    must_eq!(t.counts().await?.of(State::Succeeded), 10_000);
    Ok(())
}

async fn gives_the_token_that_the_claim_named(t: Bench) -> Kept {
    t.add_all(jobs(3)).await?;
    let claim = t.asking(3);
    let leases = t.claim_as(claim.clone()).await?;
    must_eq!(leases.len(), 3);
    for lease in leases {
        must_eq!(lease.token, claim.id.token(lease.job.id));
        must_be!(t.renew(&lease, LEASE).await?, Renewed::Held { .. });
    }
    Ok(())
}

async fn finds_a_lost_claim_by_its_id(t: Bench) -> Kept {
    t.add_all(jobs(10)).await?;
    let claim = t.asking(4);
    let first = t.claim_as(claim.clone()).await?;
    let again = t.another().await?.claim_as(claim.clone()).await?;
    must_eq!(ids(&again), ids(&first));
    must_eq!(
        again.iter().map(|l| l.token).collect::<Vec<_>>(),
        first.iter().map(|l| l.token).collect::<Vec<_>>()
    );
    let partial = Claim { id: ClaimId::generate(), limit: 100, ..claim };
    let rest = t.claim_as(partial.clone()).await?;
    must_eq!(rest.len(), 6);
    t.add_all(jobs(5)).await?;
    must_eq!(ids(&t.claim_as(partial).await?), ids(&rest), "jobs of a claim that had not been filled");
    Ok(())
}

fn ids(leases: &[leasehold_core::LeasedJob]) -> BTreeSet<JobId> {
    leases.iter().map(|lease| lease.job.id).collect()
}

async fn finds_what_is_left_of_a_lost_claim(t: Bench) -> Kept {
    t.add_all(jobs(6)).await?;
    let claim = t.asking(3);
    let first = t.claim_as(claim.clone()).await?;
    must_eq!(first.len(), 3);
    t.finish(&first[0], SUCCEED).await?;
    let again = t.claim_as(claim).await?;
    must_eq!(ids(&again), ids(&first[1..]));
    Ok(())
}

async fn gives_nothing_to_a_claim_that_is_over(t: Bench) -> Kept {
    for verdict in [SUCCEED, RELEASE] {
        t.add(job()).await?;
        let claim = t.asking(1);
        let first = t.claim_as(claim.clone()).await?;
        t.finish(&first[0], verdict).await?;
        t.add(job()).await?;
        t.advance(limits::CLAIM_MEMORY);
        must_eq!(
            ids(&t.another().await?.claim_as(claim).await?),
            BTreeSet::new(),
            "a claim that came a second time"
        );
        let others = t.claim(9).await?;
        must!(!others.is_empty(), "nobody else was given the jobs");
        for lease in &others {
            t.finish(lease, SUCCEED).await?;
        }
    }
    Ok(())
}

async fn gives_a_repeated_claim_no_more_than_at_first(t: Bench) -> Kept {
    let limited = || job().limit(limit_key("one at a time"), 1);
    t.add_all([limited(), limited()]).await?;
    let claim = t.asking(2);
    let given = t.claim_as(claim.clone()).await?;
    must_eq!(given.len(), 1, "jobs of a key that allows one");
    t.finish(&given[0], SUCCEED).await?;
    must_eq!(t.claim_as(claim).await?.len(), 0, "jobs that the claim was not given the first time");
    must_eq!(t.claim(2).await?.len(), 1, "jobs that another claim is given");
    Ok(())
}

async fn spends_nothing_on_a_repeated_claim(t: Bench) -> Kept {
    t.add(job()).await?;
    let claim = t.asking(1);
    t.claim_as(claim.clone()).await?;
    t.advance(secs(10));
    let again = t.claim_as(claim).await?;
    must_eq!(again.len(), 1);
    must_eq!(again[0].job.attempt, 1);
    must_eq!(again[0].job.lease_until, Some(t.hour().plus(LEASE - secs(10))));
    must_eq!(again[0].lease, LEASE, "the length of the lease, whoever counts from when it first asked");
    Ok(())
}

async fn gives_a_job_at_the_moment_it_is_due(t: Bench) -> Kept {
    let id = t.add(job().delay(secs(10))).await?;
    must_eq!(t.state(id).await?, State::Scheduled);
    t.advance(millis(9_999));
    must_eq!(t.claim(1).await?.len(), 0, "jobs given a millisecond too soon");
    must_eq!(t.state(id).await?, State::Scheduled);
    t.advance(millis(1));
    must_eq!(t.state(id).await?, State::Queued);
    must_eq!(t.take().await?.job.id, id);
    Ok(())
}

async fn judges_time_by_its_own_clock(t: Bench) -> Kept {
    must_eq!(t.backend().now(in_time(0)).await?, t.hour());
    // The store's clock stands in 2001: by the host's clock everything below is long past.
    let id = t.add(job().run_at(t.hour().plus(secs(3_600)))).await?;
    must_eq!(t.find(id).await?.enqueued_at, t.hour());
    must_eq!(t.claim(1).await?.len(), 0);
    t.advance(secs(3_600));
    let lease = t.take().await?;
    must_eq!(lease.job.lease_until, Some(t.hour().plus(LEASE)));
    must_eq!(t.expired(10).await?.len(), 0);
    must_eq!(t.backend().now(in_time(0)).await?, t.hour());
    Ok(())
}

async fn holds_a_lease_to_its_last_moment(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.advance(LEASE);
    must_eq!(t.expired(10).await?.len(), 0, "leases that ran out at their very end");
    let answer = t.recover(token_of(&lease), LOST_ATTEMPT).await?;
    must_eq!(answer, leasehold_core::backend::Answer::Lost);
    t.advance(millis(1));
    must_eq!(t.expired(10).await?.len(), 1, "leases that ran out a millisecond later");
    Ok(())
}

async fn prefers_the_lease_of_the_job(t: Bench) -> Kept {
    t.add_all([job().lease(secs(5)), job()]).await?;
    let leases = t.claim(2).await?;
    must_eq!(leases.iter().map(|lease| lease.lease).collect::<Vec<_>>(), [secs(5), LEASE]);
    must_eq!(leases[0].job.lease_until, Some(t.hour().plus(secs(5))));
    t.advance(millis(5_001));
    let expired = t.expired(10).await?;
    must_eq!(expired.iter().map(|lease| lease.job).collect::<Vec<_>>(), [leases[0].job.id]);
    Ok(())
}

async fn keeps_leases_when_its_clock_is_set_back(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.clock().set(t.hour().minus(secs(600)));
    must_eq!(t.claim(1).await?.len(), 0);
    must_eq!(t.expired(10).await?.len(), 0);
    must_be!(t.renew(&lease, LEASE).await?, Renewed::Held { .. });
    t.finish(&lease, SUCCEED).await?;
    Ok(())
}

async fn never_says_to_wait_too_long(t: Bench) -> Kept {
    t.add_all([job().delay(secs(50)), job().delay(secs(20)), job()]).await?;
    let claim = Claim { worker: WorkerId::generate(), ..t.asking(10) };
    let claimed = t.backend().claim(in_time(0), claim).await?;
    must_eq!(claimed.jobs.len(), 1);
    if let Some(wait) = claimed.next_due {
        must!(wait <= secs(20), "the next job is due in 20 s, and it says {wait:?}");
    }
    Ok(())
}
