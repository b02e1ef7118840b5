//! C9 and C10: what waits although it is due.

use std::collections::BTreeSet;

use leasehold_core::backend::{Action, Answer, Claim, Renewed, Verdict};
use leasehold_core::{Due, JobId, NewJob, Reason, State};

use crate::bench::{
    Bench, LEASE, LOST_ATTEMPT, SUCCEED, job, jobs, limit_key, queue, secs, token_of, verdicts,
};
use crate::breach::{Done, Kept, must, must_be, must_eq};
use crate::case::cases;

cases! {
    /// Within one batch no more jobs of a key are given than may run at once.
    [C9] keeps_a_limit_within_a_batch;
    /// Over claims and workers no more jobs of a key run than may.
    [C9] keeps_a_limit_across_claims;
    /// A key counts over all queues.
    [C9] keeps_a_limit_across_queues;
    /// However an attempt ends, its slot is free again.
    [C9] frees_a_slot_on_every_ending;
    /// A worker that is gone leaks no slot once its job was recovered, and doubles none.
    [C9, C3] frees_the_slot_of_a_lost_worker;
    /// Each job brings its own number: a modest one waits where a generous one may start.
    [C9] reads_each_jobs_own_limit;
    /// Jobs that wait for a slot hold up no other, however many they are and whatever their priority.
    [C9, C7] lets_a_limited_job_block_nothing;
    /// Workers that race for a key never run more of its jobs at once than may.
    [C9] keeps_a_limit_under_racing_workers needs [StrictLimits];
    /// Of workers that ask at the same moment for the jobs of a mutex, one is given one.
    [C9] gives_a_mutex_to_one_of_many_who_ask_at_once needs [StrictLimits];
    /// A paused queue gives nothing out; other queues do, and what runs goes on.
    [C10] gives_nothing_from_a_paused_queue;
    /// A queue can be paused before its first job, and goes on where it stood when it is resumed.
    [C10] resumes_a_paused_queue;
    /// A paused root gives nothing out, and nothing under it is, at any depth, and however they are claimed together.
    [C10, C7] gives_nothing_from_under_a_paused_root;
    /// What only looks like a root is none, and what only looks as if it lay under one does not.
    [C10] pauses_no_queue_beside_a_root;
    /// A queue that was paused by itself stays so when its root is resumed, and the other way round.
    [C10] opens_a_queue_when_it_and_all_its_roots_are_open;
    /// A queue that comes into being under a paused root is paused from its first job on.
    [C10] pauses_a_queue_that_comes_later;
}

fn limited(max: u32) -> NewJob {
    job().limit(limit_key("key"), max)
}

async fn keeps_a_limit_within_a_batch(t: Bench) -> Kept {
    t.add_all((0..5).map(|_| limited(2))).await?;
    let free = t.add(job()).await?;
    let leases = t.claim(10).await?;
    must_eq!(leases.len(), 3);
    must_eq!(leases[2].job.id, free);
    must_eq!(t.counts().await?.of(State::Running), 3);
    Ok(())
}

async fn keeps_a_limit_across_claims(t: Bench) -> Kept {
    let added = t.add_all((0..4).map(|_| limited(1))).await?;
    let clients = t.several(3).await?;
    for (round, id) in added.into_iter().enumerate() {
        let lease = clients[round % 3].take().await?;
        must_eq!(lease.job.id, id);
        for client in &clients {
            must_eq!(client.claim(5).await?.len(), 0, "jobs given beside the one that runs");
        }
        t.finish(&lease, SUCCEED).await?;
    }
    Ok(())
}

async fn keeps_a_limit_across_queues(t: Bench) -> Kept {
    t.add(limited(1).queue(queue("a"))).await?;
    t.add(limited(1).queue(queue("b"))).await?;
    let lease = t.claim_from(&queue("a"), 1).await?;
    must_eq!(lease.len(), 1);
    must_eq!(t.claim_from(&queue("b"), 1).await?.len(), 0);
    t.finish(&lease[0], SUCCEED).await?;
    must_eq!(t.claim_from(&queue("b"), 1).await?.len(), 1);
    Ok(())
}

async fn frees_a_slot_on_every_ending(t: Bench) -> Kept {
    for verdict in verdicts() {
        let lease = t.hold_this(limited(1)).await?;
        t.add(limited(1)).await?;
        must_eq!(t.claim(1).await?.len(), 0);
        t.finish(&lease, verdict.clone()).await?;
        let next = t.claim(1).await?;
        must_eq!(next.len(), 1, "jobs given after {verdict:?}");
        t.finish(&next[0], SUCCEED).await?;
        for lease in t.claim_all(1).await? {
            t.finish(&lease, SUCCEED).await?;
        }
    }
    Ok(())
}

async fn frees_the_slot_of_a_lost_worker(t: Bench) -> Kept {
    for verdict in [LOST_ATTEMPT, Verdict::Fail { reason: Reason::Poison }] {
        let lease = t.hold_this(limited(1)).await?;
        t.add(limited(1)).await?;
        t.let_run_out(&lease).await?;
        must_eq!(t.claim(5).await?.len(), 0, "jobs given beside one that its holder may still come back for");
        t.lose(&lease, verdict.clone()).await?;
        must_eq!(t.recover(token_of(&lease), verdict).await?, Answer::AlreadyApplied);
        let next = t.claim(5).await?;
        must_eq!(next.len(), 1, "jobs given after one was recovered");
        t.finish(&next[0], SUCCEED).await?;
        for lease in t.claim_all(1).await? {
            t.finish(&lease, SUCCEED).await?;
        }
    }
    Ok(())
}

async fn reads_each_jobs_own_limit(t: Bench) -> Kept {
    let first = t.hold_this(limited(1)).await?;
    let modest = t.add(limited(1)).await?;
    let generous = t.add_all([limited(3), limited(3), limited(3)]).await?;
    let given: Vec<JobId> = t.claim(10).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, generous[..2]);
    t.finish(&first, SUCCEED).await?;
    let next = t.claim(10).await?;
    must_eq!(next.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), generous[2..]);
    must_eq!(t.state(modest).await?, State::Queued);
    Ok(())
}

async fn lets_a_limited_job_block_nothing(t: Bench) -> Kept {
    t.hold_this(limited(1)).await?;
    t.add_all((0..1_000).map(|_| limited(1).priority(9))).await?;
    let free = t.add_all(jobs(3)).await?;
    let given: Vec<JobId> = t.claim(10).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, free);
    Ok(())
}

async fn keeps_a_limit_under_racing_workers(t: Bench) -> Kept {
    const MAX: u64 = 3;
    t.add_all((0..60).map(|_| limited(MAX as u32))).await?;
    let mut workers = Vec::new();
    for client in t.several(6).await? {
        workers.push(tokio::spawn(async move {
            let (mut most, mut done) = (0, BTreeSet::new());
            for _ in 0..20_000 {
                if client.counts().await?.of(State::Succeeded) == 60 {
                    break;
                }
                for lease in client.claim(2).await? {
                    most = most.max(client.counts().await?.of(State::Running));
                    client.finish(&lease, SUCCEED).await?;
                    done.insert(lease.job.id);
                }
                tokio::task::yield_now().await;
            }
            Ok::<_, crate::breach::Trouble>((most, done.len()))
        }));
    }
    let mut all = 0;
    for worker in workers {
        let (most, done) = worker.await??;
        must!(most <= MAX, "{most} jobs of a key ran at once that allows {MAX}");
        all += done;
    }
    must_eq!(all, 60);
    Ok(())
}

async fn gives_a_mutex_to_one_of_many_who_ask_at_once(t: Bench) -> Kept {
    const ROUNDS: usize = 10;
    let clients = t.several(6).await?;
    t.add_all((0..ROUNDS).map(|_| limited(1))).await?;
    for round in 1..=ROUNDS {
        // All begin before any has ended, whoever runs them.
        let claims = futures::future::join_all(clients.iter().map(|client| client.claim(2))).await;
        let mut given = Vec::new();
        for claim in claims {
            given.extend(claim?);
        }
        must_eq!(given.len(), 1, "jobs of the mutex given in round {round}");
        t.finish(&given[0], SUCCEED).await?;
    }
    Ok(())
}

async fn gives_nothing_from_a_paused_queue(t: Bench) -> Kept {
    let (a, b) = (queue("a"), queue("b"));
    t.add_all([job().queue(a.clone()), job().queue(a.clone()), job().queue(b.clone())]).await?;
    let running = t.claim_from(&a, 1).await?;
    t.pause(&a, true).await?;
    must_eq!(t.another().await?.claim_from(&a, 5).await?.len(), 0);
    let both = leasehold_core::backend::Claim { queues: vec![a.clone(), b], ..t.asking(5) };
    must_eq!(t.claim_as(both).await?.len(), 1, "jobs given from a paused and an open queue");
    must_be!(t.renew(&running[0], LEASE).await?, Renewed::Held { .. });
    must_eq!(t.log(&running[0], 0, crate::bench::lines(["on"])).await?, Answer::Applied);
    t.finish(&running[0], SUCCEED).await?;
    must!(t.enqueue([job().queue(a)]).await?[0].is_created(), "a paused queue took no job in");
    Ok(())
}

async fn resumes_a_paused_queue(t: Bench) -> Kept {
    let name = queue("a");
    t.pause(&name, true).await?;
    let waiting = t.add(job().queue(name.clone())).await?;
    let later = t.add(job().queue(name.clone()).delay(secs(5))).await?;
    t.advance(secs(5));
    t.amend(later, Action::Postpone { due: Due::Now }).await?;
    must_eq!(t.claim_from(&name, 5).await?.len(), 0);
    t.pause(&name, false).await?;
    let given: Vec<JobId> = t.claim_from(&name, 5).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [waiting, later]);
    Ok(())
}

const FAMILY: [&str; 5] = ["main/", "main/a", "main/a/b", "main/a/", "main/ü/"];

/// From which of these a claim is given jobs, which then end.
async fn given_from(t: &Bench, names: &[&str]) -> Done<BTreeSet<String>> {
    let claim = Claim { queues: names.iter().map(|name| queue(name)).collect(), ..t.asking(100) };
    let given = t.claim_as(claim).await?;
    for lease in &given {
        t.finish(lease, SUCCEED).await?;
    }
    Ok(given.into_iter().map(|lease| lease.job.queue.to_string()).collect())
}

fn one_each<'a>(names: impl IntoIterator<Item = &'a &'a str>) -> Vec<NewJob> {
    names.into_iter().map(|name| job().queue(queue(name))).collect()
}

async fn gives_nothing_from_under_a_paused_root(t: Bench) -> Kept {
    t.add_all(one_each(&FAMILY)).await?;
    t.add(job().queue(queue("beside"))).await?;
    t.pause(&queue("main/"), true).await?;
    for name in FAMILY {
        must_eq!(t.claim_from(&queue(name), 5).await?.len(), 0, "jobs given from {name}");
    }
    let all = [FAMILY.as_slice(), &["beside"]].concat();
    must_eq!(given_from(&t.another().await?, &all).await?, BTreeSet::from(["beside".to_owned()]));
    t.pause(&queue("main/"), false).await?;
    must_eq!(given_from(&t, &all).await?, FAMILY.map(str::to_owned).into());
    Ok(())
}

async fn pauses_no_queue_beside_a_root(t: Bench) -> Kept {
    const BESIDE: [&str; 6] = ["main", "main_", "mainly/", "a/main/", "Main/a", "%/a"];
    t.add_all(one_each(&BESIDE)).await?;
    t.add(job().queue(queue("plain/a"))).await?;
    for root in ["main/", "plain", "plain/a/", "_ain/", "%"] {
        t.pause(&queue(root), true).await?;
    }
    let wanted: BTreeSet<String> = BESIDE.map(str::to_owned).into();
    must_eq!(given_from(&t, &BESIDE).await?, wanted);
    must_eq!(t.claim_from(&queue("plain/a"), 5).await?.len(), 1);
    Ok(())
}

async fn opens_a_queue_when_it_and_all_its_roots_are_open(t: Bench) -> Kept {
    let family = ["main/", "main/a", "main/a/", "main/a/b"];
    for (shut, open) in [
        (vec!["main/", "main/a"], vec![]),
        (vec!["main/a"], vec!["main/", "main/a/", "main/a/b"]),
        (vec!["main/a/"], vec!["main/", "main/a"]),
        (vec!["main/a/b"], vec!["main/", "main/a", "main/a/"]),
        (vec![], family.to_vec()),
    ] {
        let jobs = t.add_all(one_each(&family)).await?;
        for name in family {
            t.pause(&queue(name), shut.contains(&name)).await?;
        }
        let open: BTreeSet<String> = open.into_iter().map(str::to_owned).collect();
        must_eq!(
            given_from(&t, &family).await?,
            open,
            "the queues that gave jobs out while {shut:?} were paused"
        );
        t.amend_all(&jobs, Action::Delete).await?;
    }
    Ok(())
}

async fn pauses_a_queue_that_comes_later(t: Bench) -> Kept {
    t.pause(&queue("main/"), true).await?;
    let waiting = t.add(job().queue(queue("main/new/one"))).await?;
    must_eq!(t.claim_from(&queue("main/new/one"), 5).await?.len(), 0);
    t.pause(&queue("main/new/one"), false).await?;
    must_eq!(
        t.claim_from(&queue("main/new/one"), 5).await?.len(),
        0,
        "jobs given while only the root is paused"
    );
    t.pause(&queue("main/"), false).await?;
    let given = t.claim_from(&queue("main/new/one"), 5).await?;
    must_eq!(given.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), [waiting]);
    Ok(())
}
