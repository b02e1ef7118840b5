//! E2, E3, E4 and B4: what holds for every call.

use futures::future::BoxFuture;
use leasehold_core::backend::{
    Action, Admit, Amend, AmendAnswer, Answer, AppendLogs, Arrival, CheckIn, Counts, DeleteRegister, Enqueue,
    Expired, Filter, Find, List, LogAppend, LogSource, Order, Prune, PutRegister, QueueSettings, ReadLogs,
    Recover, Registers, Renew, Renewal, Renewed, Select, SetQueue, Settle, Space, StopWorkers, WorkerInfo,
    Workers,
};
use leasehold_core::{Backend, Deadline, Due, ErrorKind, JobId, LeasedJob, Limits, QueueName, Result, State};
use strum::VariantArray;

use crate::bench::{
    Bench, FAIL, LEASE, LOST_ATTEMPT, SUCCEED, drop_after, job, jobs, lines, queue, schedule_name, secs,
    settlement, text, token_of, verdicts, worker_name,
};
use crate::breach::{Done, Kept, must, must_eq};
use crate::case::cases;

cases! {
    /// Any call that writes may be repeated, by another client as well, and has the effect of one.
    [E2] gives_a_repeated_call_the_effect_of_one;
    /// So may an operator's change, a recovery, a check-in.
    [E2, S1, C5] gives_a_repeated_change_the_effect_of_one;
    /// The largest batches that the limits allow are taken by every call.
    [C11, P3] takes_the_largest_batches;
    /// A call whose deadline has passed answers with a transient error, and has changed nothing.
    [E3] answers_a_call_that_is_too_late_with_an_error;
    /// Dropping a call at any of its awaits leaves a client that works, and no job lost or doubled.
    [E4, S2] survives_dropped_calls;
    /// A dropped call has happened or not, whole: a batch is never half there.
    [E4, P3] leaves_no_half_of_a_dropped_batch needs [AtomicBatch];
    /// After dropped calls every answer is that of its own question.
    [E4] crosses_no_answers_after_dropped_calls;
    /// A store that is not there yet may be opened and set up by any number of clients at once.
    [B4] can_be_made_by_many_clients_at_once;
    /// Setting the store up again, by any number of clients at once and while it is used, changes nothing.
    [B4] can_be_set_up_again_at_any_time;
}

async fn gives_a_repeated_call_the_effect_of_one(t: Bench) -> Kept {
    let other = t.another().await?;
    for verdict in verdicts() {
        let jobs = jobs(3);
        t.add_all(jobs.clone()).await?;
        other.enqueue(jobs).await?;
        let claim = t.asking(3);
        let leases = t.claim_as(claim.clone()).await?;
        must_eq!(other.claim_as(claim).await?.len(), 3);
        for client in [&t, &other] {
            for lease in &leases {
                client.renew(lease, LEASE).await?;
                client.log(lease, 0, lines(["once"])).await?;
            }
        }
        let batch: Vec<_> = leases.iter().map(|lease| settlement(lease, verdict.clone())).collect();
        must_eq!(t.settle_all(batch.clone()).await?, [Answer::Applied; 3]);
        must_eq!(other.settle_all(batch).await?, [Answer::AlreadyApplied; 3]);
        for lease in &leases {
            must_eq!(t.said(lease.job.id).await?, ["once"]);
            let action = if verdict.is_terminal() { Action::Delete } else { Action::Cancel };
            t.amend(lease.job.id, action.clone()).await?;
            other.amend(lease.job.id, action).await?;
        }
    }
    let counts = t.counts().await?;
    must_eq!((counts.enqueued, counts.deleted, counts.of(State::Cancelled)), (15, 9, 6));
    Ok(())
}

async fn gives_a_repeated_change_the_effect_of_one(t: Bench) -> Kept {
    let other = t.another().await?;
    let lease = t.hold().await?;
    let id = lease.job.id;
    t.let_run_out(&lease).await?;
    for client in [&t, &other] {
        client.recover(token_of(&lease), LOST_ATTEMPT).await?;
    }
    must_eq!(t.find(id).await?.crashes, 1);
    t.finish(&t.take().await?, FAIL).await?;
    let actions = [
        Action::Requeue { due: Due::Now },
        Action::Reprioritise { priority: 3 },
        Action::Move { queue: queue("elsewhere") },
        Action::Postpone { due: Due::At(t.hour().plus(secs(60))) },
        Action::Cancel,
    ];
    for action in actions {
        t.amend(id, action.clone()).await?;
        let once = t.find(id).await?;
        other.amend(id, action.clone()).await?;
        must_eq!(t.find(id).await?, once, "the job after {action:?} was repeated");
    }
    let job = t.find(id).await?;
    must_eq!((job.generation, job.state), (1, State::Cancelled));
    must_eq!(t.counts().await?.deleted, 1, "jobs moved out");
    for client in [&t, &other] {
        let info = WorkerInfo::new(worker_name("w"), "h", 1);
        let check_in = CheckIn { worker: t.worker, info, lost_after: secs(9), leaving: false };
        client.backend().check_in(Deadline::default(), check_in).await?;
    }
    must_eq!(t.backend().workers(Deadline::default(), Workers { after: None, limit: 9 }).await?.len(), 1);
    Ok(())
}

async fn takes_the_largest_batches(t: Bench) -> Kept {
    let most = Limits::default().batch;
    let ids = t.add_all(jobs(most)).await?;
    let leases = t.claim(most).await?;
    must_eq!(leases.len(), most);
    let renewal = |l: &LeasedJob| Renewal { job: l.job.id, token: l.token, lease: LEASE * 2, progress: None };
    let renewed = t.renew_all(leases.iter().map(renewal).collect()).await?;
    must!(!renewed.contains(&Renewed::Lost), "a renewal of a large batch was lost");
    let settlements = leases.iter().map(|lease| settlement(lease, SUCCEED)).collect();
    let settled = t.settle_all(settlements).await?;
    must!(settled.iter().all(|answer| *answer == Answer::Applied), "a settlement of a large batch was lost");
    must!(t.find_all(&ids).await?.iter().all(Option::is_some), "a job of a large batch was not found");
    let amended = t.amend_all(&ids, Action::Delete).await?;
    must!(amended.iter().all(|answer| *answer == AmendAnswer::Applied), "a job was not deleted");
    must_eq!(t.counts().await?.deleted, most as u64);
    Ok(())
}

/// Every method of the contract, called with this deadline on a store that has something for each to do.
async fn call_all(
    backend: &dyn Backend,
    t: &Bench,
    d: Deadline,
    held: &LeasedJob,
) -> Vec<(&'static str, Result<()>)> {
    let (id, token) = (held.job.id, held.token);
    let none = QueueSettings::default();
    let amend = Amend { select: Select::Ids(vec![id]), action: Action::Cancel, preview: false };
    let list = List { filter: Filter::default(), order: Order::NewestFirst, after: None, limit: 9 };
    let info = WorkerInfo::new(worker_name("w"), "h", 1);
    let check_in = CheckIn { worker: t.worker, info, lost_after: secs(9), leaving: false };
    let put = PutRegister::new(Space::Schedule, schedule_name("s"), text(""), None);
    let mut arrived = held.job.clone();
    (arrived.id, arrived.state, arrived.lease_until) = (JobId::generate(), State::Queued, None);
    let settlements = vec![settlement(held, SUCCEED)];
    let renewals = vec![Renewal { job: id, token, lease: LEASE * 9, progress: None }];
    let appends = vec![LogAppend { job: id, token, position: 0, lines: lines(["late"]) }];
    macro_rules! calls {
        ($($call:ident ( $($argument:expr)? )),+ $(,)?) => {
            vec![$((stringify!($call), backend.$call(d $(, $argument)?).await.map(drop))),+]
        };
    }
    calls![
        describe(),
        setup(),
        now(),
        enqueue(Enqueue { jobs: vec![job()] }),
        admit(Admit { jobs: vec![Arrival { job: arrived, logs: Vec::new() }] }),
        claim(t.asking(5)),
        renew(Renew { renewals }),
        append_logs(AppendLogs { appends }),
        settle(Settle { settlements: settlements.clone() }),
        expired(Expired { limit: 9 }),
        recover(Recover { settlements }),
        read_logs(ReadLogs { source: LogSource::Job(id), after: 0, limit: 9 }),
        find(Find { ids: vec![id] }),
        list(list),
        counts(Counts::default()),
        amend(amend),
        set_queue(SetQueue { queue: queue("new"), settings: none }),
        queues(),
        prune(Prune { limit: 9, workers_after: secs(0) }),
        check_in(check_in),
        workers(Workers { after: None, limit: 9 }),
        stop_workers(StopWorkers::All),
        put_register(put),
        registers(Registers::all(Space::Schedule, 9)),
        delete_register(DeleteRegister::named(Space::Schedule, schedule_name("s"))),
    ]
}

/// All that can be seen of the store.
pub(super) async fn all_seen(t: &Bench) -> Done<String> {
    let d = Deadline::default;
    let jobs = t.list(&Filter::default(), Order::OldestFirst, 100).await?;
    let counts = t.all_counts().await?;
    let queues = t.backend().queues(d()).await?;
    let workers = t.backend().workers(d(), Workers { after: None, limit: 9 }).await?;
    let mut registers = Vec::new();
    for space in Space::VARIANTS {
        registers.extend(t.backend().registers(d(), Registers::all(*space, 9)).await?.registers);
    }
    Ok(format!("{jobs:#?}\n{counts:#?}\n{queues:#?}\n{workers:#?}\n{registers:#?}"))
}

async fn answers_a_call_that_is_too_late_with_an_error(t: Bench) -> Kept {
    let held = t.hold().await?;
    t.add(job()).await?;
    let before = all_seen(&t).await?;
    let late = Deadline::after(secs(0));
    for (call, answer) in call_all(t.backend(), &t, late, &held).await {
        let Err(error) = answer else {
            must!(false, "{call} answered although its deadline had passed");
            continue;
        };
        let kind = error.kind();
        must!(
            matches!(kind, ErrorKind::Unavailable | ErrorKind::Unknown),
            "{call} answered {error:?}, and a call that is too late is unavailable or unknown"
        );
    }
    must_eq!(all_seen(&t).await?, before);
    must_eq!(t.said(held.job.id).await?.len(), 0);
    t.finish(&held, SUCCEED).await?;
    Ok(())
}

/// More polls than a call takes in any store that we know, so that also its last awaits are tried.
const POLLS: usize = 12;

async fn survives_dropped_calls(t: Bench) -> Kept {
    let mut enqueued = Vec::new();
    for polls in 0..POLLS {
        let jobs = jobs(3);
        let request = || Enqueue { jobs: jobs.clone() };
        drop_after(polls, t.backend().enqueue(Deadline::default(), request())).await;
        // Unknown: so it is repeated, and then it is there, once.
        t.backend().enqueue(Deadline::default(), request()).await?;
        enqueued.extend(jobs.into_iter().map(|job| job.id));
        let claim = t.asking(3);
        drop_after(polls, t.backend().claim(Deadline::default(), claim.clone())).await;
        let leases = t.claim_as(claim).await?;
        must_eq!(leases.len(), 3, "jobs found by a repeated claim after {polls} polls");
        let settlements: Vec<_> = leases.iter().map(|lease| settlement(lease, SUCCEED)).collect();
        let settle = Settle { settlements: settlements.clone() };
        drop_after(polls, t.backend().settle(Deadline::default(), settle)).await;
        let answers = t.settle_all(settlements).await?;
        must!(
            answers.iter().all(|answer| *answer != Answer::Lost),
            "settled after {polls} polls: {answers:?}"
        );
    }
    for job in t.find_all(&enqueued).await?.into_iter().flatten() {
        must_eq!((job.state, job.attempt), (State::Succeeded, 1));
    }
    let counts = t.counts().await?;
    must_eq!((counts.of(State::Succeeded), counts.total()), (3 * POLLS as u64, 3 * POLLS as u64));
    Ok(())
}

async fn leaves_no_half_of_a_dropped_batch(t: Bench) -> Kept {
    for polls in 0..POLLS {
        // What was dropped earlier may come to pass now, elsewhere.
        let place = queue(&format!("after {polls} polls"));
        let request = Enqueue { jobs: jobs(200).into_iter().map(|job| job.queue(place.clone())).collect() };
        let ids: Vec<_> = request.jobs.iter().map(|job| job.id).collect();
        drop_after(polls, t.backend().enqueue(Deadline::default(), request)).await;
        let added = t.another().await?.counts_of(&place).await?.total();
        must!(added == 0 || added == 200, "{added} of 200 jobs are there after {polls} polls");
        let there = t.find_all(&ids).await?.into_iter().flatten().count();
        must!(there == 0 || there == 200, "{there} of 200 jobs are found after {polls} polls");
    }
    t.add_all(jobs(200)).await?;
    must!(t.counts().await?.total() >= 200, "a batch that was not dropped is not there");
    Ok(())
}

async fn crosses_no_answers_after_dropped_calls(t: Bench) -> Kept {
    let ids = t.add_all((0..20).map(|i| job().queue(queue(&format!("q{i}"))))).await?;
    for (i, id) in ids.iter().enumerate() {
        let other = ids[(i + 7) % ids.len()];
        let find = Find { ids: vec![other] };
        drop_after(i % POLLS, t.backend().find(Deadline::default(), find)).await;
        must_eq!(t.find(*id).await?.id, *id);
        drop_after(i % POLLS, t.backend().counts(Deadline::default(), Counts::default())).await;
        must_eq!(t.counts_of(&queue(&format!("q{i}"))).await?.total(), 1);
        let claim = t.asking(1);
        drop_after(i % POLLS, t.backend().claim(Deadline::default(), claim)).await;
        must_eq!(t.find(other).await?.id, other);
    }
    Ok(())
}

async fn can_be_made_by_many_clients_at_once(t: Bench) -> Kept {
    let clients = t.open_at_once(6).await?;
    for client in &clients {
        client.add(job()).await?;
    }
    for client in &clients {
        must_eq!(client.counts().await?.of(State::Queued), 6);
    }
    must_eq!(t.counts().await?.total(), 0, "jobs in another place");
    Ok(())
}

async fn can_be_set_up_again_at_any_time(t: Bench) -> Kept {
    let held = t.hold().await?;
    t.add(job().delay(secs(9))).await?;
    let before = all_seen(&t).await?;
    let clients = t.several(4).await?;
    let set_up = |client: &Bench| -> BoxFuture<'static, Result<()>> {
        let backend = client.shared_backend();
        Box::pin(async move { backend.setup(Deadline::default()).await })
    };
    for answer in futures::future::join_all(clients.iter().chain(&clients).map(set_up)).await {
        answer?;
    }
    must_eq!(all_seen(&t).await?, before);
    t.finish(&held, FAIL).await?;
    t.amend(held.job.id, Action::Requeue { due: Due::Now }).await?;
    must_eq!(t.claim_from(&QueueName::default(), 5).await?.len(), 1);
    t.advance(LEASE * 2);
    for lost in t.expired(9).await? {
        t.recover((lost.job, lost.token), LOST_ATTEMPT).await?;
    }
    Ok(())
}
