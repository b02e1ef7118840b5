//! Workers that stop, die, or lose their leases or their store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::backend::{Claim, Level, LogSource, StopWorkers};
use leasehold_core::layer::Operation;
use leasehold_core::policy::BoxError;
use leasehold_core::testing::{Chaos, Faults, ManualClock, enqueued, run_all};
use leasehold_core::worker::{Args, Json, State as Shared};
use leasehold_core::{Attempt, JobArgs, Keep, Limits, NewJob, Reason, State, Store, WorkerId};
use leasehold_memory::Memory;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::probe::{Fate, Probe};
use crate::{Add, store};

use crate::worker::{add, builder, enqueue, only, recover};

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_finishes_within_its_grace_and_gives_the_rest_back() {
    let store = store();
    for a in [1, 1_000] {
        enqueue(&store, a, 0).await;
    }
    async fn sleep(Args(sum): Args<Add>) {
        tokio::time::sleep(Duration::from_secs(sum.a)).await;
    }
    let worker =
        builder(&store).grace(Duration::from_secs(10)).handle(Add::KIND, sleep).build().unwrap().start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = tokio::time::Instant::now();
    let summary = worker.stop().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    assert_eq!((summary.succeeded, summary.released), (1, 1));
    let jobs = enqueued(&store, Add::KIND).await.unwrap();
    assert_eq!((jobs[0].state, jobs[0].attempt), (State::Succeeded, 1));
    assert_eq!(
        (jobs[1].state, jobs[1].attempt, jobs[1].reason),
        (State::Queued, 0, Some(Reason::Interrupted))
    );
    assert!(store.workers(None, 10).await.unwrap()[0].left);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_interrupted_gives_all_back_at_once() {
    let store = store();
    for a in 0..3 {
        enqueue(&store, a, 0).await;
    }
    async fn endless() {
        std::future::pending::<()>().await;
    }
    let worker = builder(&store).concurrency(2).handle(Add::KIND, endless).build().unwrap().start();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = tokio::time::Instant::now();
    worker.stopper().interrupt();
    worker.join().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let jobs = enqueued(&store, Add::KIND).await.unwrap();
    assert!(jobs.iter().all(|job| (job.state, job.attempt) == (State::Queued, 0)), "{jobs:?}");
    assert_eq!(jobs.iter().filter(|job| job.reason == Some(Reason::Interrupted)).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_job_is_told_and_ends_as_cancelled() {
    let store = store();
    let polite = enqueue(&store, 1, 0).await;
    let rude = enqueue(&store, 2, 0).await;
    async fn until_cancelled(Args(sum): Args<Add>, attempt: Attempt) -> Result<(), &'static str> {
        if sum.a == 2 {
            std::future::pending::<()>().await;
        }
        attempt.cancelled().await;
        Err("told to end")
    }
    let worker = builder(&store).handle(Add::KIND, until_cancelled).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for job in [polite, rude] {
        store.cancel(job).await.unwrap();
    }
    for job in [polite, rude] {
        let ended = store.wait(job, Duration::from_secs(60)).await.unwrap();
        assert_eq!((ended.state, ended.reason), (State::Cancelled, Some(Reason::Cancelled)));
    }
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_dead_worker_run_again_and_poison_is_set_aside() {
    let store = store();
    let queue = store.queue("sums").unwrap();
    queue.enqueue(NewJob::of(&Add { a: 1, b: 0 }).unwrap().crash_budget(1)).await.unwrap();
    queue.enqueue(Add { a: 2, b: 0 }).await.unwrap();
    async fn deadly(Args(sum): Args<Add>) {
        if sum.a == 1 {
            std::future::pending::<()>().await;
        }
    }
    for _ in 0..2 {
        let worker = builder(&store).name("same name").handle(Add::KIND, deadly).build().unwrap().start();
        tokio::time::sleep(Duration::from_secs(10)).await;
        drop(worker); // as `kill -9` does: nothing is given back
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let survivor = builder(&store).name("same name").handle(Add::KIND, add).build().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    run_all(&store, survivor).await.unwrap();
    let jobs = enqueued(&store, Add::KIND).await.unwrap();
    assert_eq!((jobs[1].state, jobs[1].crashes), (State::Succeeded, 0));
    // The first start was recovered by the second worker or the survivor; one crash is within the budget.
    assert!(jobs[0].state == State::Succeeded || jobs[0].reason == Some(Reason::Poison), "{:?}", jobs[0]);
    assert!(jobs[0].crashes >= 1 && jobs[0].history[0].reason == Reason::LeaseExpired);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_renew_stops_its_handlers_before_the_lease_ends() {
    let memory = Memory::new();
    let chaos = Arc::new(Chaos::new(Arc::new(memory.clone()), Faults::default(), 7));
    let store = Store::with_limits(chaos.clone(), Limits::default());
    enqueue(&store, 1, 0).await;
    let stopped = Arc::new((Mutex::new(None), Notify::new()));
    async fn watched(attempt: Attempt, stopped: Shared<Arc<(Mutex<Option<tokio::time::Instant>>, Notify)>>) {
        attempt.cancelled().await;
        *stopped.0.0.lock().unwrap() = Some(tokio::time::Instant::now());
        stopped.0.1.notify_one();
        std::future::pending::<()>().await;
    }
    let begun = tokio::time::Instant::now();
    let lease = Duration::from_secs(10);
    let worker =
        builder(&store).lease(lease).state(stopped.clone()).handle(Add::KIND, watched).build().unwrap();
    let worker = worker.start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    chaos.set(Faults { hung: 1.0, ..Faults::default() });
    stopped.1.notified().await;
    let at: tokio::time::Instant = stopped.0.lock().unwrap().unwrap();
    assert!(at.duration_since(begun) < lease, "stopped after {:?}", at.duration_since(begun));
    chaos.set(Faults::default());
    let done = builder(&store).handle(Add::KIND, add).build().unwrap();
    worker.stop().await.unwrap();
    assert_eq!(
        run_all(&store, done).await.unwrap().succeeded,
        1,
        "and the store is used again when it is back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_never_ends_a_worker() {
    let chaos = Arc::new(Chaos::new(Arc::new(Memory::new()), Faults::default(), 42));
    let store = Store::with_limits(chaos.clone(), Limits::default());
    store.queue("sums").unwrap().enqueue_all((0..300).map(|a| Add { a, b: 1 })).await.unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    async fn counted(Args(sum): Args<Add>, runs: Shared<Arc<AtomicUsize>>) -> Json<u64> {
        runs.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(sum.a)).await;
        Json(sum.a)
    }
    let handler = |args, runs| async { Ok::<_, BoxError>(counted(args, runs).await) };
    let worker = builder(&store).state(runs.clone()).handle(Add::KIND, handler).build().unwrap().start();
    let faults = Faults {
        refused: 0.2,
        request_lost: 0.2,
        reply_lost: 0.2,
        repeated: 0.2,
        late: 0.2,
        delayed: 0.2,
        hung: 0.05,
    };
    for faults in [faults, Faults { refused: 1.0, ..faults }, faults, Faults { hung: 1.0, ..faults }, faults]
    {
        chaos.set(faults);
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    chaos.set(Faults::default());
    tokio::time::sleep(Duration::from_secs(300)).await;
    let jobs = enqueued(&store, Add::KIND).await.unwrap();
    let unfinished: Vec<_> = jobs.iter().filter(|job| job.state != State::Succeeded).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
    assert!(jobs.iter().all(|job| job.history.iter().all(|failure| failure.reason == Reason::LeaseExpired)));
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn checks_in_is_seen_and_can_be_stopped_from_afar() {
    let store = store();
    let worker = builder(&store).name("adder").handle(Add::KIND, add).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = store.workers(None, 10).await.unwrap().remove(0);
    assert_eq!((seen.worker, seen.info.name.as_str(), seen.lost), (worker.id(), "adder", false));
    assert_eq!(store.stop_workers(StopWorkers::All).await.unwrap(), 1);
    worker.join().await.unwrap();
    assert!(store.workers(None, 10).await.unwrap()[0].left);
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_lease_was_lost_is_stopped_and_what_it_did_is_not_recorded() {
    let clock = ManualClock::default();
    let store = Store::new(Memory::on_clock(clock.clone()));
    let job = enqueue(&store, 1, 0).await;
    async fn slow(attempt: Attempt) {
        attempt.cancelled().await;
    }
    let worker =
        builder(&store).handle(Add::KIND, slow).recovery(Duration::from_hours(1)).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The store's clock runs ahead, and somebody else takes the job back.
    clock.advance(Duration::from_secs(31));
    recover(&store).await;
    tokio::time::sleep(Duration::from_secs(15)).await;
    let summary = worker.stop().await.unwrap();
    assert_eq!((summary.lost, summary.succeeded), (1, 0));
    let record = store.find(job).await.unwrap().unwrap();
    assert_eq!((record.state, record.attempt, record.crashes), (State::Scheduled, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_strands_nothing() {
    let memory = Memory::new();
    let chaos = Arc::new(Chaos::new(Arc::new(memory), Faults { reply_lost: 0.5, ..Faults::default() }, 3));
    let store = Store::with_limits(chaos, Limits::default());
    enqueue(&store, 1, 0).await;
    let queue = leasehold_core::QueueName::new("sums").unwrap();
    let claim = Claim::new(WorkerId::generate(), [queue], 1, Duration::from_secs(30));
    let claimed = store.backend().claim(Default::default(), claim).await.unwrap();
    assert_eq!((claimed.jobs.len(), claimed.jobs[0].job.attempt), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_does_not_block_the_stop() {
    let store = store().patience(Duration::from_millis(100));
    enqueue(&store, 1, 0).await;
    let (free, block) = std::sync::mpsc::channel::<()>();
    let (begin, mut begun) = tokio::sync::mpsc::channel(1);
    let blocking = move |block: Shared<Mutex<std::sync::mpsc::Receiver<()>>>| {
        let begin = begin.clone();
        async move {
            begin.send(()).await.unwrap();
            let _ = block.lock().unwrap().recv();
        }
    };
    let worker = builder(&store).grace(Duration::ZERO).state(Mutex::new(block)).handle(Add::KIND, blocking);
    let worker = worker.build().unwrap().start();
    begun.recv().await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(10), worker.stop()).await;
    drop(free);
    stopped.expect("it ends").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_told_before_the_grace_is_over() {
    let store = store();
    enqueue(&store, 1, 0).await;
    async fn h(attempt: Attempt) -> Result<(), BoxError> {
        attempt.cancelled().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        attempt.log(Level::Info, "checkpoint");
        Err("told to end".into())
    }
    let worker = builder(&store).grace(Duration::from_secs(30)).handle(Add::KIND, h).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(1)).await;
    worker.stop().await.unwrap();
    let job = only(&store).await;
    assert_eq!((job.state, job.attempt, job.reason), (State::Queued, 0, Some(Reason::Interrupted)));
    assert_eq!(store.logs(LogSource::Job(job.id), 0, 10).await.unwrap().lines.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_for_long_is_found_again() {
    let probe = Probe::quiet();
    let store = probe.store();
    let job = enqueue(&store, 1, 0).await;
    probe.set(|op| if op == Operation::Claim { Fate::Lose } else { Fate::Pass });
    let worker = builder(&store).handle(Add::KIND, add).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(8)).await;
    probe.set(|_| Fate::Pass);
    let done = store.wait(job, Duration::from_secs(10)).await.unwrap();
    assert_eq!((done.state, done.attempt, done.crashes), (State::Succeeded, 1, 0));
    worker.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_is_given_back_at_the_end() {
    let probe = Probe::quiet();
    let store = probe.store();
    enqueue(&store, 1, 0).await;
    probe.set(|op| if op == Operation::Claim { Fate::Lose } else { Fate::Pass });
    let worker = builder(&store).handle(Add::KIND, add).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(6)).await;
    probe.set(|_| Fate::Pass);
    worker.stop().await.unwrap();
    let job = only(&store).await;
    assert!(job.state == State::Succeeded || (job.state, job.attempt) == (State::Queued, 0), "{job:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_has_much_to_remove_goes_on_telling_that_it_lives() {
    let probe = Probe::quiet();
    let store = probe.undisturbed();
    let brief = |a| NewJob::of(&Add { a, b: 0 }).unwrap().keep(Keep::For(Duration::ZERO));
    store.queue("sums").unwrap().enqueue_all((0..10_000).map(brief)).await.unwrap();
    let ended = builder(&store).until_idle().handle(Add::KIND, add).build().unwrap().run().await;
    assert_eq!(ended.succeeded, 10_000);
    let (mut last, widest) = (Instant::now(), Arc::new(Mutex::new(Duration::ZERO)));
    let seen = widest.clone();
    probe.set(move |operation| match operation {
        Operation::Prune => Fate::Late(Duration::from_secs(4)),
        Operation::CheckIn | Operation::Expired => {
            if operation == Operation::CheckIn {
                let gap = std::mem::replace(&mut last, Instant::now()).elapsed();
                let mut widest = seen.lock().unwrap();
                *widest = gap.max(*widest);
            }
            Fate::Pass
        }
        _ => Fate::Pass,
    });
    let worker = builder(&probe.store()).handle(Add::KIND, add).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(*widest.lock().unwrap() < Duration::from_secs(10), "silent for {:?}", widest.lock().unwrap());
    worker.stop().await.unwrap();
}
