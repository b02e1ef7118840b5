//! Input that is meant to do harm, and records that were harmed.

use leasehold_core::backend::{Counts, Expired, Filter, List, Order, Verdict};
use leasehold_core::{Backend, ErrorKind, JobId, NewJob, Payload, State, Store};
use leasehold_mongo::Config;
use leasehold_mongo::mongodb::bson::spec::BinarySubtype;
use leasehold_mongo::mongodb::bson::{Binary, Bson, DateTime, Document, doc};
use leasehold_test_servers::Mongo as Server;

use crate::bench::{SUCCEED, add, asking, claim, database, find, fresh, job, jobs, set_up, settle, soon};

const MIB: usize = 1 << 20;

/// Texts that other programs have taken for code, for numbers that they can hold, or for the end.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus: Vec<Vec<u8>> = [
        r#"{"$where":"sleep(1000)","a.b":1,"__proto__":{"x":1},"constructor":{"prototype":{}},"$set":{"state":"succeeded"}}"#,
        r#"{"":0,".":1,"$":2,"a$":3,"$$NOW":4,"_id":5}"#,
        r#"{"big":9007199254740993,"bigger":18446744073709551616,"biggest":123456789012345678901234567890}"#,
        r#"{"low":-9223372036854775809,"zero":-0.0,"tiny":1e-400,"huge":1e400,"same":1.0}"#,
        r#"{"a":1,"a":2}"#,
        r#"["\u0000","\ud83d\ude00","\u202e"]"#,
        "{\"$literal\":\"$secret\"}",
        "' OR 1=1; --",
        "\u{0}",
        "not JSON at all",
        "",
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    corpus.push(["[".repeat(20_000), "]".repeat(20_000)].concat().into_bytes());
    corpus.push(vec![0xff, 0xfe, 0x00, 0xc0]);
    corpus
}

fn carrying(bytes: &[u8]) -> NewJob {
    let mut job = job();
    job.payload = Payload::from(bytes.to_vec());
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_and_results_come_back_byte_for_byte_and_are_never_interpreted() {
    let server = Server::own(1).expect("a server");
    let store = set_up(Config::new(server.url()).database(fresh())).await;
    for bytes in corpus() {
        let id = add(&store, vec![carrying(&bytes)]).await[0];
        let lease = claim(&store, 1).await.jobs.remove(0);
        assert_eq!(lease.job.payload.as_bytes(), bytes);
        let verdict = Verdict::Succeed { result: Some(Payload::from(bytes.clone())) };
        settle(&store, &lease, &verdict).await;
        let found = find(&store, id).await;
        assert_eq!((found.payload.as_bytes(), found.state), (&bytes[..], State::Succeeded));
        assert_eq!(found.result.expect("a result").as_bytes(), bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_a_mebibyte_is_taken_and_one_byte_more_is_refused_before_the_store() {
    let server = Server::own(1).expect("a server");
    let mongo = set_up(Config::new(server.url()).database(fresh())).await;
    let store = Store::new(mongo.clone());
    let queue = store.queue("default").expect("a queue");
    let id = queue.enqueue(carrying(&vec![7; MIB])).await.expect("taken in");
    assert_eq!(find(&mongo, id).await.payload.len(), MIB);
    // Without a server too: it is the input that is at fault.
    server.nodes()[0].kill().expect("killed");
    let error = queue.enqueue(carrying(&vec![7; MIB + 1])).await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error:?}");
    for part in ["the payload", "1048577", "1048576"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_damaged_by_hand_stop_no_call_about_the_others() {
    let server = Server::own(1).expect("a server");
    let config = Config::new(server.url()).database(fresh());
    let store = set_up(config.clone()).await;
    let all = database(store.client(), &config).collection::<Document>("leasehold_jobs");
    let long_ago = DateTime::from_millis(1);
    let damage = [
        doc! {"$set": {"state": 7}},
        doc! {"$set": {"queue": []}},
        doc! {"$unset": {"queue": 1}},
        doc! {"$set": {"kind": {"$numberLong": "x"}}},
        doc! {"$set": {"enqueued_at": "yesterday"}},
        doc! {"$unset": {"enqueued_at": 1}},
        doc! {"$set": {"due": "soon"}},
        doc! {"$unset": {"due": 1}},
        doc! {"$set": {"attempt": 1.5}},
        doc! {"$set": {"attempt": i64::MAX}},
        doc! {"$set": {"max_attempts": "many"}},
        doc! {"$set": {"crashes": null}},
        doc! {"$set": {"keep": {}}},
        doc! {"$set": {"settlements": 1}},
        doc! {"$set": {"history": [1]}},
        doc! {"$set": {"payload": "text"}},
        doc! {"$set": {"priority": "high"}},
        doc! {"$set": {"tags": "one"}},
        doc! {"$set": {"limit_key": 3}},
        doc! {"$set": {"unique_key": {}}},
        doc! {"$set": {"options": "[]"}},
        doc! {"$set": {"state": "running", "lease_until": long_ago}},
        doc! {"$set": {"state": "running", "lease_until": long_ago, "claim": "mine"}},
        doc! {"$set": {"state": "running", "lease_until": "never", "claim": 1}},
        doc! {"$set": {"state": "running"}},
        doc! {"$set": {"state": "succeeded", "expires_at": "never"}},
    ];
    let bad = add(&store, jobs(damage.len())).await;
    for (id, damage) in bad.iter().zip(&damage) {
        all.update_one(doc! {"_id": binary(id)}, damage.clone()).await.expect("damage");
    }
    all.insert_many([doc! {}, doc! {"_id": "text", "state": "waiting"}, doc! {"_id": 5, "queue": "default"}])
        .await
        .expect("strangers");
    let good = add(&store, jobs(5)).await;
    let mut given = Vec::new();
    for _ in 0..20 {
        for lease in store.claim(soon(), asking(10)).await.expect("a claim").jobs {
            given.push(lease.job.id);
            settle(&store, &lease, &SUCCEED).await;
        }
        store.expired(soon(), Expired { limit: 100 }).await.expect("leases");
    }
    for id in &good {
        assert_eq!(given.iter().filter(|given| *given == id).count(), 1, "{given:?}");
        assert_eq!(find(&store, *id).await.state, State::Succeeded);
    }
    assert!(store.claim(soon(), asking(10)).await.expect("a claim").jobs.is_empty());
    store.counts(soon(), Counts::default()).await.expect("counts");
    store.queues(soon()).await.expect("queues");
    let list = List { filter: Filter::default(), order: Order::OldestFirst, after: None, limit: 1_000 };
    let page = store.list(soon(), list).await.expect("a page");
    assert!(good.iter().all(|id| page.jobs.iter().any(|job| job.id == *id)));
    println!("{} of {} damaged records were given out all the same", given.len() - good.len(), bad.len());
}

fn binary(id: &JobId) -> Bson {
    Binary { subtype: BinarySubtype::Uuid, bytes: id.as_uuid().as_bytes().to_vec() }.into()
}
