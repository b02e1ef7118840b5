//! C6 and C7: in which order a store gives jobs out, and which of them.

use std::collections::BTreeSet;

use leasehold_core::backend::{Claim, KindRule, TagRule};
use leasehold_core::{JobId, LeasedJob, NewJob, QueueName, Timestamp};

use crate::bench::{
    Bench, LEASE, RELEASE, RETRY, SUCCEED, job, jobs, kind, kinds, millis, queue, secs, tag, tags, text,
};
use crate::breach::{Kept, must, must_eq};
use crate::case::cases;

cases! {
    /// A higher priority goes first, whenever it came in.
    [C6] gives_higher_priorities_first;
    /// Within a priority the earlier due time goes first, also among those that have long passed.
    [C6] gives_earlier_due_jobs_first;
    /// Within a priority and a due time the lower id goes first, whatever the order of arrival.
    [C6] gives_lower_ids_first_among_equals;
    /// One consumer sees exactly the order of the contract, whatever the size of its batches.
    [C6] gives_many_jobs_in_exact_order;
    /// Of several queues the order is that of all their jobs together.
    [C6, C7] gives_several_queues_in_one_order;
    /// A job that is released keeps its place.
    [C6] keeps_the_place_of_a_released_job;
    /// A job that waits is not overtaken for ever by those that come after it.
    [C6] starves_no_due_job;
    /// Only jobs of the named queues are given, and none where no queue is named.
    [C7] gives_jobs_of_the_named_queues_only;
    /// Only jobs of the named kinds are given, or all but those of the excepted ones.
    [C7] keeps_to_the_kinds_of_a_claim;
    /// Only jobs are given that have all the tags which the worker names.
    [C7] keeps_to_the_tags_that_a_job_must_have;
    /// Only jobs are given whose tags the worker offers, all of them.
    [C7] keeps_to_the_tags_that_a_worker_offers;
    /// Only jobs of at least the asked priority are given.
    [C7] keeps_to_the_lowest_priority_of_a_claim;
    /// Whatever a claim names, together, is what it gets, and all it gets.
    [C7] keeps_to_all_rules_at_once;
    /// Five thousand jobs that do not match do not hide the one that does.
    [C7] lets_what_does_not_match_block_nothing;
}

async fn all_ids(t: &Bench, claim: Claim) -> crate::breach::Done<Vec<JobId>> {
    let mut ids = Vec::new();
    loop {
        let claim = Claim { id: leasehold_core::ClaimId::generate(), ..claim.clone() };
        let leases = t.claim_as(claim).await?;
        if leases.is_empty() {
            return Ok(ids);
        }
        ids.extend(leases.iter().map(|lease| lease.job.id));
    }
}

fn ids(leases: &[LeasedJob]) -> Vec<JobId> {
    leases.iter().map(|lease| lease.job.id).collect()
}

async fn gives_higher_priorities_first(t: Bench) -> Kept {
    let priorities = [0, 5, -3, 1_000, 5, -1_000, 1];
    let mut added = Vec::new();
    for priority in priorities {
        added.push((priority, t.add(job().priority(priority)).await?));
        t.advance(millis(1));
    }
    added.sort_by_key(|(priority, id)| (std::cmp::Reverse(*priority), *id));
    let wanted: Vec<JobId> = added.into_iter().map(|(_, id)| id).collect();
    must_eq!(ids(&t.claim_all(1).await?), wanted);
    Ok(())
}

async fn gives_earlier_due_jobs_first(t: Bench) -> Kept {
    let now = t.hour();
    let late = t.add(job().run_at(now)).await?;
    let early = t.add(job().run_at(now.minus(secs(10)))).await?;
    let earliest = t.add(job().run_at(Timestamp::from_millis(0))).await?;
    let later = t.add(job().delay(secs(2))).await?;
    let soon = t.add(job().delay(secs(1))).await?;
    t.advance(secs(3));
    let last = t.add(job()).await?;
    must_eq!(ids(&t.claim_all(2).await?), [earliest, early, late, soon, later, last]);
    Ok(())
}

async fn gives_lower_ids_first_among_equals(t: Bench) -> Kept {
    let mut batch = jobs(20);
    let wanted: Vec<JobId> = batch.iter().map(|job| job.id).collect();
    batch.reverse();
    t.add_all(batch.split_off(7)).await?;
    t.add_all(batch).await?;
    must_eq!(ids(&t.claim_all(3).await?), wanted);
    Ok(())
}

/// Jobs of few priorities and few due times, so that each tie of the order occurs.
fn tied(t: &Bench, count: usize) -> Vec<NewJob> {
    let due = || t.hour().minus(secs(fastrand::u64(..5)));
    (0..count).map(|_| job().priority(fastrand::i16(-2..=2)).run_at(due())).collect()
}

fn in_order(jobs: &[NewJob], t: &Bench) -> Vec<JobId> {
    let mut sorted: Vec<&NewJob> = jobs.iter().collect();
    sorted.sort_by_key(|job| (std::cmp::Reverse(job.options.priority), job.due.by(t.hour()), job.id));
    sorted.into_iter().map(|job| job.id).collect()
}

async fn gives_many_jobs_in_exact_order(t: Bench) -> Kept {
    let mut batch = tied(&t, 300);
    fastrand::shuffle(&mut batch);
    t.add_all(batch.clone()).await?;
    let mut given = Vec::new();
    while given.len() < batch.len() {
        let leases = t.claim(fastrand::usize(1..=20)).await?;
        must!(!leases.is_empty(), "{} of {} jobs were given", given.len(), batch.len());
        given.extend(ids(&leases));
    }
    must_eq!(given, in_order(&batch, &t));
    Ok(())
}

async fn gives_several_queues_in_one_order(t: Bench) -> Kept {
    let names = [queue("a"), queue("b"), queue("c")];
    let mut batch = tied(&t, 90);
    for job in &mut batch {
        job.queue = names[fastrand::usize(..3)].clone();
    }
    t.add_all(batch.clone()).await?;
    let given = all_ids(&t, Claim { queues: names.to_vec(), ..t.asking(4) }).await?;
    must_eq!(given, in_order(&batch, &t));
    Ok(())
}

async fn keeps_the_place_of_a_released_job(t: Bench) -> Kept {
    let added = t.add_all(jobs(3)).await?;
    let lease = t.take().await?;
    t.advance(secs(1));
    t.finish(&lease, RELEASE).await?;
    must_eq!(ids(&t.claim(3).await?), added);
    Ok(())
}

async fn starves_no_due_job(t: Bench) -> Kept {
    let first = t.add(job()).await?;
    for _ in 0..50 {
        t.advance(millis(1));
        t.add_all(jobs(5)).await?;
    }
    let busy = t.take().await?;
    must_eq!(busy.job.id, first);
    t.advance(secs(1));
    t.finish(&busy, RETRY).await?;
    let given = t.claim_all(10).await?;
    must_eq!(given.last().map(|lease| lease.job.id), Some(first), "the last of the jobs given");
    Ok(())
}

async fn gives_jobs_of_the_named_queues_only(t: Bench) -> Kept {
    let mut of = std::collections::BTreeMap::new();
    for name in ["a", "b", "c"] {
        of.insert(name, t.add(job().queue(queue(name))).await?);
    }
    must_eq!(t.claim_as(Claim { queues: vec![], ..t.asking(10) }).await?.len(), 0);
    must_eq!(t.claim_from(&queue("unknown"), 10).await?.len(), 0);
    must_eq!(ids(&t.claim_from(&queue("b"), 10).await?), [of["b"]]);
    let both = Claim { queues: vec![queue("c"), queue("a"), queue("a")], ..t.asking(10) };
    must_eq!(ids(&t.claim_as(both).await?), [of["a"], of["c"]]);
    Ok(())
}

async fn keeps_to_the_kinds_of_a_claim(t: Bench) -> Kept {
    let a = t.add(NewJob::new(kind("a"), text(""))).await?;
    let b = t.add(NewJob::new(kind("b"), text(""))).await?;
    let c = t.add(NewJob::new(kind("c"), text(""))).await?;
    let asking = |kinds| Claim { kinds, ..t.asking(10) };
    must_eq!(all_ids(&t, asking(KindRule::Only(BTreeSet::new()))).await?, []);
    must_eq!(all_ids(&t, asking(KindRule::Only(kinds(&["b", "x"])))).await?, [b]);
    must_eq!(all_ids(&t, asking(KindRule::Except(kinds(&["c", "x"])))).await?, [a]);
    must_eq!(all_ids(&t, asking(KindRule::Any)).await?, [c]);
    Ok(())
}

async fn keeps_to_the_tags_that_a_job_must_have(t: Bench) -> Kept {
    let none = t.add(job()).await?;
    let one = t.add(job().tag(tag("gpu"))).await?;
    let two = t.add(job().tag(tag("gpu")).tag(tag("eu"))).await?;
    let asking = |names: &[&str]| Claim { tags: TagRule::JobHasAll(tags(names)), ..t.asking(10) };
    must_eq!(all_ids(&t, asking(&["gpu", "us"])).await?, []);
    must_eq!(all_ids(&t, asking(&["eu", "gpu"])).await?, [two]);
    must_eq!(all_ids(&t, asking(&["gpu"])).await?, [one]);
    must_eq!(all_ids(&t, asking(&[])).await?, [none]);
    Ok(())
}

async fn keeps_to_the_tags_that_a_worker_offers(t: Bench) -> Kept {
    let none = t.add(job()).await?;
    let one = t.add(job().tag(tag("gpu"))).await?;
    let two = t.add(job().tag(tag("gpu")).tag(tag("eu"))).await?;
    let asking = |names: &[&str]| Claim { tags: TagRule::WorkerHasAll(tags(names)), ..t.asking(10) };
    must_eq!(all_ids(&t, asking(&["us"])).await?, [none]);
    must_eq!(all_ids(&t, asking(&["gpu", "us"])).await?, [one]);
    must_eq!(all_ids(&t, asking(&["us", "gpu", "eu"])).await?, [two]);
    Ok(())
}

async fn keeps_to_the_lowest_priority_of_a_claim(t: Bench) -> Kept {
    let low = t.add(job().priority(-1)).await?;
    let zero = t.add(job()).await?;
    let high = t.add(job().priority(7)).await?;
    let asking = |lowest| Claim { min_priority: lowest, ..t.asking(10) };
    must_eq!(all_ids(&t, asking(Some(8))).await?, []);
    must_eq!(all_ids(&t, asking(Some(7))).await?, [high]);
    must_eq!(all_ids(&t, asking(Some(0))).await?, [zero]);
    must_eq!(all_ids(&t, asking(None)).await?, [low]);
    Ok(())
}

fn random_job() -> NewJob {
    let mut job = NewJob::new(kind(["a", "b", "c"][fastrand::usize(..3)]), text(""))
        .queue(queue(["q", "r"][fastrand::usize(..2)]))
        .priority(fastrand::i16(-1..=1));
    for name in ["x", "y", "z"] {
        if fastrand::bool() {
            job = job.tag(tag(name));
        }
    }
    job
}

fn random_claim(t: &Bench) -> Claim {
    let some = |names: &[&str]| -> Vec<String> {
        names.iter().filter(|_| fastrand::bool()).map(ToString::to_string).collect()
    };
    let kinds = some(&["a", "b", "c"]).iter().map(|name| kind(name)).collect();
    let tags = some(&["x", "y", "z"]).iter().map(|name| tag(name)).collect();
    Claim {
        queues: some(&["q", "r"]).iter().map(|name| queue(name)).collect(),
        kinds: match fastrand::u8(..3) {
            0 => KindRule::Any,
            1 => KindRule::Only(kinds),
            _ => KindRule::Except(kinds),
        },
        tags: match fastrand::u8(..3) {
            0 => TagRule::Any,
            1 => TagRule::JobHasAll(tags),
            _ => TagRule::WorkerHasAll(tags),
        },
        min_priority: fastrand::bool().then(|| fastrand::i16(-1..=1)),
        ..t.asking(fastrand::usize(1..=5))
    }
}

fn matches(claim: &Claim, job: &NewJob) -> bool {
    claim.queues.contains(&job.queue)
        && claim.kinds.takes(&job.kind)
        && claim.tags.takes(&job.options.tags)
        && claim.min_priority.is_none_or(|lowest| job.options.priority >= lowest)
}

async fn keeps_to_all_rules_at_once(t: Bench) -> Kept {
    let mut waiting: Vec<NewJob> = (0..150).map(|_| random_job()).collect();
    t.add_all(waiting.clone()).await?;
    for _ in 0..80 {
        let claim = random_claim(&t);
        let matching: Vec<NewJob> = waiting.iter().filter(|job| matches(&claim, job)).cloned().collect();
        let mut wanted = in_order(&matching, &t);
        wanted.truncate(claim.limit);
        must_eq!(ids(&t.claim_as(claim.clone()).await?), wanted, "what {claim:?} gets");
        waiting.retain(|job| !wanted.contains(&job.id));
    }
    Ok(())
}

async fn lets_what_does_not_match_block_nothing(t: Bench) -> Kept {
    let blocked = |i: usize| match i % 4 {
        0 => job().queue(queue("other")).priority(9),
        1 => NewJob::new(kind("other"), text("")).priority(9),
        2 => job().tag(tag("other")).priority(9),
        _ => job().delay(secs(3_600)).priority(9),
    };
    t.add_all((0..5_000).map(blocked)).await?;
    let wanted = t.add(job().tag(tag("mine"))).await?;
    let claim = Claim {
        kinds: KindRule::Only(kinds(&["work"])),
        tags: TagRule::JobHasAll(tags(&["mine"])),
        ..t.asking(5)
    };
    must_eq!(ids(&t.claim_as(claim).await?), [wanted]);
    let offering = Claim {
        kinds: KindRule::Except(kinds(&["other"])),
        tags: TagRule::WorkerHasAll(tags(&["mine"])),
        ..t.asking(5)
    };
    let next = t.add(job().priority(-9)).await?;
    must_eq!(ids(&t.claim_as(offering).await?), [next]);
    let low =
        Claim { queues: vec![QueueName::default()], min_priority: Some(9), lease: LEASE, ..t.asking(2) };
    for lease in t.claim_as(low).await? {
        t.finish(&lease, SUCCEED).await?;
    }
    Ok(())
}
