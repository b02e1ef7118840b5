//! S3: what is tried again in another queue.

use leasehold_core::backend::{Action, Answer, Renewed, Settlement};
use leasehold_core::{JobId, QueueName, Reason, State, UniqueScope};

use crate::bench::{
    Bench, LEASE, SUCCEED, failure, job, limit_key, millis, queue, retry_elsewhere, secs, settlement,
    token_of, unique_key,
};
use crate::breach::{Done, Kept, must_be, must_eq};
use crate::case::cases;

cases! {
    /// A retry into another queue changes queue, due time and reason, and nothing else.
    [S3] changes_the_queue_on_a_retry_elsewhere;
    /// It is given from the other queue alone, and not before its time.
    [S3, C7, C8] gives_a_retried_job_from_its_new_queue;
    /// The counts of both queues add up.
    [S3, S2, F4] adds_up_when_a_retry_changes_the_queue;
    /// To settle so again changes nothing, and neither does one who lost the lease.
    [S3, C2, E2] sends_a_job_elsewhere_once;
    /// One that ends in place of waiting ends where it is.
    [S3, S5, C4] leaves_a_job_that_ends_where_it_is;
    /// Its place under a limit is free, its unique key is not.
    [S3, C9, P4] frees_the_slot_and_keeps_the_key_of_a_job_sent_elsewhere;
    /// It waits in a paused queue, and under a paused root.
    [S3, C10] keeps_to_the_pause_of_the_other_queue;
    /// One call may send jobs to several queues, their own among them, and settle others otherwise.
    [S3, C11] sends_a_batch_to_several_queues;
}

fn there() -> QueueName {
    queue("there")
}

/// What a queue counts: waiting or running, ever taken in, and gone.
async fn counted(t: &Bench, queue: &QueueName) -> Done<(u64, u64, u64)> {
    let counts = t.counts_of(queue).await?;
    Ok((counts.total(), counts.enqueued, counts.deleted))
}

async fn changes_the_queue_on_a_retry_elsewhere(t: Bench) -> Kept {
    let job = job().priority(3).header("a", "b").lease(secs(30)).tag(crate::bench::tag("t"));
    let lease = t.hold_this(job).await?;
    t.advance(secs(2));
    t.settle_failing(&lease, retry_elsewhere(&there(), secs(8)), failure("io", "broken")).await?;
    let mut wanted = lease.job.clone();
    (wanted.queue, wanted.state) = (there(), State::Scheduled);
    wanted.reason = Some(Reason::RetryRequested);
    wanted.due = t.hour().plus(secs(8));
    wanted.lease_until = None;
    let found = t.find(lease.job.id).await?;
    must_eq!(found.history.len(), 1);
    must_eq!(found.history[0].attempt, 1);
    wanted.history.clone_from(&found.history);
    must_eq!(found, wanted);
    Ok(())
}

async fn gives_a_retried_job_from_its_new_queue(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.finish(&lease, retry_elsewhere(&there(), secs(10))).await?;
    t.advance(millis(9_999));
    must_eq!(t.claim_from(&there(), 1).await?.len(), 0, "jobs given before the retry's time");
    t.advance(millis(1));
    must_eq!(t.claim(1).await?.len(), 0, "jobs given from the queue that it left");
    let given = t.claim_from(&there(), 2).await?;
    must_eq!(given.len(), 1);
    must_eq!((given[0].job.id, given[0].job.attempt), (lease.job.id, 2));
    must_eq!(given[0].job.queue, there());
    t.finish(&given[0], SUCCEED).await?;
    must_eq!(t.find(lease.job.id).await?.queue, there());
    Ok(())
}

async fn adds_up_when_a_retry_changes_the_queue(t: Bench) -> Kept {
    let here = QueueName::default();
    let lease = t.hold().await?;
    must_eq!(counted(&t, &here).await?, (1, 1, 0));
    t.finish(&lease, retry_elsewhere(&there(), secs(0))).await?;
    must_eq!((counted(&t, &here).await?, counted(&t, &there()).await?), ((0, 1, 1), (1, 1, 0)));
    must_eq!(t.counts_of(&there()).await?.of(State::Queued), 1);
    let lease = t.claim_from(&there(), 1).await?.remove(0);
    must_eq!(t.counts_of(&there()).await?.of(State::Running), 1);
    // And back.
    t.finish(&lease, retry_elsewhere(&here, secs(5))).await?;
    must_eq!((counted(&t, &here).await?, counted(&t, &there()).await?), ((1, 2, 1), (0, 1, 1)));
    must_eq!(t.counts().await?.of(State::Scheduled), 1);
    // Into the queue that it is in, it leaves nothing.
    t.advance(secs(5));
    let lease = t.take().await?;
    t.finish(&lease, retry_elsewhere(&here, secs(0))).await?;
    must_eq!(counted(&t, &here).await?, (1, 2, 1));
    let queues = t.all_counts().await?.into_iter().map(|counts| counts.queue);
    must_eq!(queues.filter(|queue| *queue == there()).count(), 1);
    Ok(())
}

async fn sends_a_job_elsewhere_once(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let elsewhere = || retry_elsewhere(&there(), secs(0));
    must_eq!(t.settle(&lease, elsewhere()).await?, Answer::Applied);
    must_eq!(t.settle(&lease, elsewhere()).await?, Answer::AlreadyApplied);
    must_eq!(counted(&t, &there()).await?, (1, 1, 0));
    must_be!(t.renew(&lease, LEASE).await?, Renewed::Lost);
    let next = t.claim_from(&there(), 1).await?.remove(0);
    must_eq!(t.settle(&lease, retry_elsewhere(&queue("third"), secs(0))).await?, Answer::AlreadyApplied);
    t.lose(&next, crate::bench::LOST_ATTEMPT).await?;
    must_eq!(t.settle(&next, retry_elsewhere(&queue("third"), secs(0))).await?, Answer::Lost);
    let job = t.find(lease.job.id).await?;
    must_eq!((job.queue, job.attempt), (there(), 2));
    must_eq!(counted(&t, &queue("third")).await?, (0, 0, 0));
    must_eq!(counted(&t, &there()).await?, (1, 1, 0));
    Ok(())
}

async fn leaves_a_job_that_ends_where_it_is(t: Bench) -> Kept {
    let here = QueueName::default();
    let asked = t.hold().await?;
    t.amend(asked.job.id, Action::Cancel).await?;
    t.finish(&asked, retry_elsewhere(&there(), secs(0))).await?;
    let last = t.hold_this(job().max_attempts(1)).await?;
    t.finish(&last, retry_elsewhere(&there(), secs(0))).await?;
    for (lease, state) in [(asked, State::Cancelled), (last, State::Failed)] {
        let job = t.find(lease.job.id).await?;
        must_eq!((job.state, job.queue), (state, here.clone()));
    }
    must_eq!((counted(&t, &here).await?, counted(&t, &there()).await?), ((2, 2, 0), (0, 0, 0)));
    Ok(())
}

async fn frees_the_slot_and_keeps_the_key_of_a_job_sent_elsewhere(t: Bench) -> Kept {
    let limited = || job().limit(limit_key("key"), 1);
    let first = limited().unique(unique_key("one"), UniqueScope::UntilFinished);
    let lease = t.hold_this(first).await?;
    t.add(limited()).await?;
    must_eq!(t.claim(1).await?.len(), 0);
    t.finish(&lease, retry_elsewhere(&there(), secs(0))).await?;
    let second = t.take().await?;
    must_eq!(t.claim_from(&there(), 1).await?.len(), 0, "jobs given over their limit");
    t.finish(&second, SUCCEED).await?;
    let newcomer = job().queue(queue("third")).unique(unique_key("one"), UniqueScope::UntilFinished);
    let answer = t.enqueue([newcomer.clone()]).await?.remove(0);
    must_eq!(answer.job, lease.job.id, "the holder of the key");
    let again = t.claim_from(&there(), 1).await?;
    must_eq!(again.len(), 1);
    t.finish(&again[0], SUCCEED).await?;
    must_eq!(t.enqueue([newcomer.clone()]).await?.remove(0).job, newcomer.id);
    Ok(())
}

async fn keeps_to_the_pause_of_the_other_queue(t: Bench) -> Kept {
    for (other, paused) in [(there(), there()), (queue("under/it"), queue("under/"))] {
        t.pause(&paused, true).await?;
        let lease = t.hold().await?;
        t.finish(&lease, retry_elsewhere(&other, secs(0))).await?;
        must_eq!(t.claim_from(&other, 1).await?.len(), 0, "jobs given from a paused queue");
        t.pause(&paused, false).await?;
        let given = t.claim_from(&other, 1).await?;
        must_eq!(given.first().map(|given| given.job.id), Some(lease.job.id));
    }
    Ok(())
}

async fn sends_a_batch_to_several_queues(t: Bench) -> Kept {
    let queues = [QueueName::default(), queue("a"), queue("b")];
    t.add_all((0..30).map(|_| job())).await?;
    let leases = t.claim(30).await?;
    let settlement = |(n, lease): (usize, &leasehold_core::LeasedJob)| match n % 4 {
        3 => settlement(lease, SUCCEED),
        n => settlement(lease, retry_elsewhere(&queues[n], secs(0))),
    };
    let batch: Vec<Settlement> = leases.iter().enumerate().map(settlement).collect();
    let answers = t.settle_all(batch.clone()).await?;
    must_eq!(answers, vec![Answer::Applied; 30]);
    must_eq!(t.settle_all(batch).await?, vec![Answer::AlreadyApplied; 30]);
    must_eq!(counted(&t, &queues[0]).await?, (15, 30, 15));
    must_eq!((counted(&t, &queues[1]).await?, counted(&t, &queues[2]).await?), ((8, 8, 0), (7, 7, 0)));
    must_eq!(t.counts().await?.of(State::Succeeded), 7);
    let given = t.claim_from(&queues[1], 30).await?;
    let wanted: Vec<JobId> = leases.iter().skip(1).step_by(4).map(|lease| lease.job.id).collect();
    must_eq!(given.iter().map(|lease| token_of(lease).0).collect::<Vec<_>>(), wanted);
    Ok(())
}
