//! The server's own faults, set by its failpoints.

use leasehold_core::backend::{Action, Amend, Answer, Enqueue, Select};
use leasehold_core::{Backend, LeasedJob, LimitKey, Result, State};
use leasehold_mongo::Config;
use leasehold_mongo::mongodb::Client;
use leasehold_mongo::mongodb::bson::{Document, doc};
use leasehold_test_servers::Mongo as Server;

use crate::bench::{
    SUCCEED, add, again, asking, claim, counts, database, find, fresh, job, jobs, must_be_in_doubt, set_up,
    settling, soon, until,
};
use crate::load::Load;

#[tokio::test(flavor = "multi_thread")]
async fn write_conflicts_slow_a_server_down_and_break_nothing() {
    let server = Server::own(1).expect("a server");
    let node = &server.nodes()[0];
    let config = Config::new(server.url()).database(fresh());
    let tally = Load::run(config, 200, 0, async |load| {
        load.journal.fault("one write in twelve conflicts").expect("written");
        let often = doc! {"activationProbability": 0.08};
        node.fail("WTWriteConflictException", often, doc! {}).await.expect("set");
        load.settled(150).await;
        node.heal("WTWriteConflictException").await.expect("healed");
    })
    .await;
    println!("{tally:?}");
}

/// Ways in which a server that goes away or cannot reach its fellows answers, and whether it did what was asked.
fn answers() -> Vec<(Document, bool)> {
    let error = |code: i32| (doc! {"errorCode": code}, false);
    let unmet = |code: i32, name: &str| {
        let what = doc! {"code": code, "codeName": name, "errmsg": "not met"};
        (doc! {"writeConcernError": what}, true)
    };
    vec![
        (doc! {"closeConnection": true}, false),
        error(91),
        error(189),
        error(10_107),
        error(11_600),
        error(11_602),
        unmet(64, "WriteConcernFailed"),
        unmet(91, "ShutdownInProgress"),
        unmet(11_602, "InterruptedDueToReplStateChange"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_failing_server_answers_is_no_failure_and_a_repetition_has_the_effect_of_one() {
    let server = Server::own(1).expect("a server");
    let node = &server.nodes()[0];
    let store = set_up(Config::new(server.url()).database(fresh())).await;
    let fail = async |how: &Document| {
        let mut data = how.clone();
        data.insert("failCommands", ["insert", "update", "delete", "commitTransaction"].to_vec());
        data.insert("appName", "leasehold");
        // Twice, so that the driver's own repetition meets it too.
        node.fail("failCommand", doc! {"times": 2}, data).await.expect("set");
    };
    let met = |what: &str, how: &Document, outcome: Result<()>| match outcome {
        Ok(()) => false,
        Err(error) => {
            assert!(error.is_transient(), "{what} with {how}: {error:?}");
            true
        }
    };
    let (mut ended, mut in_doubt) = (0, 0);
    for (how, applied) in answers() {
        let new = jobs(2);
        fail(&how).await;
        let enqueued = store.enqueue(soon(), Enqueue { jobs: new.clone() }).await.map(drop);
        let unknown = met("enqueue", &how, enqueued);
        node.heal("failCommand").await.expect("healed");
        if unknown && applied {
            // The server did not wait for the majority to have it, nor do we for the answer.
            until("it was applied", async || counts(&store).await.of(State::Queued) == 2).await;
        }
        in_doubt += u32::from(unknown);
        again(async || store.enqueue(soon(), Enqueue { jobs: new.clone() }).await).await;
        assert_eq!(counts(&store).await.of(State::Queued), 2, "after {how}");
        let asked = asking(2);
        fail(&how).await;
        in_doubt += u32::from(met("claim", &how, store.claim(soon(), asked.clone()).await.map(drop)));
        node.heal("failCommand").await.expect("healed");
        let leases = again(async || store.claim(soon(), asked.clone()).await).await.jobs;
        assert_eq!(leases.len(), 2, "after {how}");
        assert!(leases.iter().all(|lease| lease.job.attempt == 1), "after {how}");
        fail(&how).await;
        let settled = store.settle(soon(), settling(&leases, &SUCCEED)).await.map(drop);
        in_doubt += u32::from(met("settle", &how, settled));
        node.heal("failCommand").await.expect("healed");
        again(async || store.settle(soon(), settling(&leases, &SUCCEED)).await).await;
        ended += 2;
        assert_eq!(counts(&store).await.of(State::Succeeded), ended, "after {how}");
        let select = Select::Ids(vec![leases[0].job.id]);
        let amend = Amend { select, action: Action::Delete, preview: false };
        fail(&how).await;
        in_doubt += u32::from(met("delete", &how, store.amend(soon(), amend.clone()).await.map(drop)));
        node.heal("failCommand").await.expect("healed");
        again(async || store.amend(soon(), amend.clone()).await).await;
        ended -= 1;
        let counted = counts(&store).await;
        assert_eq!((counted.of(State::Succeeded), counted.deleted), (ended, ended), "after {how}");
    }
    println!("{in_doubt} calls in doubt");
    assert!(in_doubt > 20, "only {in_doubt} calls met a fault");
    add(&store, jobs(1)).await;
    assert_eq!(claim(&store, 9).await.jobs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_after_it_had_written_a_part_is_in_doubt() {
    let server = Server::own(1).expect("a server");
    let store = set_up(Config::new(server.url()).database(fresh())).await;
    let id = add(&store, jobs(1)).await[0];
    let leases = claim(&store, 1).await.jobs;
    // The same job twice takes two commands, of which the second fails by a code that says that nothing was done.
    let twice = settling(&[leases[0].clone(), leases[0].clone()], &SUCCEED);
    let conflict = doc! {"errorCode": 112, "failCommands": ["update"], "appName": "leasehold"};
    server.nodes()[0].fail("failCommand", doc! {"skip": 1}, conflict).await.expect("set");
    let outcome = store.settle(soon(), twice.clone()).await;
    server.nodes()[0].heal("failCommand").await.expect("healed");
    assert_eq!(find(&store, id).await.state, State::Succeeded);
    must_be_in_doubt("settle", outcome);
    let again = store.settle(soon(), twice).await.expect("answers");
    assert_eq!(again, [Answer::AlreadyApplied; 2]);
}

/// A claimer was killed within its transaction: the server keeps what it had locked for a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_claimer_that_died_holds_up_no_jobs_but_those_of_its_limit_key() {
    let server = Server::own(1).expect("a server");
    let config = Config::new(server.url()).database(fresh());
    let store = set_up(config.clone()).await;
    let limited = |key: &str| job().limit(LimitKey::new(key).expect("a key"), 5);
    let kept = |key: &'static str| (0..2).map(move |_| limited(key));
    // The keys have been used, and their documents are there.
    add(&store, kept("a").chain(kept("b")).chain(kept("c")).collect()).await;
    assert_eq!(claim(&store, 9).await.jobs.len(), 6);
    let client = Client::with_uri_str(server.url()).await.expect("a client");
    let mut dead = client.start_session().await.expect("a session");
    dead.start_transaction().await.expect("begun");
    let keys = database(&client, &config).collection::<Document>("leasehold_limits");
    let touched = keys.update_one(doc! {"_id": "b"}, doc! {"$inc": {"claims": 1_i64}});
    assert_eq!(touched.session(&mut dead).await.expect("written").matched_count, 1);
    add(&store, kept("b").chain(kept("a")).chain(kept("c")).chain(jobs(2)).collect()).await;
    let taken = claim(&store, 9).await.jobs;
    let key = |lease: &LeasedJob| lease.job.options.limit.as_ref().map(|limit| limit.key.to_string());
    let mut keys: Vec<_> = taken.iter().map(key).collect();
    keys.sort();
    let some = |key: &str| Some(key.to_owned());
    assert_eq!(keys, [None, None, some("a"), some("a"), some("c"), some("c")]);
    // The server gives the dead one's transaction up.
    dead.abort_transaction().await.expect("aborted");
    assert_eq!(claim(&store, 9).await.jobs.len(), 2);
}
