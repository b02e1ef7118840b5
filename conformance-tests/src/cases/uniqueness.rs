//! P4: one job at a time holds a unique key.

use std::collections::BTreeMap;

use leasehold_core::backend::{Action, AmendAnswer, EnqueueAnswer, Enqueued, Verdict};
use leasehold_core::{Due, JobId, NewJob, Reason, UniqueScope};
use tokio::time::Instant;

use crate::bench::{Bench, CANCEL, FAIL, RELEASE, RETRY, SUCCEED, job, jobs, millis, secs, unique_key};
use crate::breach::{Done, Kept, must, must_be, must_eq};
use crate::case::cases;

cases! {
    /// The one who comes second is told the id of the job that holds the key, by whichever client it asks.
    [P4] tells_who_holds_a_key;
    /// Of jobs of one batch that share a key the first gets in; the others learn its id.
    [P4, P3] lets_the_first_of_a_batch_in;
    /// A duplicate spoils no other job of its batch.
    [P4, P3] takes_the_rest_of_a_batch_with_a_duplicate;
    /// A key held until the job is claimed is free once it was, and is not taken again by a retry.
    [P4] frees_a_key_once_its_job_is_claimed;
    /// A key held until the job has ended stays held while it waits, runs and is retried.
    [P4] holds_a_key_until_its_job_has_ended;
    /// A key held until the job has ended is free however it ended.
    [P4] frees_a_key_however_its_job_ends;
    /// A key held for a period is held as long by the store's clock, ended or not, and no longer.
    [P4, C8] holds_a_key_for_its_period;
    /// Deleting a job frees its key, whatever its scope.
    [P4] frees_the_key_of_a_deleted_job;
    /// A repeated enqueue is told that its job exists, not that the key is held.
    [P4, P2, E2] knows_the_id_before_it_asks_for_the_key;
    /// An ended job that is sent round again takes its key again, or is refused if another has it by now.
    [P4, S1] takes_the_key_again_when_its_job_is_requeued;
    /// Of any number of producers at once exactly one gets in per key, and all others learn its id.
    [P4] lets_one_of_racing_producers_in;
    /// The same holds where the holder ends and others race for the key again and again.
    [P4, S2] never_lets_two_live_jobs_hold_a_key;
}

fn keyed(scope: UniqueScope) -> NewJob {
    job().unique(unique_key("key"), scope)
}

/// Whether a newcomer finds the key free, and if not, who holds it. The newcomer does not stay.
async fn holder(t: &Bench) -> Done<Option<JobId>> {
    let answers = t.enqueue([keyed(UniqueScope::UntilFinished)]).await?;
    if answers[0].is_created() {
        t.amend(answers[0].job, Action::Delete).await?;
        return Ok(None);
    }
    Ok(Some(answers[0].job))
}

async fn tells_who_holds_a_key(t: Bench) -> Kept {
    let first = t.add(keyed(UniqueScope::UntilFinished)).await?;
    for client in t.several(3).await? {
        let answers = client.enqueue([keyed(UniqueScope::UntilClaimed)]).await?;
        must_be!(answers[0].answer, EnqueueAnswer::Held);
        must_eq!(answers[0].job, first);
    }
    let other = t.enqueue([job().unique(unique_key("other"), UniqueScope::UntilFinished), job()]).await?;
    must!(other.iter().all(Enqueued::is_created), "a job of another key, or of none, was held up");
    must_eq!(t.counts().await?.enqueued, 3);
    Ok(())
}

async fn lets_the_first_of_a_batch_in(t: Bench) -> Kept {
    let batch: Vec<NewJob> = (0..4).map(|_| keyed(UniqueScope::UntilFinished)).collect();
    let first = batch[0].id;
    let answers = t.enqueue(batch).await?;
    must_be!(answers[0].answer, EnqueueAnswer::Created);
    for answer in &answers {
        must_eq!(answer.job, first);
    }
    for answer in &answers[1..] {
        must_be!(answer.answer, EnqueueAnswer::Held);
    }
    must_eq!(t.counts().await?.enqueued, 1);
    Ok(())
}

async fn takes_the_rest_of_a_batch_with_a_duplicate(t: Bench) -> Kept {
    let holder = t.add(keyed(UniqueScope::UntilFinished)).await?;
    let mut batch = jobs(10);
    batch[4] = keyed(UniqueScope::UntilFinished);
    let answers = t.enqueue(batch).await?;
    for (i, answer) in answers.iter().enumerate() {
        must_eq!(answer.is_created(), i != 4, "job {i} of the batch");
    }
    must_eq!(answers[4].job, holder);
    must_eq!(t.counts().await?.enqueued, 10);
    Ok(())
}

async fn frees_a_key_once_its_job_is_claimed(t: Bench) -> Kept {
    let id = t.add(keyed(UniqueScope::UntilClaimed)).await?;
    must_eq!(holder(&t).await?, Some(id));
    let lease = t.take().await?;
    must_eq!(holder(&t).await?, None);
    t.finish(&lease, RETRY).await?;
    must_eq!(holder(&t).await?, None, "the holder after its job was retried");
    let id = t.add(keyed(UniqueScope::UntilClaimed)).await?;
    t.amend(id, Action::Cancel).await?;
    must_eq!(holder(&t).await?, None, "the holder after its job was cancelled and will never be claimed");
    Ok(())
}

async fn holds_a_key_until_its_job_has_ended(t: Bench) -> Kept {
    let id = t.add(keyed(UniqueScope::UntilFinished).delay(secs(10))).await?;
    must_eq!(holder(&t).await?, Some(id));
    t.advance(secs(10));
    for verdict in [RETRY, RELEASE] {
        let lease = t.take().await?;
        must_eq!(holder(&t).await?, Some(id), "the holder while its job runs");
        t.finish(&lease, verdict).await?;
        must_eq!(holder(&t).await?, Some(id), "the holder while its job waits again");
    }
    let lease = t.take().await?;
    t.finish(&lease, SUCCEED).await?;
    must_eq!(holder(&t).await?, None);
    Ok(())
}

async fn frees_a_key_however_its_job_ends(t: Bench) -> Kept {
    for verdict in [SUCCEED, FAIL, CANCEL] {
        let lease = t.hold_this(keyed(UniqueScope::UntilFinished)).await?;
        t.finish(&lease, verdict.clone()).await?;
        must_eq!(holder(&t).await?, None, "the holder after {verdict:?}");
    }
    let id = t.add(keyed(UniqueScope::UntilFinished)).await?;
    must_eq!(t.amend(id, Action::Cancel).await?, AmendAnswer::Applied);
    must_eq!(holder(&t).await?, None, "the holder after its job was cancelled");
    let lease = t.hold_this(keyed(UniqueScope::UntilFinished)).await?;
    t.lose(&lease, Verdict::Fail { reason: Reason::Poison }).await?;
    must_eq!(holder(&t).await?, None, "the holder after its job was poison");
    Ok(())
}

async fn holds_a_key_for_its_period(t: Bench) -> Kept {
    let lease = t.hold_this(keyed(UniqueScope::For(secs(60)))).await?;
    let id = lease.job.id;
    t.advance(secs(30));
    t.finish(&lease, SUCCEED).await?;
    must_eq!(holder(&t).await?, Some(id), "the holder half-way through the period, its job ended");
    t.advance(secs(30));
    must_eq!(holder(&t).await?, Some(id), "the holder at the very end of the period");
    t.advance(millis(1));
    must_eq!(holder(&t).await?, None, "the holder after the period");
    Ok(())
}

async fn frees_the_key_of_a_deleted_job(t: Bench) -> Kept {
    for scope in [UniqueScope::UntilClaimed, UniqueScope::UntilFinished, UniqueScope::For(secs(60))] {
        let id = t.add(keyed(scope)).await?;
        must_eq!(holder(&t).await?, Some(id));
        must_eq!(t.amend(id, Action::Delete).await?, AmendAnswer::Applied);
        must_eq!(holder(&t).await?, None, "the holder with scope {scope:?} after its job was deleted");
    }
    Ok(())
}

async fn knows_the_id_before_it_asks_for_the_key(t: Bench) -> Kept {
    let job = keyed(UniqueScope::UntilFinished);
    t.add(job.clone()).await?;
    let again = t.enqueue([job.clone()]).await?;
    must_be!(again[0].answer, EnqueueAnswer::Existing);
    let lease = t.take().await?;
    t.finish(&lease, SUCCEED).await?;
    let next = t.add(keyed(UniqueScope::UntilFinished)).await?;
    must_be!(t.enqueue([job]).await?[0].answer, EnqueueAnswer::Existing);
    must_eq!(holder(&t).await?, Some(next));
    Ok(())
}

async fn takes_the_key_again_when_its_job_is_requeued(t: Bench) -> Kept {
    let requeue = || Action::Requeue { due: Due::Now };
    let lease = t.hold_this(keyed(UniqueScope::UntilFinished)).await?;
    let id = lease.job.id;
    t.finish(&lease, FAIL).await?;
    let other = t.add(keyed(UniqueScope::UntilFinished)).await?;
    must_eq!(t.amend(id, requeue()).await?, AmendAnswer::Held(other));
    t.amend(other, Action::Delete).await?;
    must_eq!(t.amend(id, requeue()).await?, AmendAnswer::Applied);
    must_eq!(holder(&t).await?, Some(id));
    Ok(())
}

async fn lets_one_of_racing_producers_in(t: Bench) -> Kept {
    let keys: Vec<_> = (0..20).map(|i| unique_key(&format!("key {i}"))).collect();
    let mut producers = Vec::new();
    for client in t.several(8).await? {
        let batch: Vec<NewJob> =
            keys.iter().map(|key| job().unique(key.clone(), UniqueScope::UntilFinished)).collect();
        producers.push(tokio::spawn(async move { client.enqueue(batch).await }));
    }
    let mut winners: BTreeMap<usize, Vec<JobId>> = BTreeMap::new();
    let mut created = 0;
    for producer in producers {
        for (key, answer) in producer.await??.into_iter().enumerate() {
            must_be!(answer.answer, EnqueueAnswer::Created | EnqueueAnswer::Held);
            created += usize::from(answer.is_created());
            winners.entry(key).or_default().push(answer.job);
        }
    }
    must_eq!(created, keys.len());
    for (key, told) in winners {
        must!(told.iter().all(|id| *id == told[0]), "of key {key} several holders were told: {told:?}");
    }
    must_eq!(t.counts().await?.enqueued, 20);
    Ok(())
}

async fn never_lets_two_live_jobs_hold_a_key(t: Bench) -> Kept {
    let mut tasks = Vec::new();
    for client in t.several(4).await? {
        tasks.push(tokio::spawn(async move {
            let (mut begun, mut ended) = (BTreeMap::new(), BTreeMap::new());
            for _ in 0..40 {
                let answer = client.enqueue([keyed(UniqueScope::UntilFinished)]).await?.remove(0);
                if answer.is_created() {
                    begun.insert(answer.job, Instant::now());
                }
                for lease in client.claim(2).await? {
                    ended.insert(lease.job.id, Instant::now());
                    client.settle(&lease, SUCCEED).await?;
                }
            }
            Ok::<_, crate::breach::Trouble>((begun, ended))
        }));
    }
    let (mut begun, mut ended) = (BTreeMap::new(), BTreeMap::new());
    for task in tasks {
        let (more_begun, more_ended) = task.await??;
        begun.extend(more_begun);
        ended.extend(more_ended);
    }
    // Certainly alive from the answer to its enqueue until somebody began to settle it.
    let alive = begun.iter().filter_map(|(job, from)| Some((*from, *ended.get(job)?)));
    let mut alive: Vec<_> = alive.filter(|(from, until)| from < until).collect();
    alive.sort();
    must!(alive.len() > 1, "the key never changed hands");
    must!(alive.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two live jobs held one key");
    Ok(())
}
