//! C9, where a job ends rather than waits for room.

use std::time::Duration;

use leasehold_core::backend::{Action, Claim, EnqueueAnswer, TagRule};
use leasehold_core::{Due, JobId, Keep, NewJob, Reason, Retention, State, UniqueScope, limits};

use crate::bench::{
    Bench, FAIL, SUCCEED, in_time, job, kind, kinds, limit_key, queue, secs, tag, tags, unique_key,
};
use crate::breach::{Done, Kept, Trouble, must, must_be, must_eq};
use crate::case::cases;

cases! {
    /// A job that would be given out, for which there is no room and which says so, ends as cancelled, with the reason.
    [C9, S1, F5] ends_a_job_that_would_wait_for_room;
    /// Of those that come at once as many are given out as there is room for, in order, and the rest ends.
    [C9, C6, S2] gives_what_there_is_room_for_and_ends_the_rest;
    /// One that is behind what a claim was given in full is not judged yet.
    [C9, C6] judges_no_job_before_its_turn;
    /// What the claim does not match, what is not due and what lies in a paused queue is not judged.
    [C9, C7, C10] judges_no_job_that_would_not_be_given;
    /// Of one key some wait and some end, as each says.
    [C9] lets_each_job_say_whether_it_waits;
    /// One that ended so frees its unique key, and can be sent round again.
    [C9, P4, S1] lets_go_of_all_that_it_held;
    /// However many there are, a claim ends no more of them than was said, and they stand before no other for ever.
    [C9, C7] ends_them_in_bounded_batches;
    /// Who finds nothing but those that end is told to ask again at once, as long as there may be more behind them.
    [C9, C6, C7] tells_to_ask_again_as_long_as_they_hide_another;
    /// Workers that race run no more than may, and every other job has ended so.
    [C9, S2] runs_or_ends_every_job_of_a_race needs [StrictLimits];
}

fn ending(max: u32) -> NewJob {
    job().limit_or_end(limit_key("key"), max)
}

async fn ended(t: &Bench, id: JobId) -> Done<bool> {
    let job = t.find(id).await?;
    match (job.state, job.reason) {
        (State::Cancelled, Some(Reason::LimitReached)) => Ok(true),
        (State::Queued | State::Scheduled | State::Running | State::Succeeded, _) => Ok(false),
        other => Err(Trouble::Unmet(format!("a job without room is {other:?}"))),
    }
}

async fn ends_a_job_that_would_wait_for_room(t: Bench) -> Kept {
    let lease = t.hold_this(ending(1)).await?;
    let cancelled = Keep::For(secs(60));
    let id = t.add(ending(1).retention(Retention { cancelled, ..Retention::default() })).await?;
    must!(!ended(&t, id).await?, "it was judged before any claim");
    must_eq!(t.another().await?.claim(5).await?.len(), 0);
    must!(ended(&t, id).await?, "a job without room still waits");
    let job = t.find(id).await?;
    let (now, over) = (t.hour(), t.hour().plus(secs(60)));
    must_eq!((job.finished_at, job.expires_at, job.attempt), (Some(now), Some(over), 0));
    t.finish(&lease, SUCCEED).await?;
    must_eq!(t.claim(5).await?.len(), 0, "jobs given when there was room again");
    let next = t.add(ending(1)).await?;
    must_eq!(t.take().await?.job.id, next);
    let counts = t.counts().await?;
    must_eq!((counts.of(State::Cancelled), counts.of(State::Running), counts.of(State::Queued)), (1, 1, 0));
    Ok(())
}

async fn gives_what_there_is_room_for_and_ends_the_rest(t: Bench) -> Kept {
    let ids =
        t.add_all([ending(2), ending(2).priority(1), ending(2), ending(2).priority(2), ending(2)]).await?;
    let plain = t.add(job()).await?;
    let given: Vec<JobId> = t.claim(10).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [ids[3], ids[1], plain]);
    for id in [ids[0], ids[2], ids[4]] {
        must!(ended(&t, id).await?, "a job beyond the room did not end");
    }
    let counts = t.counts().await?;
    must_eq!((counts.enqueued, counts.of(State::Cancelled), counts.of(State::Running)), (6, 3, 3));
    Ok(())
}

async fn judges_no_job_before_its_turn(t: Bench) -> Kept {
    t.hold_this(ending(1)).await?;
    let first = t.add(ending(1).priority(2)).await?;
    let plain = t.add(job().priority(1)).await?;
    let behind = t.add(ending(1)).await?;
    let given = t.claim(1).await?;
    must_eq!(given.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), [plain]);
    must!(ended(&t, first).await?, "a job without room, before the one that was given, did not end");
    must!(!ended(&t, behind).await?, "a job was judged behind what the claim was given");
    must_eq!(t.claim(1).await?.len(), 0);
    must!(ended(&t, behind).await?, "a job without room still waits");
    Ok(())
}

async fn judges_no_job_that_would_not_be_given(t: Bench) -> Kept {
    t.hold_this(ending(1)).await?;
    let mut other_kind = ending(1);
    other_kind.kind = kind("other");
    let others = [
        other_kind,
        ending(1).tag(tag("a")),
        ending(1).queue(queue("elsewhere")),
        ending(1).queue(queue("paused")),
        ending(1).delay(secs(10)),
        ending(1).priority(-1),
    ];
    let ids = t.add_all(others).await?;
    t.pause(&queue("paused"), true).await?;
    let mut claim = Claim::new(t.worker, [queue("default"), queue("paused")], 5, secs(60));
    claim.kinds = leasehold_core::backend::KindRule::Only(kinds(&["work"]));
    claim.tags = TagRule::WorkerHasAll(tags(&["b"]));
    claim.min_priority = Some(0);
    must_eq!(t.claim_as(claim).await?.len(), 0);
    for (n, id) in ids.iter().enumerate() {
        must!(!ended(&t, *id).await?, "job {n} was judged by a claim that would not be given it");
    }
    t.advance(secs(10));
    t.pause(&queue("paused"), false).await?;
    let all = Claim::new(t.worker, ["default", "paused", "elsewhere"].map(queue), 5, secs(60));
    must_eq!(t.claim_as(all).await?.len(), 0);
    for id in ids {
        must!(ended(&t, id).await?, "a job without room still waits");
    }
    Ok(())
}

async fn lets_each_job_say_whether_it_waits(t: Bench) -> Kept {
    let running = t.hold_this(ending(1)).await?;
    let waits = t.add(job().limit(limit_key("key"), 1)).await?;
    let ends = t.add(ending(1)).await?;
    let generous = t.add(ending(2)).await?;
    let given: Vec<JobId> = t.claim(5).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [generous]);
    must!(
        ended(&t, ends).await? && !ended(&t, waits).await?,
        "one that waits ended, or one that ends waited"
    );
    t.finish(&running, FAIL).await?;
    must_eq!(t.claim(5).await?.len(), 0, "jobs given beside a generous one");
    must_eq!(t.state(waits).await?, State::Queued);
    Ok(())
}

async fn lets_go_of_all_that_it_held(t: Bench) -> Kept {
    let running = t.hold_this(ending(1)).await?;
    let keyed = || ending(1).unique(unique_key("unique"), UniqueScope::UntilFinished);
    let id = t.add(keyed()).await?;
    must_eq!(t.claim(5).await?.len(), 0);
    must!(ended(&t, id).await?, "a job without room still waits");
    let told = t.enqueue([keyed()]).await?;
    must_be!(told[0].answer, EnqueueAnswer::Created);
    t.amend(told[0].job, Action::Delete).await?;
    t.finish(&running, SUCCEED).await?;
    t.amend(id, Action::Requeue { due: Due::Now }).await?;
    must_eq!(t.take().await?.job.id, id);
    Ok(())
}

async fn ends_them_in_bounded_batches(t: Bench) -> Kept {
    const MORE: usize = limits::ENDED_BY_A_CLAIM + 200;
    t.hold_this(ending(1)).await?;
    for _ in 0..MORE / 200 {
        t.add_all((0..200).map(|_| ending(1).priority(1))).await?;
    }
    let plain = t.add(job()).await?;
    let (mut before, mut claims, mut given) = (0, 0, Vec::new());
    while before < MORE as u64 {
        given.extend(t.claim(1).await?.into_iter().map(|lease| lease.job.id));
        let ended = t.counts().await?.of(State::Cancelled);
        must!(ended - before <= limits::ENDED_BY_A_CLAIM as u64, "one claim ended {} jobs", ended - before);
        must!(claims < 500, "after {claims} claims {} jobs without room still wait", MORE as u64 - ended);
        (before, claims) = (ended, claims + 1);
    }
    given.extend(t.claim(1).await?.into_iter().map(|lease| lease.job.id));
    must_eq!(given, [plain]);
    Ok(())
}

async fn tells_to_ask_again_as_long_as_they_hide_another(t: Bench) -> Kept {
    t.hold_this(ending(1)).await?;
    for many in [20, limits::ENDED_BY_A_CLAIM + 100] {
        let mut left = many;
        while left > 0 {
            let some = left.min(200);
            t.add_all((0..some).map(|_| ending(1).priority(1))).await?;
            left -= some;
        }
        let plain = t.add(job()).await?;
        let mut claims = 0;
        let given = loop {
            let claimed = t.backend().claim(in_time(1), t.asking(1)).await?;
            if let Some(lease) = claimed.jobs.first() {
                break lease.job.id;
            }
            must_eq!(claimed.next_due, Some(Duration::ZERO), "until a job behind {many} without room is due");
            claims += 1;
            must!(claims < 200, "{claims} claims were not given a job behind {many} without room");
        };
        must_eq!(given, plain);
    }
    Ok(())
}

async fn runs_or_ends_every_job_of_a_race(t: Bench) -> Kept {
    const JOBS: usize = 40;
    let mut workers = Vec::new();
    for client in t.several(4).await? {
        workers.push(tokio::spawn(async move {
            let mut ran = 0;
            for _ in 0..JOBS / 4 {
                client.enqueue([ending(2)]).await?;
                let leases = client.claim(2).await?;
                let running = client.counts().await?.of(State::Running);
                if running > 2 {
                    return Err(Trouble::Unmet(format!("{running} jobs ran at once of a key that allows 2")));
                }
                ran += leases.len();
                for lease in leases {
                    client.finish(&lease, SUCCEED).await?;
                }
            }
            Ok::<_, Trouble>(ran)
        }));
    }
    let mut ran = 0;
    for worker in workers {
        ran += worker.await??;
    }
    for lease in t.claim_all(2).await? {
        t.finish(&lease, SUCCEED).await?;
        ran += 1;
    }
    // The last claims may have held all the room between them.
    for lease in t.claim_all(2).await? {
        t.finish(&lease, SUCCEED).await?;
        ran += 1;
    }
    let counts = t.counts().await?;
    must_eq!((counts.of(State::Succeeded), counts.of(State::Running)), (ran as u64, 0));
    must_eq!(
        counts.of(State::Succeeded) + counts.of(State::Cancelled),
        JOBS as u64,
        "jobs that ran or ended"
    );
    must!(ran > 0, "none ran");
    Ok(())
}
