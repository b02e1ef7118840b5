//! F4 and S2: what people see of the jobs.

use std::collections::BTreeSet;

use leasehold_core::backend::{Action, Counts, Filter, Order};
use leasehold_core::{ErrorKind, JobId, JobRecord, NewJob, QueueName, Reason, State};

use crate::bench::{
    Bench, CANCEL, FAIL, RETRY, SUCCEED, failure, in_time, job, jobs, kind, millis, queue, retry_in, secs,
    tag, text,
};
use crate::breach::{Done, Kept, Trouble, must, must_eq};
use crate::case::cases;

cases! {
    /// Jobs are found by id, in the order asked for, and none stands for an unknown one.
    [F4] finds_jobs_in_the_order_asked;
    /// A list is ordered by when jobs were taken in, newest or oldest first.
    [F4] lists_jobs_newest_or_oldest_first;
    /// Pages of any size join to the same list.
    [F4] joins_pages_of_any_size_to_one_list;
    /// A job that stays is neither skipped nor shown twice while others are added, settled and deleted.
    [F4] pages_stably_while_jobs_come_and_go;
    /// A cursor whose job was deleted goes on where it stood.
    [F4] goes_on_after_a_deleted_job;
    /// A cursor of another list is refused, and so is one that is none.
    [F4] refuses_a_cursor_of_another_list;
    /// Every field of a filter is kept to, alone and with others.
    [F4] keeps_to_every_field_of_a_filter;
    /// Text that a filter looks for in payloads is found letter by letter and never interpreted.
    [F4, P6] finds_text_in_payloads_literally;
    /// A job is listed in the state it is in by the store's clock, not by the latest write.
    [F4, C8] lists_jobs_in_their_present_state;
    /// Counts are those of the asked queues, by state, and of all where none is named.
    [F4, S2] counts_by_queue_and_state;
    /// It is told when the longest waiting due job became due, and nothing where none is.
    [F4] tells_when_the_oldest_due_job_became_due;
    /// Every queue that was ever used or set is shown, by name.
    [F4, C10] shows_every_known_queue_by_name;
}

fn ids(jobs: &[JobRecord]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

async fn finds_jobs_in_the_order_asked(t: Bench) -> Kept {
    let mut asked = t.add_all(jobs(5)).await?;
    asked.reverse();
    asked.insert(2, JobId::generate());
    asked.push(asked[0]);
    let found = t.find_all(&asked).await?;
    for (i, (job, id)) in found.iter().zip(&asked).enumerate() {
        must_eq!(job.as_ref().map(|job| job.id), (i != 2).then_some(*id), "item {i}");
    }
    must_eq!(t.find_all(&[]).await?.len(), 0);
    Ok(())
}

async fn lists_jobs_newest_or_oldest_first(t: Bench) -> Kept {
    let mut wanted = Vec::new();
    for _ in 0..4 {
        // Ids and due times say nothing about when a job was taken in.
        let mut batch = vec![job().delay(secs(9)), job().priority(5), job()];
        let mut sorted: Vec<JobId> = batch.iter().map(|job| job.id).collect();
        sorted.sort_unstable();
        wanted.extend(sorted);
        batch.reverse();
        t.add_all(batch).await?;
        t.advance(millis(1));
    }
    must_eq!(ids(&t.list(&Filter::default(), Order::OldestFirst, 100).await?), wanted);
    wanted.reverse();
    must_eq!(ids(&t.list(&Filter::default(), Order::NewestFirst, 100).await?), wanted);
    Ok(())
}

async fn joins_pages_of_any_size_to_one_list(t: Bench) -> Kept {
    for _ in 0..10 {
        t.add_all(jobs(5)).await?;
        t.advance(millis(1));
    }
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let whole = ids(&t.list(&Filter::default(), order, 1_000).await?);
        must_eq!(whole.len(), 50);
        for size in [1, 7, 10, 49, 50] {
            must_eq!(ids(&t.list(&Filter::default(), order, size).await?), whole, "pages of {size}");
        }
    }
    Ok(())
}

async fn pages_stably_while_jobs_come_and_go(t: Bench) -> Kept {
    for order in [Order::OldestFirst, Order::NewestFirst] {
        let kept: BTreeSet<JobId> = add_kept_and_others(&t).await?.into_iter().collect();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = t.page(Filter::default(), order, after, 7).await?;
            seen.extend(page.jobs.iter().map(|job| job.id).filter(|id| kept.contains(id)));
            after = page.next;
            if after.is_none() {
                break;
            }
            disturb(&t, &kept).await?;
        }
        let distinct: BTreeSet<JobId> = seen.iter().copied().collect();
        must_eq!(seen.len(), distinct.len(), "jobs shown, and distinct ones");
        must_eq!(distinct, kept);
    }
    Ok(())
}

async fn add_kept_and_others(t: &Bench) -> Done<Vec<JobId>> {
    let mut kept = Vec::new();
    for _ in 0..20 {
        kept.push(t.add(job().delay(secs(3_600))).await?);
        t.add_all(jobs(2)).await?;
        t.advance(millis(1));
    }
    Ok(kept)
}

/// Adds, settles, retries, moves and deletes jobs; of the kept ones it changes all but that they are there.
async fn disturb(t: &Bench, kept: &BTreeSet<JobId>) -> Done {
    t.advance(millis(1));
    t.add_all(jobs(3)).await?;
    for (i, lease) in t.claim(4).await?.into_iter().enumerate() {
        t.settle(&lease, if i % 2 == 0 { SUCCEED } else { retry_in(secs(60)) }).await?;
        if i == 0 {
            t.amend(lease.job.id, Action::Delete).await?;
        }
    }
    if let Some(id) = kept.iter().nth(fastrand::usize(..kept.len())) {
        t.amend(*id, Action::Reprioritise { priority: fastrand::i16(-9..9) }).await?;
        t.amend(*id, Action::Move { queue: queue("elsewhere") }).await?;
    }
    Ok(())
}

async fn goes_on_after_a_deleted_job(t: Bench) -> Kept {
    let added = t.add_all(jobs(6)).await?;
    let page = t.page(Filter::default(), Order::OldestFirst, None, 2).await?;
    must_eq!(ids(&page.jobs), added[..2]);
    t.amend_all(&added[1..3], Action::Delete).await?;
    let rest = t.page(Filter::default(), Order::OldestFirst, page.next, 10).await?;
    must_eq!(ids(&rest.jobs), added[3..]);
    Ok(())
}

async fn refuses_a_cursor_of_another_list(t: Bench) -> Kept {
    t.add_all(jobs(5)).await?;
    let page = t.page(Filter::default(), Order::OldestFirst, None, 2).await?;
    let none = leasehold_core::backend::Cursor("'; DROP TABLE jobs; --".into());
    for cursor in [page.next, Some(none)] {
        match t.page(Filter::default(), Order::NewestFirst, cursor.clone(), 2).await {
            Err(Trouble::Store(error)) => must_eq!(error.kind(), ErrorKind::InvalidInput),
            other => must!(false, "the cursor {cursor:?} was taken: {other:?}"),
        }
    }
    Ok(())
}

/// Jobs that differ in everything that a filter can ask for.
async fn assorted(t: &Bench) -> Done<Vec<JobRecord>> {
    let other = t.another().await?;
    for i in 0..40 {
        let mut new = NewJob::new(kind(["a", "b"][i % 2]), text(&format!("{{\"n\":{i}}}")));
        new = new.queue(queue(["q", "r", "s"][i % 3]));
        for name in ["x", "y"] {
            if fastrand::bool() {
                new = new.tag(tag(name));
            }
        }
        t.add(new).await?;
        t.advance(millis(5));
    }
    for (i, client) in [t, &other].into_iter().cycle().take(24).enumerate() {
        let name = queue(["q", "r", "s"][i % 3]);
        for lease in client.claim_from(&name, 1).await? {
            let verdict = [SUCCEED, FAIL, CANCEL, RETRY, retry_in(secs(9)), FAIL][i % 6].clone();
            let class = ["io", "db"][fastrand::usize(..2)];
            client.settle_failing(&lease, verdict, failure(class, "broken")).await?;
        }
    }
    t.list(&Filter::default(), Order::OldestFirst, 100).await
}

/// Random filters; each field is set in some of them.
fn some_filter(all: &[JobRecord]) -> Filter {
    let mut filter = Filter::default();
    let one = || &all[fastrand::usize(..all.len())];
    let maybe = || fastrand::u8(..4) == 0;
    if maybe() {
        filter.queues = Some(vec![one().queue.clone(), one().queue.clone()]);
    }
    if maybe() {
        filter.states = Some(vec![one().state, State::Failed]);
    }
    if maybe() {
        filter.reasons = Some(vec![Reason::Error, Reason::Aborted]);
    }
    if maybe() {
        filter.kinds = Some(vec![one().kind.clone()]);
    }
    if maybe() {
        filter.tags = Some(one().options.tags.iter().cloned().collect());
    }
    if maybe() {
        filter.worker = one().worker;
    }
    if maybe() {
        filter.error_class = Some("io".into());
    }
    if maybe() {
        filter.payload_contains = Some(format!(":{}", fastrand::u8(..5)));
    }
    if maybe() {
        filter.enqueued_from = Some(one().enqueued_at);
    }
    if maybe() {
        filter.enqueued_until = Some(one().enqueued_at);
    }
    filter
}

async fn keeps_to_every_field_of_a_filter(t: Bench) -> Kept {
    let all = assorted(&t).await?;
    for _ in 0..200 {
        let filter = some_filter(&all);
        let wanted: Vec<JobId> = all.iter().filter(|job| filter.matches(job)).map(|job| job.id).collect();
        let found = t.list(&filter, Order::OldestFirst, fastrand::usize(1..30)).await?;
        must_eq!(ids(&found), wanted, "what {filter:?} finds");
    }
    let mut nothing = Filter::default();
    nothing.states = Some(vec![]);
    must_eq!(t.list(&nothing, Order::OldestFirst, 10).await?.len(), 0);
    Ok(())
}

async fn finds_text_in_payloads_literally(t: Bench) -> Kept {
    let payloads = ["100%", "100 percent", "a_b", "aXb", "a.*b", "A.*B", "it's", "\\d", "ä漢"];
    let mut added = Vec::new();
    for payload in payloads {
        added.push((payload, t.add(NewJob::new(kind("work"), text(payload))).await?));
    }
    for wanted in ["%", "_", ".*", "a", "B", "'", "\\", "漢", "0 p", ""] {
        let mut filter = Filter::default();
        filter.payload_contains = Some(wanted.into());
        let found = ids(&t.list(&filter, Order::OldestFirst, 100).await?);
        let has: Vec<JobId> =
            added.iter().filter(|(text, _)| text.contains(wanted)).map(|(_, id)| *id).collect();
        must_eq!(found, has, "payloads with {wanted:?} in them");
    }
    Ok(())
}

async fn lists_jobs_in_their_present_state(t: Bench) -> Kept {
    let id = t.add(job().delay(secs(5))).await?;
    let mut filter = Filter::default();
    filter.states = Some(vec![State::Queued]);
    must_eq!(t.list(&filter, Order::OldestFirst, 10).await?.len(), 0);
    t.advance(secs(5));
    let found = t.list(&filter, Order::OldestFirst, 10).await?;
    must_eq!(found.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>(), [(id, State::Queued)]);
    Ok(())
}

async fn counts_by_queue_and_state(t: Bench) -> Kept {
    let (a, b) = (queue("a"), queue("b"));
    t.add_all((0..6).map(|_| job().queue(a.clone()))).await?;
    t.add_all([job().queue(b.clone()), job().queue(b.clone()).delay(secs(9))]).await?;
    let leases = t.claim_from(&a, 4).await?;
    for (lease, verdict) in leases.iter().zip([SUCCEED, FAIL, CANCEL]) {
        t.finish(lease, verdict).await?;
    }
    let counts = t.counts_of(&a).await?;
    let states = State::ALL.map(|state| counts.of(state));
    must_eq!(states, [0, 2, 1, 1, 1, 1]);
    must_eq!((counts.enqueued, counts.deleted), (6, 0));
    must_eq!(t.counts_of(&b).await?.of(State::Scheduled), 1);
    let asked = Counts { queues: Some(vec![b.clone()]) };
    for counts in t.backend().counts(in_time(0), asked).await? {
        must_eq!(counts.queue, b, "the queue counted");
    }
    let named: Vec<QueueName> = t.all_counts().await?.into_iter().map(|counts| counts.queue).collect();
    must_eq!(named.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([a, b]));
    must_eq!(t.counts_of(&queue("unknown")).await?.enqueued, 0);
    Ok(())
}

async fn tells_when_the_oldest_due_job_became_due(t: Bench) -> Kept {
    t.add(job().delay(secs(5))).await?;
    must_eq!(t.counts().await?.oldest_due, None);
    t.advance(secs(5));
    let first = t.hour();
    t.add(job()).await?;
    t.advance(secs(5));
    must_eq!(t.counts().await?.oldest_due, Some(first));
    t.claim(5).await?;
    must_eq!(t.counts().await?.oldest_due, None);
    Ok(())
}

async fn shows_every_known_queue_by_name(t: Bench) -> Kept {
    t.add_all([job().queue(queue("m")), job().queue(queue("z"))]).await?;
    t.advance(secs(1));
    t.pause(&queue("a"), true).await?;
    let queues = t.another().await?.backend().queues(in_time(0)).await?;
    let shown: Vec<_> =
        queues.iter().map(|q| (q.queue.as_str(), q.settings.pause.is_some(), q.changed_at)).collect();
    must_eq!(shown, [("a", true, Some(t.hour())), ("m", false, None), ("z", false, None)]);
    let pause = queues[0].settings.pause.clone().map(|pause| pause.by);
    must_eq!(pause, Some("the case".to_owned()));
    Ok(())
}
