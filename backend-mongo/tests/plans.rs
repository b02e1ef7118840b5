//! No call reads what it does not need: the server's profiler tells what each looked at.

use std::time::Duration;

use leasehold_core::backend::{
    Action, Amend, AppendLogs, Claim, Counts, Enqueue, Expired, Filter, Find, Level, List, LogAppend,
    LogSource, NewLine, Order, Prune, ReadLogs, Recover, Renew, Renewal, Select, Settle, Settlement, Verdict,
};
use leasehold_core::{
    Backend, Deadline, Due, JobId, Kind, LeasedJob, NewJob, Payload, QueueName, Reason, UniqueKey,
    UniqueScope, WorkerId,
};
use leasehold_mongo::mongodb::bson::{Document, doc};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::Mongo as Server;

/// How many jobs wait, run and have ended beside those that a call is about.
const OTHERS: usize = 3_000;
/// How much a call that is about a handful of jobs may look at.
const FEW: i64 = 200;

#[tokio::test]
async fn no_call_looks_at_more_than_it_needs() {
    let server = Server::replica_set(1).expect("a server");
    let store = Mongo::with(Config::new(server.url()).database("plans")).await.expect("a store");
    store.setup(Deadline::after(Duration::from_secs(30))).await.expect("a store that is set up");
    fill(&store).await;
    let database = store.client().database("plans");
    // Its own size is too small for all that is called here.
    let room = doc! {"create": "system.profile", "capped": true, "size": 64 << 20};
    database.run_command(room).await.expect("room for the profile");
    database.run_command(doc! {"profile": 2}).await.expect("a profiler");
    call_all(&store).await;
    database.run_command(doc! {"profile": 0}).await.expect("no profiler");
    let mut profiled =
        database.collection::<Document>("system.profile").find(doc! {}).await.expect("a profile");
    let (mut seen, mut from_marks, mut faults) = (0, 0, Vec::new());
    while profiled.advance().await.expect("a profile") {
        let call = profiled.deserialize_current().expect("a document");
        faults.extend(judge(&call));
        seen += 1;
        from_marks += usize::from(call.to_string().contains("\"$or\": [{ \"queue\""));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(from_marks > 0, "no claim began where the head of the queue had been");
    assert!(seen > 20, "the profiler saw {seen} calls");
}

/// What is wrong with how a call was done.
fn judge(call: &Document) -> Option<String> {
    let of = call.get_str("ns").unwrap_or_default().to_owned();
    let what = call.get_document("command").map(ToString::to_string).unwrap_or_default();
    if !["_jobs", "_logs"].iter().any(|kept| of.ends_with(kept)) && !what.contains("$unionWith") {
        return None;
    }
    let plan = call.get_str("planSummary").unwrap_or_default();
    let looked = |name: &str| match call.get(name) {
        Some(value) => value.as_i64().or(value.as_i32().map(i64::from)).unwrap_or(0),
        None => 0,
    };
    // What it removes it has to look at.
    let removed = looked("ndeleted");
    let (keys, documents) = (looked("keysExamined") - removed, looked("docsExamined") - removed);
    // Counting looks at the keys of all jobs, and at no job.
    let counts = what.contains("$group") && what.contains("unionWith") && plan.contains("IXSCAN");
    let bad = plan.contains("COLLSCAN") || documents > FEW || (keys > FEW && !counts);
    bad.then(|| format!("{plan} looked at {keys} keys and {documents} documents: {what}"))
}

fn job() -> NewJob {
    NewJob::new(Kind::new("work").expect("a name"), Payload::from(b"{}".to_vec()))
}

fn asking(limit: usize) -> Claim {
    Claim::new(WorkerId::generate(), [QueueName::default()], limit, Duration::from_secs(300))
}

async fn fill(store: &Mongo) {
    let d = Deadline::default;
    for _ in 0..3 {
        let jobs = (0..OTHERS).map(|_| job()).collect();
        store.enqueue(d(), Enqueue { jobs }).await.expect("taken in");
    }
    let later = (0..OTHERS).map(|_| job().delay(Duration::from_secs(3_600))).collect();
    store.enqueue(d(), Enqueue { jobs: later }).await.expect("taken in");
    let ended = store.claim(d(), asking(OTHERS)).await.expect("a claim").jobs;
    let verdict = Verdict::Succeed { result: None };
    let settlement = |job: JobId, token| Settlement { job, token, verdict: verdict.clone(), failure: None };
    let settlements = ended.iter().map(|lease| settlement(lease.job.id, lease.token)).collect();
    store.settle(d(), Settle { settlements }).await.expect("settled");
    store.claim(d(), asking(OTHERS)).await.expect("a claim");
}

async fn call_all(store: &Mongo) {
    let d = Deadline::default;
    let unique = job().unique(UniqueKey::new("key").expect("a key"), UniqueScope::UntilFinished);
    store.enqueue(d(), Enqueue { jobs: vec![job(), unique.clone()] }).await.expect("taken in");
    store
        .enqueue(
            d(),
            Enqueue {
                jobs: vec![job().unique(UniqueKey::new("key").expect("a key"), UniqueScope::UntilClaimed)],
            },
        )
        .await
        .expect("held");
    let limited = |n: i16| job().priority(n).limit("key".parse().expect("a key"), 1);
    store.enqueue(d(), Enqueue { jobs: vec![limited(5), limited(4)] }).await.expect("taken in");
    store.claim(d(), asking(10)).await.expect("a claim");
    // What was found just now is where this one begins.
    let leases = store.claim(d(), asking(10)).await.expect("a claim").jobs;
    assert_eq!(leases.len(), 10);
    let ids: Vec<JobId> = leases.iter().map(|lease| lease.job.id).collect();
    let renewals = leases.iter().map(|l| Renewal {
        job: l.job.id,
        token: l.token,
        lease: Duration::from_secs(400),
        progress: None,
    });
    store.renew(d(), Renew { renewals: renewals.collect() }).await.expect("renewed");
    for position in 0..30 {
        let lines = || vec![NewLine { level: Level::Info, message: "x".into() }; 10];
        let append = |l: &LeasedJob| LogAppend {
            job: l.job.id,
            token: l.token,
            position: position * 10,
            lines: lines(),
        };
        let appends = leases.iter().map(append).collect();
        store.append_logs(d(), AppendLogs { appends }).await.expect("written");
    }
    let verdict = Verdict::Retry { reason: Reason::Error, delay: Duration::ZERO, queue: None };
    let settlements: Vec<Settlement> = leases
        .iter()
        .map(|l| Settlement { job: l.job.id, token: l.token, verdict: verdict.clone(), failure: None })
        .collect();
    store.settle(d(), Settle { settlements: settlements.clone() }).await.expect("settled");
    store.recover(d(), Recover { settlements }).await.expect("lost");
    store.expired(d(), Expired { limit: 10 }).await.expect("none");
    store.find(d(), Find { ids: ids.clone() }).await.expect("found");
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let list = List { filter: Filter::default(), order, after: None, limit: 10 };
        let page = store.list(d(), list.clone()).await.expect("a page");
        store.list(d(), List { after: page.next, ..list }).await.expect("another page");
    }
    let worker = leases[0].job.worker.expect("a worker");
    for source in [LogSource::Job(ids[0]), LogSource::Worker(worker)] {
        let page = store.read_logs(d(), ReadLogs { source, after: 0, limit: 10 }).await.expect("lines");
        let read = ReadLogs { source, after: page.lines[9].sequence, limit: 10 };
        assert_eq!(store.read_logs(d(), read).await.expect("lines").lines.len(), 10);
    }
    store.counts(d(), Counts::default()).await.expect("counts");
    store.queues(d()).await.expect("queues");
    for action in [
        Action::Postpone { due: Due::Now },
        Action::Cancel,
        Action::Requeue { due: Due::Now },
        Action::Delete,
    ] {
        let amend = Amend { select: Select::Ids(ids.clone()), action, preview: false };
        store.amend(d(), amend).await.expect("amended");
    }
    store.prune(d(), Prune { limit: 10, workers_after: Duration::from_secs(3_600) }).await.expect("pruned");
}
