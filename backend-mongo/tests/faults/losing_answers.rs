//! Each call that writes is cut off from each of its answers in turn, after the server has given it: what it did is
//! unknown, and the call made again has the effect of one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leasehold_core::backend::{
    Action, Amend, AppendLogs, CheckIn, Counts, DeleteRegister, Enqueue, Expired, Filter, Level, List,
    LogAppend, LogSource, NewFailure, NewLine, Order, Pause, Prune, PutRegister, QueueSettings, ReadLogs,
    Recover, Registers, Renew, Renewal, Select, SetQueue, Settle, Settlement, Space, StopWorkers, Verdict,
    WorkerInfo, Workers,
};
use leasehold_core::{
    Backend, Due, ErrorKind, JobId, Keep, LeasedJob, NewJob, Payload, Progress, QueueName, Reason,
    RegisterName, Result, WorkerId,
};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::{Mongo as Server, Proxy};

use crate::bench::{LEASE, again, asking, fresh, job, jobs, set_up, soon, until};

/// A call has no more answers than this.
const ANSWERS: usize = 40;

/// A store that is reached directly, and through a wire that loses answers.
struct Lossy {
    _server: Server,
    proxy: Proxy,
    near: Mongo,
    far: Mongo,
    database: String,
}

impl Lossy {
    async fn start() -> Self {
        let server = Server::own(1).expect("a server");
        let proxy = Proxy::to(server.nodes()[0].port()).await.expect("a proxy");
        let database = fresh();
        let near = set_up(Config::new(server.url()).database(&database)).await;
        let through = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port());
        let far = Mongo::with(Config::new(through).database(&database)).await.expect("a store");
        Self { _server: server, proxy, near, far, database }
    }

    /// Loses the answer to the n-th command from now on that is for our database, and to the one after it: the driver
    /// may have sent the same once more. What is asked about the hour or said to watchers does not count.
    fn lose(&self, n: usize) {
        let (ours, seen) = (self.database.clone(), AtomicUsize::new(0));
        self.proxy.lose_answers_to(move |request| {
            let has = |text: &str| request.windows(text.len()).any(|part| part == text.as_bytes());
            let counts = has(&ours) && !has("_signals") && !has("hello") || has("commitTransaction");
            counts && (n..n + 2).contains(&(seen.fetch_add(1, Ordering::SeqCst) + 1))
        });
    }

    /// Makes a call with the loss of its first answer, then another with that of its second, and so on until it
    /// has no more. Each is repeated until it is answered, and must then have had the effect that it has with no
    /// loss. And at least once its effect must have been there though its answer was lost: while it was unknown, or
    /// because the call could do without.
    async fn sweep<S, A>(
        &self,
        name: &str,
        prepare: impl AsyncFn(&Mongo, QueueName) -> S,
        call: impl AsyncFn(&Mongo, &S) -> Result<A>,
        effect: impl AsyncFn(&Mongo, QueueName, &S) -> String,
    ) {
        let queue = |n: usize| QueueName::new(format!("{name}_{n}")).expect("a name");
        let subject = prepare(&self.near, queue(0)).await;
        call(&self.near, &subject).await.expect(name);
        let wanted = effect(&self.near, queue(0), &subject).await;
        let (mut in_doubt, mut applied, mut coped) = (0, 0, 0);
        for n in 1.. {
            assert!(n <= ANSWERS, "{name} has no end");
            let subject = prepare(&self.near, queue(n)).await;
            let lost = self.proxy.lost();
            self.lose(n);
            let outcome = call(&self.far, &subject).await;
            let last = self.proxy.lost() == lost;
            self.proxy.lose_no_answer();
            coped += usize::from(outcome.is_ok() && !last);
            if let Err(error) = outcome {
                assert_eq!(error.kind(), ErrorKind::Unknown, "{name}, answer {n}: {error:?}");
                in_doubt += 1;
                applied += usize::from(effect(&self.near, queue(n), &subject).await == wanted);
                again(async || call(&self.far, &subject).await).await;
            }
            assert_eq!(effect(&self.near, queue(n), &subject).await, wanted, "{name}, answer {n}");
            if last {
                println!("{name}: {} answers, {in_doubt} in doubt, {applied} of those applied", n - 1);
                break;
            }
        }
        assert!(applied + coped > 0, "{name}: no lost answer was that of a call that had its effect");
    }
}

/// What is kept of the jobs of a queue, with nothing that differs from run to run.
async fn kept(store: &Mongo, queue: QueueName) -> String {
    let mut filter = Filter::default();
    filter.queues = Some(vec![queue.clone()]);
    let list = List { filter, order: Order::OldestFirst, after: None, limit: 100 };
    let page = store.list(soon(), list).await.expect("a page");
    let jobs = page.jobs.iter().map(|job| {
        let (history, progress) = (job.history.len(), job.progress.is_some());
        let (result, generation) = (job.result.is_some(), job.generation);
        let moved = (job.options.priority, job.cancel_requested);
        format!(
            "{} {:?} {} {} {generation} {history} {progress} {result} {moved:?}",
            job.state, job.reason, job.attempt, job.crashes
        )
    });
    let mut jobs: Vec<String> = jobs.collect();
    jobs.sort();
    let counts = store.counts(soon(), Counts { queues: Some(vec![queue]) }).await.expect("counts");
    let counts: Vec<_> = counts.iter().map(|count| (count.enqueued, count.deleted)).collect();
    format!("{jobs:?} {counts:?}")
}

async fn with_jobs(store: &Mongo, queue: &QueueName, jobs: Vec<NewJob>) {
    let jobs = jobs.into_iter().map(|job| job.queue(queue.clone())).collect();
    store.enqueue(soon(), Enqueue { jobs }).await.expect("taken in");
}

/// A job of this queue that runs.
async fn running(store: &Mongo, queue: &QueueName, job: NewJob) -> LeasedJob {
    with_jobs(store, queue, vec![job]).await;
    let mut claim = asking(1);
    claim.queues = [queue.clone()].into();
    store.claim(soon(), claim).await.expect("a claim").jobs.remove(0)
}

fn later(reason: Reason) -> Verdict {
    Verdict::Retry { reason, delay: Duration::from_secs(3_600), queue: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_worker_whose_answer_is_lost_has_the_effect_of_one_when_it_is_repeated() {
    let lossy = Lossy::start().await;
    lossy
        .sweep(
            "enqueue",
            async |_, queue| jobs(3).into_iter().map(|job| job.queue(queue.clone())).collect::<Vec<_>>(),
            async |store, jobs| store.enqueue(soon(), Enqueue { jobs: jobs.clone() }).await,
            async |store, queue, _| kept(store, queue).await,
        )
        .await;
    let key = || "narrow".parse().expect("a key");
    for (name, some) in [("claim", job()), ("claim_limited", job().limit(key(), 1_000))] {
        lossy
            .sweep(
                name,
                async |store, queue| {
                    let again = |_| some.clone().id(JobId::generate());
                    with_jobs(store, &queue, (0..3).map(again).collect()).await;
                    let mut claim = asking(2);
                    claim.queues = [queue].into();
                    claim
                },
                async |store, claim| {
                    let claimed = store.claim(soon(), claim.clone()).await?;
                    assert_eq!(claimed.jobs.len(), 2);
                    Ok(())
                },
                async |store, queue, _| kept(store, queue).await,
            )
            .await;
    }
    lossy
        .sweep(
            "renew",
            async |store, queue| running(store, &queue, job()).await,
            async |store, lease| {
                let progress =
                    Some(Progress { done: 1, total: Some(2), message: "half".into(), cursor: None });
                let (job, token) = (lease.job.id, lease.token);
                let renewals = vec![Renewal { job, token, lease: LEASE * 2, progress }];
                store.renew(soon(), Renew { renewals }).await
            },
            async |store, queue, _| kept(store, queue).await,
        )
        .await;
    lossy
        .sweep(
            "settle",
            async |store, queue| running(store, &queue, job()).await,
            async |store, lease| {
                let failure = Some(NewFailure {
                    reason: Reason::Error,
                    class: "Odd".into(),
                    message: "it failed".into(),
                });
                let (job, token) = (lease.job.id, lease.token);
                let settlements = vec![Settlement { job, token, verdict: later(Reason::Error), failure }];
                store.settle(soon(), Settle { settlements }).await
            },
            async |store, queue, _| kept(store, queue).await,
        )
        .await;
    lossy
        .sweep(
            "recover",
            async |store, queue| {
                let lease = running(store, &queue, job().lease(Duration::from_millis(10))).await;
                until("the lease has run out", async || {
                    let lost = store.expired(soon(), Expired { limit: 100 }).await.expect("leases");
                    lost.iter().any(|lost| lost.job == lease.job.id)
                })
                .await;
                lease
            },
            async |store, lease| {
                let (job, token) = (lease.job.id, lease.token);
                let verdict = later(Reason::LeaseExpired);
                let settlements = vec![Settlement { job, token, verdict, failure: None }];
                store.recover(soon(), Recover { settlements }).await
            },
            async |store, queue, _| kept(store, queue).await,
        )
        .await;
    lossy
        .sweep(
            "append_logs",
            async |store, queue| running(store, &queue, job()).await,
            async |store, lease| {
                let line = |text: &str| NewLine { level: Level::Info, message: text.into() };
                let lines = vec![line("one"), line("two")];
                let append = LogAppend { job: lease.job.id, token: lease.token, position: 0, lines };
                store.append_logs(soon(), AppendLogs { appends: vec![append] }).await
            },
            async |store, _, lease| {
                let read = ReadLogs { source: LogSource::Job(lease.job.id), after: 0, limit: 100 };
                let page = store.read_logs(soon(), read).await.expect("lines");
                format!("{:?}", page.lines.iter().map(|line| &line.message).collect::<Vec<_>>())
            },
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_an_operator_whose_answer_is_lost_has_the_effect_of_one_when_it_is_repeated() {
    let lossy = Lossy::start().await;
    let to = QueueName::new("elsewhere").expect("a name");
    let due = Due::In(Duration::from_secs(3_600));
    for (name, action) in [
        ("cancel", Action::Cancel),
        ("delete", Action::Delete),
        ("move", Action::Move { queue: to }),
        ("reprioritise", Action::Reprioritise { priority: 7 }),
        ("postpone", Action::Postpone { due }),
        ("requeue", Action::Requeue { due }),
    ] {
        lossy
            .sweep(
                name,
                async |store, queue| {
                    let lease = running(store, &queue, job()).await;
                    let verdict = match action {
                        Action::Requeue { .. } => Verdict::Succeed { result: None },
                        _ => later(Reason::Error),
                    };
                    crate::bench::settle(store, &lease, &verdict).await;
                    lease.job.id
                },
                async |store, job| {
                    let select = Select::Ids(vec![*job]);
                    store.amend(soon(), Amend { select, action: action.clone(), preview: false }).await
                },
                async |store, queue, _| kept(store, queue).await,
            )
            .await;
    }
    lossy
        .sweep(
            "prune",
            async |store, queue| {
                let lease = running(store, &queue, job().keep(Keep::For(Duration::ZERO))).await;
                crate::bench::settle(store, &lease, &Verdict::Succeed { result: None }).await;
                // It goes once its moment is past, which is not yet so in its very millisecond.
                let ended = store.now(soon()).await.expect("the hour");
                until("the clock moves", async || store.now(soon()).await.expect("the hour") > ended).await;
            },
            async |store, ()| store.prune(soon(), Prune { limit: 10, workers_after: LEASE * 100 }).await,
            async |store, queue, ()| kept(store, queue).await,
        )
        .await;
    lossy
        .sweep(
            "set_queue",
            async |_, queue| queue,
            async |store, queue| {
                let pause = Some(Pause { by: "ann".into(), reason: "lunch".into() });
                let settings = QueueSettings { pause, ..QueueSettings::default() };
                store.set_queue(soon(), SetQueue { queue: queue.clone(), settings }).await
            },
            async |store, queue, _| {
                let queues = store.queues(soon()).await.expect("queues");
                let ours: Vec<_> = queues.iter().filter(|record| record.queue == queue).collect();
                format!("{:?}", ours.iter().map(|record| &record.settings).collect::<Vec<_>>())
            },
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_about_the_fleet_whose_answer_is_lost_has_the_effect_of_one_when_it_is_repeated() {
    let lossy = Lossy::start().await;
    let info = || WorkerInfo::new("host:1".parse().expect("a name"), "host", 1);
    let check_in = |worker| CheckIn { worker, info: info(), lost_after: LEASE, leaving: false };
    let there = async |store: &Mongo, worker: &WorkerId| {
        let workers = store.workers(soon(), Workers { after: None, limit: 1_000 }).await.expect("workers");
        let ours = workers.iter().filter(|record| record.worker == *worker);
        format!("{:?}", ours.map(|record| (record.left, record.stop_requested)).collect::<Vec<_>>())
    };
    lossy
        .sweep(
            "check_in",
            async |_, _| WorkerId::generate(),
            async |store, worker| store.check_in(soon(), check_in(*worker)).await,
            async |store, _, worker| there(store, worker).await,
        )
        .await;
    lossy
        .sweep(
            "stop_workers",
            async |store, _| {
                let worker = WorkerId::generate();
                store.check_in(soon(), check_in(worker)).await.expect("checked in");
                worker
            },
            async |store, worker| store.stop_workers(soon(), StopWorkers::One(*worker)).await,
            async |store, _, worker| there(store, worker).await,
        )
        .await;
    let put = |queue: &QueueName| {
        let name = RegisterName::new(queue.as_str()).expect("a name");
        PutRegister::new(Space::Schedule, name, Payload::from(b"{}".to_vec()), None)
    };
    let scheduled = async |store: &Mongo, name: &RegisterName| {
        let named = Registers::named(Space::Schedule, name.clone());
        let found = store.registers(soon(), named).await.expect("registers").registers;
        found.iter().map(|found| found.version).collect::<Vec<_>>()
    };
    lossy
        .sweep(
            "put_register",
            async |_, queue| put(&queue),
            async |store, put| store.put_register(soon(), put.clone()).await,
            async |store, _, put| format!("{}", scheduled(store, &put.name).await == [put.version]),
        )
        .await;
    lossy
        .sweep(
            "delete_register",
            async |store, queue| {
                let put = put(&queue);
                store.put_register(soon(), put.clone()).await.expect("put");
                put.name
            },
            async |store, name| {
                store.delete_register(soon(), DeleteRegister::named(Space::Schedule, name.clone())).await
            },
            async |store, _, name| format!("{:?}", scheduled(store, name).await),
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enqueue_that_is_repeated_under_new_ids_is_there_twice() {
    // That the sweeps find one effect is not because nothing was applied: so it goes without ids of the caller's.
    let lossy = Lossy::start().await;
    let there = async || crate::bench::counts(&lossy.near).await.total();
    for n in 1..ANSWERS {
        lossy.lose(n);
        let _ = lossy.far.enqueue(soon(), Enqueue { jobs: jobs(3) }).await.expect_err("no answer");
        lossy.proxy.lose_no_answer();
        if there().await > 0 {
            break;
        }
    }
    again(async || lossy.far.enqueue(soon(), Enqueue { jobs: jobs(3) }).await).await;
    assert_eq!(there().await, 6);
}
