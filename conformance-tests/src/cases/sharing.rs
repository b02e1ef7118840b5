//! F7: what a fleet shares beside its jobs: locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_core::{Limits, Store};

use crate::bench::{Bench, secs};
use crate::breach::{Breach, Kept, Trouble, must, must_eq};
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

const PROCESSES: usize = 3;
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
