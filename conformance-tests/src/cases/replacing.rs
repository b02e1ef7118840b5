//! P4, where a newcomer replaces the job that holds its unique key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use leasehold_core::backend::{Action, EnqueueAnswer, Enqueued, Renewal};
use leasehold_core::{JobId, NewJob, OnConflict, Progress, Reason, State, Unique, UniqueScope, limits};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::bench::{
    Bench, LEASE, RETRY, SUCCEED, job, kind, millis, queue, retry_in, secs, tag, text, unique_key,
};
use crate::breach::{Done, Kept, Trouble, must, must_be, must_eq};
use crate::case::cases;

cases! {
    /// A newcomer that says so gives its payload, priority and due time to the holder of its key, which keeps its id.
    [P4] replaces_what_a_waiting_job_brings;
    /// All else of a replaced job stays as it is: queue, tags, limits, attempts and history; its progress goes.
    [P4, C4, S4] leaves_all_else_of_a_replaced_job;
    /// A replaced job is given out at its new time, be it sooner or later, and where its new priority puts it.
    [P4, C6, C8] gives_a_replaced_job_at_its_new_time;
    /// A holder that runs, or that has ended within its period, is never replaced.
    [P4, C2] replaces_no_job_that_runs_or_has_ended;
    /// A holder of another kind is never replaced: its handler could not read the payload.
    [P4] replaces_no_job_of_another_kind;
    /// A job that is moved to another queue is found there by its key, and stays there.
    [P4] replaces_a_job_that_was_moved;
    /// A debounced job is put off by each newcomer, and no further than was said after the first.
    [P4, C8] puts_a_debounced_job_off_but_not_for_ever;
    /// Within a batch each job meets what those before it left.
    [P4, P3] replaces_within_a_batch;
    /// A newcomer that is enqueued again changes nothing, though others replaced the job since, or it runs or has ended.
    [P4, E2] replaces_once_when_a_newcomer_is_repeated;
    /// So many newcomers are remembered as was said.
    [P4, E2] remembers_the_latest_newcomers;
    /// A newcomer of a job that was deleted is another job when it comes again.
    [P4, P2] forgets_the_newcomers_of_a_deleted_job;
    /// Of 64 producers at once one gets in and all others replace it; while claims race them, every payload that was
    /// acknowledged runs unless a later one of the same job does, and a repeated enqueue changes nothing.
    [P4, E2, S2] loses_no_payload_to_racing_claims;
    /// One runs and one waits, with the newest payload.
    [P4, C9] lets_one_run_and_one_wait_with_the_newest_payload;
    /// The same under racing producers and workers: never do two run at once, and the newest one runs last.
    [P4, C9] runs_the_newest_payload_last needs [StrictLimits];
}

fn bringing(payload: &str) -> NewJob {
    replacing(payload, UniqueScope::UntilFinished)
}

fn replacing(payload: &str, scope: UniqueScope) -> NewJob {
    NewJob::new(kind("work"), text(payload)).replace(unique_key("key"), scope)
}

async fn offer(t: &Bench, job: NewJob) -> Done<Enqueued> {
    t.enqueue([job]).await?.pop().ok_or_else(|| Trouble::Unmet("no answer came".into()))
}

/// Enqueues a job that has to replace this one.
async fn replace(t: &Bench, holder: JobId, job: NewJob) -> Kept {
    let told = offer(t, job).await?;
    must_be!(told.answer, EnqueueAnswer::Replaced);
    must_eq!(told.job, holder, "the job that was replaced");
    Ok(())
}

async fn must_bring(t: &Bench, job: JobId, payload: &str) -> Kept {
    must_eq!(t.find(job).await?.payload, text(payload), "the payload of the replaced job");
    Ok(())
}

async fn replaces_what_a_waiting_job_brings(t: Bench) -> Kept {
    let before = t.hour();
    let id = t.add(bringing("old").priority(1)).await?;
    t.advance(secs(1));
    for client in t.several(2).await? {
        let newcomer = bringing("newer").priority(7).delay(secs(10));
        let gone = newcomer.id;
        replace(&client, id, newcomer).await?;
        must_eq!(t.find_all(&[gone]).await?[0], None, "the job under the newcomer's id");
    }
    let job = t.find(id).await?;
    must_eq!(job.payload, text("newer"));
    must_eq!((job.options.priority, job.due), (7, t.hour().plus(secs(10))));
    must_eq!((job.state, job.reason), (State::Scheduled, Some(Reason::Replaced)));
    must_eq!(job.enqueued_at, before);
    let long = "long ".repeat(100);
    replace(&t, id, bringing(&long)).await?;
    must_bring(&t, id, &long).await?;
    replace(&t, id, bringing("short")).await?;
    must_bring(&t, id, "short").await?;
    let counts = t.counts().await?;
    must_eq!((counts.enqueued, counts.of(State::Queued), counts.of(State::Scheduled)), (1, 1, 0));
    must_eq!(t.take().await?.job.payload, text("short"));
    Ok(())
}

async fn leaves_all_else_of_a_replaced_job(t: Bench) -> Kept {
    let original = bringing("old").tag(tag("a")).max_attempts(3).header("h", "1").lease(secs(9));
    let lease = t.hold_this(original.clone()).await?;
    let progress = Some(Progress { done: 1, ..Progress::default() });
    let (job, token) = (lease.job.id, lease.token);
    t.renew_all(vec![Renewal { job, token, lease: LEASE, progress }]).await?;
    t.settle_failing(&lease, retry_in(secs(60)), crate::bench::failure("broken", "once")).await?;
    let newcomer = bringing("new").tag(tag("b")).max_attempts(7).queue(queue("elsewhere"));
    replace(&t, lease.job.id, newcomer).await?;
    let job = t.find(lease.job.id).await?;
    must_eq!(job.options, original.options);
    must_eq!((job.queue.as_str(), job.attempt, job.history.len()), ("default", 1, 1));
    must_eq!((job.progress, job.state), (None, State::Queued));
    let again = t.take().await?;
    must_eq!((again.job.attempt, again.job.payload), (2, text("new")));
    Ok(())
}

async fn gives_a_replaced_job_at_its_new_time(t: Bench) -> Kept {
    let id = t.add(bringing("later").delay(secs(60))).await?;
    must_eq!(t.claim(1).await?.len(), 0);
    replace(&t, id, bringing("sooner")).await?;
    replace(&t, id, bringing("later again").delay(secs(10))).await?;
    must_eq!(t.claim(1).await?.len(), 0, "jobs given before the new time");
    t.advance(secs(10));
    let other = t.add(job().priority(1)).await?;
    replace(&t, id, bringing("first").priority(2)).await?;
    let given: Vec<JobId> = t.claim(5).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [id, other]);
    Ok(())
}

async fn replaces_no_job_that_runs_or_has_ended(t: Bench) -> Kept {
    let lease = t.hold_this(bringing("old")).await?;
    let told = offer(&t, bringing("new")).await?;
    must_be!(told.answer, EnqueueAnswer::Held);
    must_eq!(told.job, lease.job.id);
    t.finish(&lease, SUCCEED).await?;
    let lease = t.hold_this(replacing("old", UniqueScope::For(secs(60)))).await?;
    t.finish(&lease, SUCCEED).await?;
    must_be!(offer(&t, bringing("new")).await?.answer, EnqueueAnswer::Held);
    must_bring(&t, lease.job.id, "old").await?;
    t.advance(secs(61));
    must_be!(offer(&t, bringing("new")).await?.answer, EnqueueAnswer::Created);
    Ok(())
}

async fn replaces_no_job_of_another_kind(t: Bench) -> Kept {
    let id = t.add(bringing("old")).await?;
    let other =
        NewJob::new(kind("other"), text("new")).replace(unique_key("key"), UniqueScope::UntilFinished);
    let told = offer(&t, other).await?;
    must_be!(told.answer, EnqueueAnswer::Held);
    must_eq!(told.job, id);
    must_bring(&t, id, "old").await?;
    must_eq!(t.find(id).await?.reason, None);
    Ok(())
}

async fn replaces_a_job_that_was_moved(t: Bench) -> Kept {
    let id = t.add(bringing("old")).await?;
    t.amend(id, Action::Move { queue: queue("elsewhere") }).await?;
    replace(&t, id, bringing("new")).await?;
    must_eq!(t.claim(1).await?.len(), 0);
    let given = t.claim_from(&queue("elsewhere"), 1).await?;
    must_eq!(given.len(), 1);
    must_eq!(given[0].job.payload, text("new"));
    Ok(())
}

async fn puts_a_debounced_job_off_but_not_for_ever(t: Bench) -> Kept {
    let put_off = |payload: &str| {
        NewJob::new(kind("work"), text(payload)).debounce(unique_key("key"), secs(10), secs(25))
    };
    let id = t.add(put_off("0")).await?;
    let begun = t.hour();
    for (n, wanted) in [(1, 16), (2, 22), (3, 25), (4, 25)] {
        t.advance(secs(6));
        replace(&t, id, put_off(&n.to_string())).await?;
        must_eq!(t.find(id).await?.due, begun.plus(secs(wanted)), "when it is due after {n} newcomers");
        must_eq!(t.claim(1).await?.len(), 0);
    }
    t.advance(secs(1));
    let lease = t.take().await?;
    must_eq!((lease.job.id, lease.job.payload), (id, text("4")));
    must_be!(offer(&t, put_off("5")).await?.answer, EnqueueAnswer::Created);
    Ok(())
}

async fn replaces_within_a_batch(t: Bench) -> Kept {
    let keep = Unique::new(unique_key("key"), UniqueScope::UntilFinished);
    let kept = NewJob::new(kind("work"), text("kept out")).unique_as(keep.clone());
    let put_off = keep.on_conflict(OnConflict::Debounce { at_most: secs(5) });
    let put_off = NewJob::new(kind("work"), text("last")).unique_as(put_off).delay(secs(60));
    let batch = vec![bringing("first"), job(), bringing("second"), kept, put_off.clone(), put_off, job()];
    let ids: Vec<JobId> = batch.iter().map(|job| job.id).collect();
    let told = t.enqueue(batch).await?;
    for created in [0, 1, 6] {
        must_be!(told[created].answer, EnqueueAnswer::Created);
        must_eq!(told[created].job, ids[created]);
    }
    must_be!(told[3].answer, EnqueueAnswer::Held);
    for replaced in [2, 4, 5] {
        must_be!(told[replaced].answer, EnqueueAnswer::Replaced);
    }
    must!(told[2..6].iter().all(|answer| answer.job == ids[0]), "others were named: {told:?}");
    let job = t.find(ids[0]).await?;
    must_eq!((job.payload, job.due), (text("last"), t.hour().plus(secs(5))));
    must_eq!(t.counts().await?.enqueued, 3);
    Ok(())
}

async fn replaces_once_when_a_newcomer_is_repeated(t: Bench) -> Kept {
    let id = t.add(replacing("0", UniqueScope::UntilClaimed)).await?;
    let (first, second) =
        (replacing("1", UniqueScope::UntilClaimed), replacing("2", UniqueScope::UntilClaimed));
    replace(&t, id, first.clone()).await?;
    t.advance(secs(1));
    replace(&t, id, first.clone()).await?;
    must_eq!(t.find(id).await?.due, t.hour().minus(secs(1)), "when it is due after a repetition");
    replace(&t, id, second.clone()).await?;
    for client in t.several(2).await? {
        replace(&client, id, first.clone()).await?;
        must_bring(&t, id, "2").await?;
    }
    let lease = t.take().await?;
    replace(&t, id, first.clone()).await?;
    must_eq!(t.counts().await?.enqueued, 1, "jobs after a repetition whose job runs");
    let next = t.add(replacing("3", UniqueScope::UntilClaimed)).await?;
    replace(&t, id, second.clone()).await?;
    must_bring(&t, next, "3").await?;
    t.finish(&lease, SUCCEED).await?;
    replace(&t, id, second).await?;
    must_eq!(t.counts().await?.enqueued, 2, "jobs after a repetition whose job has ended");
    Ok(())
}

async fn remembers_the_latest_newcomers(t: Bench) -> Kept {
    let id = t.add(bringing("0")).await?;
    let first = bringing("1");
    replace(&t, id, first.clone()).await?;
    let others = (1..limits::REPLACEMENTS).map(|n| bringing(&format!("{}", n + 1)));
    for told in t.enqueue(others.collect::<Vec<_>>()).await? {
        must_be!(told.answer, EnqueueAnswer::Replaced);
    }
    replace(&t, id, first).await?;
    must_bring(&t, id, &limits::REPLACEMENTS.to_string()).await?;
    Ok(())
}

async fn forgets_the_newcomers_of_a_deleted_job(t: Bench) -> Kept {
    let id = t.add(bringing("0")).await?;
    let newcomer = bringing("1");
    replace(&t, id, newcomer.clone()).await?;
    t.amend(id, Action::Delete).await?;
    t.add(newcomer).await?;
    Ok(())
}

/// What a producer knows of a payload that it offered.
struct Offer {
    payload: String,
    begun: Instant,
    answered: Instant,
    job: JobId,
    created: bool,
}

/// Offers one payload, and again.
async fn offer_twice(t: &Bench, payload: String) -> Done<Offer> {
    let job = replacing(&payload, UniqueScope::UntilClaimed);
    let begun = Instant::now();
    let told = offer(t, job.clone()).await?;
    let (answered, created) = (Instant::now(), told.is_created());
    let again = offer(t, job).await?;
    let same = matches!(
        (&told.answer, &again.answer),
        (EnqueueAnswer::Created, EnqueueAnswer::Existing)
            | (EnqueueAnswer::Replaced, EnqueueAnswer::Replaced)
    );
    if !same || told.job != again.job {
        return Err(Trouble::Unmet(format!("it was answered {told:?}, and when it came again {again:?}")));
    }
    Ok(Offer { payload, begun, answered, job: told.job, created })
}

/// Jobs that ran, and the payload of each.
type Ran = Vec<(JobId, String)>;

/// Has so many workers claim jobs and end them until all is done, and tells which payload each job ran with.
fn claim_until(over: &Arc<AtomicBool>, clients: Vec<Bench>) -> Vec<JoinHandle<Done<Ran>>> {
    let work = |t: Bench| {
        let over = Arc::clone(over);
        tokio::spawn(async move {
            let mut ran = Vec::new();
            loop {
                let last = over.load(Ordering::SeqCst);
                let leases = t.claim(2).await?;
                if last && leases.is_empty() {
                    return Ok(ran);
                }
                for lease in leases {
                    ran.push((
                        lease.job.id,
                        String::from_utf8_lossy(lease.job.payload.as_bytes()).into_owned(),
                    ));
                    t.finish(&lease, SUCCEED).await?;
                }
                tokio::task::yield_now().await;
            }
        })
    };
    clients.into_iter().map(work).collect()
}

async fn loses_no_payload_to_racing_claims(t: Bench) -> Kept {
    let clients = t.several(8).await?;
    for round in 0..3 {
        let over = Arc::new(AtomicBool::new(false));
        let workers = claim_until(&over, t.several(round).await?.into_iter().take(round).collect());
        let mut producers = Vec::new();
        for n in 0..64 {
            let client = clients[n % 8].clone();
            producers.push(tokio::spawn(async move { offer_twice(&client, format!("{round}.{n}")).await }));
        }
        let mut offers = Vec::new();
        for producer in producers {
            offers.push(producer.await??);
        }
        over.store(true, Ordering::SeqCst);
        let mut ran = BTreeMap::new();
        for worker in workers {
            for (job, payload) in worker.await?? {
                must!(ran.insert(job, payload).is_none(), "job {job} ran twice");
            }
        }
        for lease in t.claim_all(5).await? {
            let payload = String::from_utf8_lossy(lease.job.payload.as_bytes()).into_owned();
            must!(ran.insert(lease.job.id, payload).is_none(), "job {} ran twice", lease.job.id);
            t.finish(&lease, SUCCEED).await?;
        }
        judge(&offers, &ran)?;
        must!(round > 0 || ran.len() == 1, "without any claim {} jobs were taken in", ran.len());
    }
    Ok(())
}

/// Each job ran with a payload that was acknowledged for it, and no other one was offered after that.
fn judge(offers: &[Offer], ran: &BTreeMap<JobId, String>) -> Kept {
    let created = offers.iter().filter(|offer| offer.created).count();
    must_eq!(ran.len(), created, "jobs that ran of those that were taken in");
    for (job, payload) in ran {
        let own = || offers.iter().filter(|offer| offer.job == *job);
        let Some(given) = own().find(|offer| offer.payload == *payload) else {
            return Err(
                Trouble::Unmet(format!("job {job} ran with {payload}, which nobody offered it")).into()
            );
        };
        let lost: Vec<_> =
            own().filter(|later| later.begun > given.answered).map(|offer| &offer.payload).collect();
        must!(lost.is_empty(), "job {job} ran with {payload}, though later {lost:?} replaced it");
    }
    Ok(())
}

async fn lets_one_run_and_one_wait_with_the_newest_payload(t: Bench) -> Kept {
    let newest = |payload: &str| NewJob::new(kind("work"), text(payload)).latest(unique_key("key"));
    let running = t.hold_this(newest("1")?).await?;
    let waiting = t.add(newest("2")?).await?;
    for payload in ["3", "4"] {
        replace(&t, waiting, newest(payload)?).await?;
        must_eq!(t.claim(5).await?.len(), 0, "jobs given beside the one that runs");
    }
    let counts = t.counts().await?;
    must_eq!((counts.of(State::Running), counts.of(State::Queued)), (1, 1));
    t.finish(&running, SUCCEED).await?;
    let next = t.claim(5).await?;
    must_eq!(next.len(), 1);
    must_eq!((next[0].job.id, next[0].job.payload.clone()), (waiting, text("4")));
    // One that is tried again waits beside the newest.
    let newer = t.add(newest("5")?).await?;
    t.finish(&next[0], RETRY).await?;
    replace(&t, newer, newest("6")?).await?;
    must_bring(&t, waiting, "4").await?;
    must_eq!(t.claim(5).await?.len(), 1);
    Ok(())
}

async fn runs_the_newest_payload_last(t: Bench) -> Kept {
    let over = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for client in t.several(4).await? {
        let over = Arc::clone(&over);
        workers.push(tokio::spawn(async move {
            let mut ran = Vec::new();
            loop {
                let last = over.load(Ordering::SeqCst);
                let leases = client.claim(3).await?;
                if last && leases.is_empty() {
                    return Ok::<_, Trouble>(ran);
                }
                for lease in leases {
                    let begun = Instant::now();
                    client.advance(millis(1));
                    tokio::task::yield_now().await;
                    ran.push((begun, Instant::now(), lease.job.payload.clone()));
                    client.finish(&lease, SUCCEED).await?;
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    let clients = t.several(8).await?;
    let mut producers = Vec::new();
    for n in 0..64 {
        let client = clients[n % 8].clone();
        let job = NewJob::new(kind("work"), text(&n.to_string())).latest(unique_key("key"))?;
        producers.push(tokio::spawn(async move { offer(&client, job).await }));
    }
    for producer in producers {
        must_be!(producer.await??.answer, EnqueueAnswer::Created | EnqueueAnswer::Replaced);
    }
    offer(&t, NewJob::new(kind("work"), text("newest")).latest(unique_key("key"))?).await?;
    over.store(true, Ordering::SeqCst);
    let mut ran = Vec::new();
    for worker in workers {
        ran.extend(worker.await??);
    }
    // A worker may have looked while another one ran the last but one.
    for lease in t.claim_all(3).await? {
        ran.push((Instant::now(), Instant::now(), lease.job.payload.clone()));
    }
    ran.sort_by_key(|(begun, ..)| *begun);
    must!(ran.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two ran at once");
    let last = ran.last().map(|(_, _, payload)| payload.clone());
    must_eq!(last, Some(text("newest")), "the payload that ran last");
    Ok(())
}
