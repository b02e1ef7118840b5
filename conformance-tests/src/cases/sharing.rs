//! F7 and F8: what a fleet shares beside its jobs: locks, and rates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_core::backend::{Claim, QueueSettings, SetQueue};
use leasehold_core::client::Admission;
use leasehold_core::policy::Rate;
use leasehold_core::{JobId, LeasedJob, Limits, QueueName, Store};

use crate::bench::{Bench, in_time, job, queue, secs};
use crate::breach::{Breach, Done, Kept, Trouble, must, must_be, must_eq};
use crate::case::cases;
use crate::processes::{Crew, Hour, Order, Said, bound};

cases! {
    /// Of many who want a lock at once, one has it at a time, and each has a greater token than all before it.
    [F7, F6] gives_a_lock_to_one_at_a_time;
    /// A lock whose holder is gone is free once its lease is over by the store's clock, and not a moment before.
    [F7, C8] frees_the_lock_of_a_holder_that_is_gone;
    /// Of several processes one has the lock; when it is killed, or frozen for longer than its lease, another one gets
    /// it, with a greater token, and the release of who slept frees nothing.
    [F7, C2] gives_a_lock_to_one_of_processes_that_die needs [Processes] within bound;
    /// Of many who ask at once a rate lets as many through as it says, in any span of the store's clock.
    [F8, C8] keeps_a_rate_under_racing_askers;
    /// A queue with a rate gives nothing to a claim that does not say that it is within it, and holds up no other queue.
    [F8, C7] gives_nothing_from_a_queue_with_a_rate_unasked;
    /// Consumers that race for a queue with a rate are given as many jobs as it says in any span, and lose no attempt.
    [F8, C4] keeps_the_rate_of_a_queue_under_racing_consumers;
    /// Processes that race for a queue with a rate are given no more jobs than it says, also where one is killed.
    [F8] keeps_the_rate_of_a_queue_over_processes needs [Processes] within bound;
}

const HOLDERS: usize = 16;

fn store(t: &Bench) -> Store {
    Store::with_limits(t.shared_backend(), Limits::default())
}

/// What a lock protects: it remembers the token of who came in last.
#[derive(Default)]
struct Ledger(AtomicU64);

impl Ledger {
    fn enter(&self, token: u64) -> Kept {
        let before = self.0.swap(token, Ordering::SeqCst);
        must!(before < token, "the token {token} came after {before}");
        Ok(())
    }

    fn leave(&self, token: u64) -> Kept {
        let last = self.0.load(Ordering::SeqCst);
        must_eq!(last, token, "the token of who came in last, when the holder goes out");
        Ok(())
    }
}

async fn gives_a_lock_to_one_at_a_time(t: Bench) -> Kept {
    let ledger = Arc::new(Ledger::default());
    let clients = t.several(4).await?;
    let mut holders = tokio::task::JoinSet::new();
    for number in 0..HOLDERS {
        let (store, ledger) = (store(&clients[number % clients.len()]), Arc::clone(&ledger));
        holders.spawn(async move { come_and_go(&store, &ledger).await });
    }
    while let Some(holder) = holders.join_next().await {
        holder.map_err(|error| Breach::new(error.to_string()))??;
    }
    Ok(())
}

async fn come_and_go(store: &Store, ledger: &Ledger) -> Kept {
    const ROUNDS: usize = 3;
    for _ in 0..ROUNDS {
        let guard = store.lock("ledger")?.lease(secs(60)).wait(secs(100)).acquire().await?;
        let token = guard.token();
        ledger.enter(token)?;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        must!(guard.is_held(), "the lock was lost");
        ledger.leave(token)?;
        must!(guard.release().await?, "the lock was not the holder's own when it gave it back");
    }
    Ok(())
}

async fn frees_the_lock_of_a_holder_that_is_gone(t: Bench) -> Kept {
    let lock = store(&t).lock("$the {lock}")?.lease(secs(30));
    let first = lock.try_acquire().await?.ok_or_else(|| Trouble::Unmet("a new lock is not free".into()))?;
    let other = store(&t.another().await?).lock("$the {lock}")?.lease(secs(30));
    t.advance(secs(30));
    must!(other.try_acquire().await?.is_none(), "a lock was given away at the last moment of its lease");
    t.advance(Duration::from_millis(1));
    let second = other.try_acquire().await?;
    let second = second.ok_or_else(|| Trouble::Unmet("a lock whose lease is over is not free".into()))?;
    must!(second.token() > first.token(), "{} came after {}", second.token(), first.token());
    must_eq!(first.release().await?, false, "whether a lock that was lost was given back");
    must!(lock.try_acquire().await?.is_none(), "a late release freed the lock of somebody else");
    must_eq!(second.release().await?, true);
    must!(lock.try_acquire().await?.is_some(), "a lock that was given back is not free");
    Ok(())
}

const PROCESSES: usize = 16;
const LEASE: u64 = 60;

/// Lets all who are awake ask for the lock at once; answers who got it, and the token.
async fn contend(crew: &mut Crew, awake: &[usize]) -> Kept<Vec<(usize, u64)>> {
    for number in awake {
        crew.tell(*number, &Order::Lock("ledger".into(), LEASE))?;
    }
    let mut holders = Vec::new();
    for number in awake {
        match crew.hear_from(*number).await? {
            Said::Token(token) => holders.extend(token.map(|token| (*number, token))),
            other => return Err(Breach::new(format!("child {number} said {other:?}"))),
        }
    }
    Ok(holders)
}

/// Lets them contend for a free lock: one of them gets it, with a greater token than the last.
async fn one_gets_it(crew: &mut Crew, awake: &[usize], last: u64) -> Kept<(usize, u64)> {
    let holders = contend(crew, awake).await?;
    let [(holder, token)] = holders[..] else {
        return Err(Breach::new(format!("of {awake:?} these got a free lock: {holders:?}")));
    };
    must!(token > last, "the token {token} came after {last}");
    Ok((holder, token))
}

async fn gives_a_lock_to_one_of_processes_that_die(t: Bench) -> Kept {
    let mut crew = Crew::gather(&t, Hour::Manual).await?;
    crew.start_all(PROCESSES).await?;
    let mut alive: Vec<usize> = (0..PROCESSES).collect();
    let mut last = 0;
    for round in 0..4 {
        let (holder, token) = one_gets_it(&mut crew, &alive, last).await?;
        alive.retain(|number| *number != holder);
        must_eq!(contend(&mut crew, &alive).await?, [], "who got a lock that is held");
        let sleeps = round % 2 == 1;
        if sleeps {
            crew.freeze(holder)?;
        } else {
            crew.kill(holder)?;
        }
        must_eq!(contend(&mut crew, &alive).await?, [], "who got a lock whose lease was not over");
        crew.pass(LEASE + 1).await?;
        let (heir, greater) = one_gets_it(&mut crew, &alive, token).await?;
        if sleeps {
            crew.tell(holder, &Order::Unlock)?;
            crew.thaw(holder)?;
            must_eq!(crew.hear_from(holder).await?, Said::Count(0), "whether who slept gave it back");
            must_eq!(contend(&mut crew, &[holder]).await?, [], "who got a lock that is held");
            alive.push(holder);
        } else {
            alive.push(crew.start(&[]).await?);
        }
        must_eq!(crew.ask(heir, &Order::Unlock).await?, Said::Count(1), "whether the holder gave it back");
        last = greater;
    }
    Ok(())
}

async fn keeps_a_rate_under_racing_askers(t: Bench) -> Kept {
    const LIMIT: u32 = 10;
    let per = Duration::from_hours(1);
    let clients = t.several(4).await?;
    let mut granted = Vec::new();
    for step in 0..12 {
        let mut askers = tokio::task::JoinSet::new();
        for number in 0..HOLDERS {
            let store = store(&clients[number % clients.len()]);
            askers.spawn(async move { store.rate_limit("api", LIMIT, per).await });
        }
        while let Some(answer) = askers.join_next().await {
            let answer = answer.map_err(|error| Breach::new(error.to_string()))??;
            if let Admission::Granted { left } = answer {
                must!((1..=LIMIT).contains(&left), "{left} were left of {LIMIT}");
                granted.push(t.hour());
            }
        }
        if step == 0 {
            must_eq!(granted.len(), LIMIT as usize, "how many of {HOLDERS} at once");
        }
        t.advance(Duration::from_mins(21));
    }
    for (i, from) in granted.iter().enumerate() {
        let within = granted[i..].iter().take_while(|at| at.since(*from) < per).count();
        must!(within <= LIMIT as usize, "{within} within the hour that began at {from:?}");
    }
    // Every 63 minutes there is room for as many again.
    must_eq!(granted.len(), 4 * LIMIT as usize);
    Ok(())
}

async fn set_rate(t: &Bench, queue: &QueueName, rate: Option<Rate>) -> Done {
    let settings = QueueSettings { rate, ..QueueSettings::default() };
    let request = SetQueue { queue: queue.clone(), settings };
    Ok(t.backend().set_queue(in_time(0), request).await?)
}

async fn gives_nothing_from_a_queue_with_a_rate_unasked(t: Bench) -> Kept {
    let (a, b) = (queue("a"), queue("b"));
    let rate = Some(Rate::new(1, secs(1)));
    set_rate(&t, &a, rate).await?;
    let first = t.add(job().queue(a.clone()).priority(5)).await?;
    let other = t.add(job().queue(b.clone())).await?;
    let ids = |given: Vec<LeasedJob>| -> Vec<JobId> { given.iter().map(|lease| lease.job.id).collect() };
    let client = t.another().await?;
    must_eq!(client.claim_from(&a, 5).await?.len(), 0, "jobs given from a queue with a rate");
    let both = Claim { queues: vec![a.clone(), b.clone()], ..t.asking(5) };
    must_eq!(ids(client.claim_as(both).await?), [other]);
    let shown = client.backend().queues(in_time(0)).await?;
    let shown = shown.into_iter().find(|record| record.queue == a).map(|record| record.settings.rate);
    must_eq!(shown, Some(rate), "the rate that is shown");
    let within = || Claim { queues: vec![a.clone(), b.clone()], rated: true, ..t.asking(5) };
    let asked = within();
    must_eq!(ids(client.claim_as(asked.clone()).await?), [first], "what is given to who is within the rate");
    must_eq!(ids(client.claim_as(asked).await?), [first], "the same to the same claim made again");
    t.pause(&a, true).await?;
    let second = t.add(job().queue(a.clone())).await?;
    must_eq!(ids(client.claim_as(within()).await?), [], "what is given from a queue that is paused");
    set_rate(&t, &a, None).await?;
    must_eq!(ids(client.claim_from(&a, 5).await?), [second], "what is given once there is no rate");
    Ok(())
}

async fn keeps_the_rate_of_a_queue_under_racing_consumers(t: Bench) -> Kept {
    const LIMIT: usize = 5;
    let (name, per) = (queue("rated"), Duration::from_hours(1));
    set_rate(&t, &name, Some(Rate::new(LIMIT as u32, per))).await?;
    t.add_all((0..3 * LIMIT).map(|_| job().queue(name.clone()))).await?;
    let clients = t.several(4).await?;
    for hour in 1..=3 {
        let mut consumers = tokio::task::JoinSet::new();
        for client in &clients {
            let (store, name) = (store(client), name.clone());
            consumers.spawn(async move { consume(&store, &name).await });
        }
        let mut given = 0;
        while let Some(consumer) = consumers.join_next().await {
            given += consumer.map_err(|error| Breach::new(error.to_string()))??;
        }
        must_eq!(given, LIMIT, "how many were given in the hour {hour}");
        t.advance(per);
    }
    Ok(())
}

async fn consume(store: &Store, queue: &QueueName) -> Kept<usize> {
    let (mut consumer, mut given) = (store.queue(queue)?.consumer(), 0);
    while let Some(held) = consumer.next().await? {
        must_eq!((held.job().attempt, held.job().history.len()), (1, 0));
        held.complete(None).await?;
        given += 1;
    }
    Ok(given)
}

async fn keeps_the_rate_of_a_queue_over_processes(t: Bench) -> Kept {
    const LIMIT: u64 = 6;
    let mut crew = Crew::gather(&t, Hour::Manual).await?;
    let name = queue("rated");
    set_rate(&crew.t, &name, Some(Rate::new(LIMIT as u32, secs(3_600)))).await?;
    crew.t.add_all((0..4 * LIMIT).map(|_| job().queue(name.clone()))).await?;
    crew.start_all(PROCESSES).await?;
    let order = Order::Consume(name.to_string());
    for number in 0..PROCESSES {
        crew.tell(number, &order)?;
    }
    // Wherever that one is, what it had leave for goes to nobody else.
    crew.kill(0)?;
    let mut given = 0;
    for number in 1..PROCESSES {
        let said = crew.hear_from(number).await?;
        let Said::Count(count) = said else { return Err(Breach::new(format!("it said {said:?}"))) };
        given += count;
    }
    must!(given <= LIMIT, "{given} were given to others within a span than the one that was killed");
    crew.pass(3_700).await?;
    must_be!(crew.ask(1, &order).await?, Said::Count(count) if *count == LIMIT);
    must_be!(crew.ask(2, &order).await?, Said::Count(0));
    Ok(())
}
