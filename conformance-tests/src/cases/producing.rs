//! P1, P2, P3 and P6: what a store takes in, and how it keeps it.

use std::collections::BTreeSet;

use leasehold_core::backend::{Durability, EnqueueAnswer, Filter, Order};
use leasehold_core::policy::{Backoff, ClassRule, RetryPolicy};
use leasehold_core::{JobId, Keep, NewJob, Payload, QueueName, Retention, State, UniqueScope};

use crate::bench::{
    Bench, SUCCEED, in_time, job, jobs, kind, limit_key, millis, queue, secs, tag, text, unique_key,
};
use crate::breach::{Breach, Kept, must, must_be, must_eq};
use crate::case::cases;
use crate::harness::Place;
use crate::processes::{self, Crew, Hour, Said};

cases! {
    /// What was acknowledged is there for every other client, from the answer on.
    [P1] keeps_what_it_acknowledged;
    /// However many jobs wait, none makes room for those that come after it.
    [P1, S2] keeps_every_job_of_a_large_backlog;
    /// What was acknowledged to a process that was killed then, and that alone had the store open, is there for whoever
    /// opens it next. A store that is gone with its process has to keep it as long as anybody has it open.
    [P1, P2, E2] keeps_jobs_whose_producer_is_gone;
    /// Every client is told the same durability class, and by whom.
    [P1] tells_its_durability;
    /// The same job enqueued twice is one job, and the second answer says that it was there.
    [P2, E2] takes_an_id_once;
    /// An id stands for one job within a batch as well.
    [P2, P3] takes_an_id_once_within_a_batch;
    /// Enqueuing an id that is there changes nothing about the job, whatever else differs.
    [P2] leaves_the_job_of_a_known_id_as_it_is;
    /// A job that has ended is still known by its id, and is not run again by a repeated enqueue.
    [P2, S1] knows_the_id_of_an_ended_job;
    /// Of many producers that enqueue the same ids at once, exactly one is told that it created each.
    [P2] takes_an_id_once_from_racing_producers;
    /// A batch is answered one item per job, in order, and all of it is there.
    [P3] answers_a_batch_in_order;
    /// A batch of no jobs is fine.
    [P3] takes_an_empty_batch;
    /// Somebody who counts while batches come in sees each batch whole or not at all.
    [P3] shows_a_batch_whole_or_not_at_all needs [AtomicBatch];
    /// A batch of ten thousand jobs is taken in, and does not wedge the queue when all become due at once.
    [P3, C11] gives_out_ten_thousand_jobs_that_became_due_at_once;
    /// Jobs that were enqueued in a transaction of the caller's are there if and only if the caller commits.
    [P5] takes_jobs_in_with_the_callers_transaction needs [Transactions];
    /// A payload comes back byte for byte, however it is read.
    [P6] returns_payloads_byte_for_byte;
    /// Everything that a producer can say of a job comes back as it was said.
    [P6] returns_every_option_as_given;
    /// Any legal name or key works, whatever it would mean to a query language.
    [P6, C7] takes_names_literally;
}

async fn keeps_what_it_acknowledged(t: Bench) -> Kept {
    let other = t.another().await?;
    let jobs = jobs(20);
    t.add_all(jobs.clone()).await?;
    for job in jobs {
        let found = other.find(job.id).await?;
        must_eq!((found.queue, found.kind, found.payload), (job.queue, job.kind, job.payload));
    }
    must_eq!(other.counts().await?.of(State::Queued), 20);
    Ok(())
}

async fn keeps_every_job_of_a_large_backlog(t: Bench) -> Kept {
    const JOBS: usize = 5_000;
    let mut added = Vec::new();
    for _ in 0..JOBS / 500 {
        added.extend(t.add_all(jobs(500)).await?);
    }
    must_eq!(t.counts().await?.of(State::Queued), JOBS as u64);
    for ids in added.chunks(1_000) {
        let there = t.find_all(ids).await?.into_iter().flatten().count();
        must_eq!(there, ids.len(), "jobs that are still there");
    }
    must_eq!(t.take().await?.job.id, added[0], "the first job of a large backlog");
    Ok(())
}

async fn keeps_jobs_whose_producer_is_gone(t: Bench) -> Kept {
    const JOBS: usize = 20;
    let durability = t.capabilities().await?.durability;
    let (ids, heir) = if durability == Durability::D0 {
        let producer = t.another().await?;
        (producer.add_all(jobs(JOBS)).await?, t)
    } else if t.harness().elsewhere().is_some() {
        let place = t.nowhere_yet();
        (produced_by_the_dead(&t, &place, JOBS).await?, t.at(place).await?)
    } else {
        let place = t.nowhere_yet();
        let ids = t.at(place.clone()).await?.add_all(jobs(JOBS)).await?;
        let unshown = |why| Breach::new(format!("it says {durability:?}, which nothing shows: {why}"));
        t.harness().forget(&place).await.map_err(unshown)?;
        (ids, t.at(place).await?)
    };
    let there = heir.find_all(&ids).await?.into_iter().flatten().count();
    must_eq!(there, JOBS, "jobs that outlived whoever enqueued them in a store of {durability:?}");
    for answer in heir.enqueue(ids.iter().map(|id| job().id(*id))).await? {
        must_be!(answer.answer, EnqueueAnswer::Existing);
    }
    must_eq!(heir.claim(JOBS + 1).await?.len(), JOBS, "jobs that can be run");
    Ok(())
}

/// Has a process enqueue jobs in a place that nobody else has open, and kills it once it was answered.
async fn produced_by_the_dead(t: &Bench, place: &Place, jobs: usize) -> Kept<Vec<JobId>> {
    let mut crew = Crew::gather(t, Hour::Stores).await?;
    let producer = crew.start_at(place, &[]).await?;
    let keys = (0..jobs).map(|n| format!("key {n}")).collect();
    let said = crew.ask(producer, &processes::Order::Produce(keys)).await?;
    crew.kill(producer)?;
    match said {
        Said::Jobs(ids) if ids.len() == jobs => Ok(ids),
        other => Err(Breach::new(format!("{jobs} new jobs were enqueued, and it said {other:?}"))),
    }
}

async fn tells_its_durability(t: Bench) -> Kept {
    let other = t.another().await?;
    let here = t.backend().describe(in_time(0)).await?;
    let there = other.backend().describe(in_time(0)).await?;
    must!(!here.backend.is_empty(), "the backend has no name");
    must_eq!(here.capabilities, there.capabilities);
    Ok(())
}

async fn takes_an_id_once(t: Bench) -> Kept {
    let job = job();
    let first = t.enqueue([job.clone()]).await?;
    let second = t.another().await?.enqueue([job.clone()]).await?;
    must_be!(first[0].answer, EnqueueAnswer::Created);
    must_be!(second[0].answer, EnqueueAnswer::Existing);
    must_eq!((first[0].job, second[0].job), (job.id, job.id));
    let counts = t.counts().await?;
    must_eq!((counts.total(), counts.enqueued), (1, 1));
    Ok(())
}

async fn takes_an_id_once_within_a_batch(t: Bench) -> Kept {
    let (a, b) = (job(), job());
    let answers = t.enqueue([a.clone(), b.clone(), a.clone()]).await?;
    must_be!(answers[0].answer, EnqueueAnswer::Created);
    must_be!(answers[1].answer, EnqueueAnswer::Created);
    must_be!(answers[2].answer, EnqueueAnswer::Existing);
    must_eq!(answers.iter().map(|a| a.job).collect::<Vec<_>>(), [a.id, b.id, a.id]);
    must_eq!(t.counts().await?.enqueued, 2);
    Ok(())
}

async fn leaves_the_job_of_a_known_id_as_it_is(t: Bench) -> Kept {
    let id = t.add(job().priority(3)).await?;
    let before = t.find(id).await?;
    t.advance(secs(5));
    let other = NewJob::new(kind("other"), text("[1]")).id(id).priority(9).queue(queue("elsewhere"));
    let answers = t.enqueue([other.delay(secs(60))]).await?;
    must_be!(answers[0].answer, EnqueueAnswer::Existing);
    must_eq!(t.find(id).await?, before);
    Ok(())
}

async fn knows_the_id_of_an_ended_job(t: Bench) -> Kept {
    let job = job();
    let lease = t.hold_this(job.clone()).await?;
    t.finish(&lease, SUCCEED).await?;
    must_be!(t.enqueue([job.clone()]).await?[0].answer, EnqueueAnswer::Existing);
    must_eq!(t.state(job.id).await?, State::Succeeded);
    must_eq!(t.claim(1).await?.len(), 0);
    Ok(())
}

async fn takes_an_id_once_from_racing_producers(t: Bench) -> Kept {
    let jobs = jobs(30);
    let mut producers = Vec::new();
    for client in t.several(6).await? {
        let jobs = jobs.clone();
        producers.push(tokio::spawn(async move { client.enqueue(jobs).await }));
    }
    let mut created = 0;
    for producer in producers {
        for answer in producer.await?? {
            must_be!(answer.answer, EnqueueAnswer::Created | EnqueueAnswer::Existing);
            created += usize::from(answer.is_created());
        }
    }
    must_eq!(created, jobs.len());
    must_eq!(t.counts().await?.enqueued, 30);
    Ok(())
}

async fn answers_a_batch_in_order(t: Bench) -> Kept {
    let mut jobs = jobs(100);
    fastrand::shuffle(&mut jobs);
    let wanted: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    let given = t.add_all(jobs).await?;
    must_eq!(given, wanted);
    let found = t.find_all(&wanted).await?;
    must!(found.iter().all(Option::is_some), "a job of an acknowledged batch is not there");
    Ok(())
}

async fn takes_an_empty_batch(t: Bench) -> Kept {
    must_eq!(t.enqueue([]).await?.len(), 0);
    must_eq!(t.counts().await?.enqueued, 0);
    Ok(())
}

async fn shows_a_batch_whole_or_not_at_all(t: Bench) -> Kept {
    const BATCH: usize = 50;
    let writer = t.another().await?;
    let writing = tokio::spawn(async move {
        for _ in 0..20 {
            writer.add_all(jobs(BATCH)).await?;
        }
        Ok::<_, crate::breach::Trouble>(())
    });
    while !writing.is_finished() {
        let counted = t.counts().await?.total();
        must!(counted % BATCH as u64 == 0, "{counted} jobs of batches of {BATCH} were seen");
        tokio::task::yield_now().await;
    }
    writing.await??;
    must_eq!(t.counts().await?.total(), 20 * BATCH as u64);
    Ok(())
}

async fn gives_out_ten_thousand_jobs_that_became_due_at_once(t: Bench) -> Kept {
    let jobs: Vec<NewJob> = jobs(10_000).into_iter().map(|job| job.delay(secs(60))).collect();
    t.add_all(jobs).await?;
    must_eq!(t.claim(1).await?.len(), 0);
    t.advance(secs(60));
    let given = t.claim_all(500).await?;
    let ids: BTreeSet<JobId> = given.iter().map(|lease| lease.job.id).collect();
    must_eq!((given.len(), ids.len()), (10_000, 10_000));
    Ok(())
}

/// Bytes that some store, format or query language would like to make its own.
pub(super) fn corpus() -> Vec<Payload> {
    let nested = format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000));
    let texts = [
        "",
        "null",
        "[]",
        "{}",
        " { \"spaced\" : 1 } \n",
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775808",
        "123456789012345678901234567890",
        "-0.0",
        "1e400",
        "1.0",
        "0.1000000000000000055511151231257827",
        r#"{"a":1,"a":2}"#,
        r#"{"$set":{"a.b":1},"$where":"1"}"#,
        r#"{"$concat":["a","b"]}"#,
        r#"{"a.b":{"$oid":"x"}}"#,
        r#""$secret""#,
        "$",
        r#"{"__proto__":{}}"#,
        r#""\u0000""#,
        r#""\ud800""#,
        "\"\u{0}\"",
        "'; DROP TABLE jobs; --",
        ":1 ?1 $1 {0} %s *",
        "\"\u{202e}rtl \u{1f600} e\u{301}\"",
        "line\r\nbreaks\n",
        &nested,
    ];
    let mut corpus: Vec<Payload> = texts.into_iter().map(text).collect();
    corpus.push(Payload::from(vec![0x00, 0xff, 0xfe, 0x80, 0xc0, 0xaf]));
    corpus.push(Payload::from((0..=255).collect::<Vec<u8>>()));
    corpus.push(Payload::from(vec![b'x'; 1 << 20]));
    corpus
}

async fn takes_jobs_in_with_the_callers_transaction(t: Bench) -> Kept {
    for commit in [false, true] {
        let jobs = jobs(3);
        let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
        t.enqueue_in_transaction(jobs, commit).await?;
        let there = t.find_all(&ids).await?.into_iter().flatten().count();
        must_eq!(there, if commit { 3 } else { 0 }, "jobs there where the caller commits: {commit}");
        must_eq!(t.counts().await?.enqueued, there as u64);
        must_eq!(t.claim(9).await?.len(), there, "jobs given where the caller commits: {commit}");
    }
    Ok(())
}

async fn returns_payloads_byte_for_byte(t: Bench) -> Kept {
    for payload in corpus() {
        let id = t.add(NewJob::new(kind("work"), payload.clone())).await?;
        let shown: String = String::from_utf8_lossy(payload.as_bytes()).chars().take(40).collect();
        must!(t.find(id).await?.payload == payload, "find altered the payload {shown:?}");
        let given = t.take().await?;
        must!(given.job.payload == payload, "claim altered the payload {shown:?}");
        let listed = t.list(&Filter::default(), Order::NewestFirst, 50).await?;
        let listed = listed.iter().find(|job| job.id == id);
        must!(listed.is_some_and(|job| job.payload == payload), "list altered the payload {shown:?}");
    }
    Ok(())
}

async fn returns_every_option_as_given(t: Bench) -> Kept {
    let policy = RetryPolicy::new(Backoff::Steps { delays: vec![millis(1), secs(3)] })
        .class("io::Error", ClassRule::Fail)
        .class("$busy.now", ClassRule::Backoff(Backoff::default()));
    let retention =
        Retention { succeeded: Keep::For(secs(1)), failed: Keep::Forever, cancelled: Keep::For(millis(1)) };
    let job = job()
        .priority(-1_000)
        .max_attempts(7)
        .crash_budget(0)
        .tag(tag("b"))
        .tag(tag("a"))
        .unique(unique_key("key"), UniqueScope::For(secs(90)))
        .limit(limit_key("limit"), 3)
        .lease(millis(12_345))
        .timeout(secs(77))
        .retry(policy)
        .retention(retention)
        .header("traceparent", "00-1-2-01")
        .header("$odd.name", "ä\n\"b\"");
    t.add(job.clone()).await?;
    must_eq!(t.find(job.id).await?.options, job.options);
    must_eq!(t.take().await?.job.options, job.options);
    Ok(())
}

async fn takes_names_literally(t: Bench) -> Kept {
    let names =
        ["$where", "a.b", "{x}:*", "'; DROP TABLE jobs; --", "%_", "ÄØ漢字 😀", "a\\b", "[a-z]?", "NULL"];
    for (i, name) in names.into_iter().enumerate() {
        let job = NewJob::new(kind(name), text("1"))
            .queue(queue(name))
            .tag(tag(name))
            .unique(unique_key(name), UniqueScope::UntilFinished)
            .limit(limit_key(name), 1)
            .header(name, name);
        t.add(job.clone()).await?;
        let twin = job.clone().id(JobId::generate());
        let held = t.enqueue([twin]).await?;
        must_be!(held[0].answer, EnqueueAnswer::Held);
        let given = t.claim_from(&queue(name), 2).await?;
        must_eq!(given.len(), 1, "claiming from the queue {name:?}");
        must_eq!(given[0].job.options, job.options);
        must_eq!((given[0].job.queue.clone(), given[0].job.kind.clone()), (job.queue, job.kind));
        must_eq!(t.all_counts().await?.len(), i + 1, "known queues after {name:?}");
    }
    must_eq!(t.claim_from(&QueueName::default(), 1).await?.len(), 0);
    Ok(())
}
