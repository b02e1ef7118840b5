//! What MongoDB alone has: the server's clock, transactions, damaged documents, and URLs with secrets in them.

use std::sync::OnceLock;
use std::time::Duration;

use leasehold_core::backend::{
    Answer, Claim, Claimed, Counts, Durability, Enqueue, EnqueueAnswer, Find, NewFailure, Settle, Settlement,
    Verdict,
};
use leasehold_core::{
    Backend, Deadline, ErrorKind, JobId, JobRecord, Kind, LeasedJob, NewJob, Payload, QueueName, Reason,
    State, UniqueKey, UniqueScope, WorkerId,
};
use leasehold_mongo::mongodb::bson::{Document, doc};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::Mongo as Server;

/// A store of its own on the server that all tests of this process share, by the server's clock.
async fn store() -> Mongo {
    set_up(Config::new(url())).await
}

fn url() -> &'static str {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::replica_set(1).expect("a server")).url()
}

async fn set_up(config: Config) -> Mongo {
    let store = Mongo::with(config.database(fresh())).await.expect("a store");
    store.setup(Deadline::after(Duration::from_secs(30))).await.expect("a store that is set up");
    store
}

/// A database that nobody else uses.
fn fresh() -> String {
    format!("test_{}", JobId::generate().as_uuid().simple())
}

fn job(payload: &[u8]) -> NewJob {
    NewJob::new(Kind::new("work").expect("a name"), Payload::from(payload.to_vec()))
}

async fn add(store: &Mongo, jobs: Vec<NewJob>) -> Vec<EnqueueAnswer> {
    let answers = store.enqueue(Deadline::default(), Enqueue { jobs }).await.expect("taken in");
    answers.into_iter().map(|answer| answer.answer).collect()
}

async fn claim(store: &Mongo, limit: usize) -> Claimed {
    let claim = Claim::new(WorkerId::generate(), [QueueName::default()], limit, Duration::from_secs(30));
    store.claim(Deadline::default(), claim).await.expect("a claim")
}

async fn settle(store: &Mongo, lease: &LeasedJob, verdict: Verdict, failure: Option<NewFailure>) -> Answer {
    let settlements = vec![Settlement { job: lease.job.id, token: lease.token, verdict, failure }];
    store.settle(Deadline::default(), Settle { settlements }).await.expect("an answer")[0]
}

async fn find(store: &Mongo, id: JobId) -> JobRecord {
    let found = store.find(Deadline::default(), Find { ids: vec![id] }).await.expect("an answer");
    found.into_iter().next().flatten().expect("the job")
}

#[tokio::test]
async fn jobs_are_judged_by_the_servers_clock() {
    let store = store().await;
    add(&store, vec![job(b"now"), job(b"later").delay(Duration::from_secs(3_600))]).await;
    let claimed = claim(&store, 9).await;
    assert_eq!(claimed.jobs.len(), 1);
    let until_next = claimed.next_due.expect("the time until the next job is due");
    assert!(
        until_next <= Duration::from_secs(3_600) && until_next > Duration::from_secs(3_500),
        "{until_next:?}"
    );
    let (lease, now) = (&claimed.jobs[0], store.now(Deadline::default()).await.expect("the hour"));
    let left = lease.job.lease_until.expect("a lease").since(now);
    assert!(left <= Duration::from_secs(30) && left > Duration::from_secs(20), "{left:?}");
    assert_eq!(settle(&store, lease, Verdict::Succeed { result: None }, None).await, Answer::Applied);
    let kept = find(&store, lease.job.id).await;
    assert_eq!(
        kept.expires_at.expect("a time").since(kept.finished_at.expect("an end")).as_secs(),
        7 * 86_400
    );
}

#[tokio::test]
async fn nothing_that_users_write_is_taken_for_an_expression() {
    let store = store().await;
    let odd =
        ["$where", "$$NOW", "{\"$literal\":1}", "a.b", "__proto__", "\0", "$", "9007199254740993", "ä漢"];
    for text in odd {
        let queued = job(format!("{{\"{text}\":1}}").as_bytes()).header("$set", text);
        let id = queued.id;
        add(&store, vec![queued.clone()]).await;
        let lease = claim(&store, 1).await.jobs.remove(0);
        assert_eq!((&lease.job.payload, &lease.job.options), (&queued.payload, &queued.options));
        let failure = NewFailure { reason: Reason::Error, class: text.into(), message: text.into() };
        let result = Some(Payload::from(text.to_owned()));
        settle(&store, &lease, Verdict::Succeed { result: result.clone() }, Some(failure)).await;
        let found = find(&store, id).await;
        assert_eq!(found.result, result);
        assert_eq!((found.history[0].class.as_str(), found.history[0].message.as_str()), (text, text));
    }
}

#[tokio::test]
async fn a_large_payload_and_result_come_back_whole() {
    let store = store().await;
    let large = vec![7_u8; 1 << 20];
    add(&store, (0..20).map(|_| job(&large)).collect()).await;
    let leases = claim(&store, 20).await.jobs;
    let settlements = leases.iter().map(|lease| Settlement {
        job: lease.job.id,
        token: lease.token,
        verdict: Verdict::Succeed { result: Some(Payload::from(large.clone())) },
        failure: None,
    });
    let answers = store.settle(Deadline::default(), Settle { settlements: settlements.collect() }).await;
    assert_eq!(answers.expect("answers"), [Answer::Applied; 20]);
    assert_eq!(find(&store, leases[19].job.id).await.result.map(|result| result.len()), Some(1 << 20));
}

#[tokio::test]
async fn damaged_documents_are_set_aside_and_stop_no_other() {
    let config = Config::new(url()).database(fresh());
    let store = Mongo::with(config.clone()).await.expect("a store");
    store.setup(Deadline::after(Duration::from_secs(30))).await.expect("a store that is set up");
    let jobs: Vec<NewJob> = (0..8).map(|_| job(b"{}")).collect();
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id).collect();
    add(&store, jobs).await;
    let all = store
        .client()
        .database(config.database.as_deref().unwrap_or_default())
        .collection::<Document>("leasehold_jobs");
    let damage = [
        doc! {"$set": {"attempt": "x"}},
        doc! {"$unset": {"payload": 1}},
        doc! {"$set": {"options": "{"}},
        doc! {"$set": {"history": 3}},
        doc! {"$set": {"kind": " "}},
        doc! {"$set": {"due": "soon"}},
        doc! {"$set": {"keep": 1, "crashes": {}}},
    ];
    let id = |id: &JobId| leasehold_mongo::mongodb::bson::Binary {
        subtype: leasehold_mongo::mongodb::bson::spec::BinarySubtype::Uuid,
        bytes: id.as_uuid().as_bytes().to_vec(),
    };
    for (job, damage) in ids.iter().zip(damage) {
        all.update_one(doc! {"_id": id(job)}, damage).await.expect("damage");
    }
    let claimed = claim(&store, 100).await;
    assert_eq!(claimed.jobs.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), ids[7..]);
    assert_eq!(claim(&store, 100).await.jobs.len(), 0);
    let counts = store.counts(Deadline::default(), Counts::default()).await.expect("counts");
    assert_eq!((counts[0].of(State::Failed), counts[0].of(State::Running)), (7, 1));
}

#[tokio::test]
async fn a_transaction_of_the_caller_takes_jobs_in_if_it_commits() {
    let store = store().await;
    let key = UniqueKey::new("key").expect("a key");
    let jobs = || {
        let unique = |payload: &[u8]| job(payload).unique(key.clone(), UniqueScope::UntilFinished);
        vec![job(b"a"), unique(b"b"), unique(b"c")]
    };
    for commit in [false, true] {
        let mut session = store.client().start_session().await.expect("a session");
        session.start_transaction().await.expect("a transaction");
        let answers = store.enqueue_in(&mut session, jobs()).await.expect("answers");
        assert!(matches!(answers[2].answer, EnqueueAnswer::Held) && answers[2].job == answers[1].job);
        assert_eq!(claim(&store, 9).await.jobs.len(), 0, "jobs of a transaction that is still open");
        if commit {
            session.commit_transaction().await.expect("committed");
        } else {
            session.abort_transaction().await.expect("aborted");
        }
        assert_eq!(claim(&store, 9).await.jobs.len(), if commit { 2 } else { 0 });
    }
}

#[tokio::test]
async fn a_store_says_what_its_server_is() {
    let described = store().await.describe(Deadline::default()).await.expect("a description");
    assert_eq!(described.capabilities.durability, Durability::D2);
    assert!(described.capabilities.transactions && described.capabilities.events);
    assert!(described.location.starts_with("mongodb://"), "{}", described.location);
}

#[tokio::test]
async fn three_nodes_outlive_the_loss_of_one() {
    let server = Server::replica_set(3).expect("servers");
    let store = set_up(Config::new(server.url())).await;
    let described = store.describe(Deadline::default()).await.expect("a description");
    assert_eq!(described.capabilities.durability, Durability::D3);
    add(&store, vec![job(b"")]).await;
    let lease = claim(&store, 9).await.jobs.remove(0);
    assert_eq!(settle(&store, &lease, Verdict::Succeed { result: None }, None).await, Answer::Applied);
}

#[tokio::test]
async fn a_user_without_rights_is_told_so() {
    let server = Server::guarded("reader", "hunter2").expect("a server");
    let store = Mongo::connect(server.url()).await.expect("a store");
    for outcome in [
        store.setup(Deadline::default()).await,
        store.enqueue(Deadline::default(), Enqueue { jobs: vec![job(b"")] }).await.map(drop),
    ] {
        let error = outcome.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error:?} {store:?}").contains("hunter2"), "{error:?}");
    }
    let stranger = server.url().replace("hunter2", "hunter3");
    let error = Mongo::connect(&stranger).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(!format!("{error:?}").contains("hunter3"), "{error:?}");
}

#[tokio::test]
async fn a_standalone_server_does_all_but_transactions() {
    let server = Server::standalone().expect("a server");
    let store = set_up(Config::new(server.url())).await;
    let described = store.describe(Deadline::default()).await.expect("a description");
    assert!(!described.capabilities.transactions);
    let limited = || job(b"").limit("key".parse().expect("a key"), 1);
    add(&store, vec![job(b""), limited(), limited()]).await;
    let leases = claim(&store, 9).await.jobs;
    assert_eq!(leases.len(), 2);
    assert_eq!(settle(&store, &leases[0], Verdict::Succeed { result: None }, None).await, Answer::Applied);
    let counts = store.counts(Deadline::default(), Counts::default()).await.expect("counts");
    assert_eq!((counts[0].of(State::Succeeded), counts[0].of(State::Queued)), (1, 1));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_in_time() {
    let begun = tokio::time::Instant::now();
    let url = "mongodb://ann:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=500";
    let error = Mongo::connect(url).await.expect_err("no server");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_url_that_cannot_be_used_is_refused_with_no_secret() {
    for url in [
        "mongodb://ann:hunter2@",
        "mongodb://ann:hun/ter2@host",
        "mongodb://ann:hunter2@host:port",
        "hunter2",
    ] {
        let error = Mongo::connect(url).await.expect_err(url);
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(!format!("{error} {error:?}").contains("ter2"), "{error:?}");
    }
}

#[tokio::test]
async fn twenty_may_set_a_store_up_at_once() {
    let config = Config::new(url()).database(fresh());
    let mut stores = Vec::new();
    for _ in 0..20 {
        stores.push(Mongo::with(config.clone()).await.expect("a store"));
    }
    let set_up = stores.iter().map(|store| store.setup(Deadline::after(Duration::from_secs(30))));
    for outcome in futures::future::join_all(set_up).await {
        outcome.expect("set up");
    }
    add(&stores[0], vec![job(b"")]).await;
    assert_eq!(claim(&stores[19], 1).await.jobs.len(), 1);
}

#[tokio::test]
async fn a_newer_store_and_a_strangers_are_refused() {
    let config = Config::new(url()).database(fresh());
    let store = Mongo::with(config.clone()).await.expect("a store");
    let meta = store
        .client()
        .database(config.database.as_deref().unwrap_or_default())
        .collection::<Document>("leasehold_meta");
    meta.insert_one(doc! {"_id": "schema", "version": 99}).await.expect("a newer one");
    for version in [doc! {"version": 99}, doc! {"version": "theirs"}] {
        meta.update_one(doc! {"_id": "schema"}, doc! {"$set": version}).await.expect("changed");
        let error = store.setup(Deadline::default()).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
    }
}
