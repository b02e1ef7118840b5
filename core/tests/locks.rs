//! Named locks: one holder at a time, who knows when it is not the holder any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use leasehold_core::backend::{Prune, Registers, Space};
use leasehold_core::layer::Operation;
use leasehold_core::{Deadline, ErrorKind, Store};
use tokio::time::{Instant, sleep, timeout};

use crate::probe::{Fate, Probe};
use crate::store;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const LEASE: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn one_of_many_holds_it_and_the_tokens_grow() {
    let store = store();
    let (inside, seen, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)), 40);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..most {
        let (store, inside, seen) = (store.clone(), inside.clone(), seen.clone());
        tasks.spawn(async move {
            let lock = store.lock("ledger").unwrap().lease(LEASE).wait(Duration::from_mins(10));
            let guard = lock.acquire().await.unwrap();
            let token = guard.token();
            let work = async {
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else is inside");
                assert!(seen.swap(token, Ordering::SeqCst) < token, "a token did not grow");
                sleep(ms(fastrand::u64(0..10_000))).await;
                inside.fetch_sub(1, Ordering::SeqCst);
            };
            guard.run(work).await.unwrap();
        });
    }
    let begun = Instant::now();
    let done = tasks.join_all().await;
    assert_eq!(done.len(), most);
    assert!(begun.elapsed() < Duration::from_mins(8), "it was free for long: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn waits_as_long_as_it_was_told_and_looks_seldom() {
    let looks = Arc::new(AtomicU32::new(0));
    let counted = looks.clone();
    let probe = Probe::new(move |operation| {
        counted.fetch_add(u32::from(operation == Operation::Registers), Ordering::SeqCst);
        Fate::Pass
    });
    let held = probe.undisturbed().lock("a").unwrap().acquire().await.unwrap();
    let lock = probe.store().lock("a").unwrap().wait(Duration::from_secs(60));
    assert!(lock.try_acquire().await.unwrap().is_none());
    let begun = Instant::now();
    let refused = lock.acquire().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("\"a\""), "{refused}");
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert!(looks.load(Ordering::SeqCst) < 90, "{looks:?} looks in a minute");
    assert!(held.is_held());
    assert!(held.release().await.unwrap());
    let begun = Instant::now();
    assert!(lock.acquire().await.unwrap().is_held());
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn is_kept_as_long_as_its_guard_lives_and_given_back_when_it_is_dropped() {
    let store = store();
    let lock = store.lock("a").unwrap().lease(LEASE).wait(ms(1_500));
    let guard = lock.acquire().await.unwrap();
    sleep(LEASE * 100).await;
    assert!(guard.is_held());
    assert!(lock.try_acquire().await.unwrap().is_none(), "it is renewed");
    let token = guard.token();
    drop(guard);
    let next = lock.acquire().await.unwrap();
    assert!(next.token() > token);
    let lost = timeout(LEASE * 10, next.lost()).await;
    assert!(lost.is_err(), "nobody took it");
    assert!(store.lock("b").unwrap().try_acquire().await.unwrap().is_some(), "another name, another lock");
}

/// A holder whose calls do not arrive from some moment on.
async fn cut_off(fate: Fate) -> (Probe, leasehold_core::client::LockGuard) {
    let probe = Probe::quiet();
    let lock = probe.store().lock("a").unwrap().lease(LEASE);
    let guard = lock.acquire().await.unwrap();
    probe.set(move |_| fate);
    (probe, guard)
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_it_knows_that_it_is_lost_before_anybody_else_has_it() {
    for fate in [Fate::Hang, Fate::Refuse(ErrorKind::Unavailable), Fate::Panic] {
        let (probe, guard) = cut_off(fate).await;
        let begun = Instant::now();
        let other = probe.undisturbed().lock("a").unwrap().lease(LEASE);
        let ended = timeout(LEASE * 2, guard.run(std::future::pending::<()>())).await.unwrap();
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Conflict);
        assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
        assert!(other.try_acquire().await.unwrap().is_none(), "it ended before its lease did");
        let taken = other.acquire().await.unwrap();
        assert!(begun.elapsed() >= LEASE && taken.is_held());
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_release_frees_nobody_elses_lock() {
    let (probe, frozen) = cut_off(Fate::Hang).await;
    let undisturbed = probe.undisturbed();
    let other = undisturbed.lock("a").unwrap().lease(LEASE).acquire().await.unwrap();
    assert!(!frozen.is_held() && other.token() > frozen.token());
    probe.set(|_| Fate::Pass);
    assert!(!frozen.release().await.unwrap(), "it was not its own any more");
    assert!(undisturbed.lock("a").unwrap().try_acquire().await.unwrap().is_none());
    sleep(LEASE * 5).await;
    assert!(other.is_held());
    assert!(other.release().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_renewal_or_release_whose_answer_is_lost_changes_nothing() {
    let mut n = 0;
    let probe = Probe::new(move |operation| {
        n += u32::from(operation == Operation::PutRegister);
        if operation == Operation::PutRegister && n % 2 == 1 { Fate::Lose } else { Fate::Pass }
    });
    let lock = probe.store().lock("a").unwrap().lease(LEASE);
    let guard = lock.acquire().await.unwrap();
    sleep(LEASE * 20).await;
    assert!(guard.is_held());
    assert!(guard.release().await.unwrap());
    assert!(probe.undisturbed().lock("a").unwrap().try_acquire().await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn never_enters_without_it() {
    let probe = Probe::quiet();
    let lock = probe.store().lock("a").unwrap().lease(LEASE).wait(Duration::from_secs(20));
    probe.set(|operation| match operation {
        Operation::Registers => Fate::Late(LEASE),
        _ => Fate::Pass,
    });
    let begun = Instant::now();
    let outcome = timeout(Duration::from_mins(1), lock.acquire()).await.unwrap();
    let refused = outcome.err().map(|error| error.kind());
    assert_eq!(refused, Some(ErrorKind::Conflict), "an answer that came when the lease was over");
    assert!(begun.elapsed() < Duration::from_secs(40));
    probe.set(|_| Fate::Refuse(ErrorKind::Unavailable));
    assert!(lock.acquire().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn tokens_grow_also_where_the_record_was_removed_meanwhile() {
    let store = store();
    let prune = async |store: &Store| {
        let request = Prune { limit: 10, workers_after: Duration::from_hours(1) };
        store.backend().prune(Deadline::default(), request).await.unwrap().registers
    };
    let there = async |store: &Store| {
        let page = store.backend().registers(Deadline::default(), Registers::all(Space::Lock, 9)).await;
        page.unwrap().registers.len()
    };
    let lock = store.lock("a").unwrap().lease(LEASE);
    let guard = lock.acquire().await.unwrap();
    let first = guard.token();
    guard.release().await.unwrap();
    sleep(Duration::from_hours(24)).await;
    assert_eq!((prune(&store).await, there(&store).await), (0, 1), "a lock is remembered for a day");
    sleep(LEASE + ms(1)).await;
    assert_eq!((prune(&store).await, there(&store).await), (1, 0));
    assert!(lock.acquire().await.unwrap().token() > first);
}

#[tokio::test(start_paused = true)]
async fn refuses_names_and_leases_that_make_no_sense() {
    let store = store();
    for name in ["", " a", "a\nb"] {
        assert_eq!(store.lock(name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
    }
    for lease in [Duration::ZERO, Duration::MAX] {
        let lock = store.lock("a").unwrap().lease(lease);
        assert_eq!(lock.acquire().await.unwrap_err().kind(), ErrorKind::InvalidInput, "{lease:?}");
        assert_eq!(lock.try_acquire().await.unwrap_err().kind(), ErrorKind::InvalidInput, "{lease:?}");
    }
}
