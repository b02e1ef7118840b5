use leasehold_core::ErrorKind;
use leasehold_mongo::Events;

use super::*;

const SIGNALS: &str = "leasehold_signals";

fn waits(event: &Event) -> bool {
    matches!(event, Event::Waiting { .. })
}

async fn count(place: &Place) -> u64 {
    place.database.collection::<Document>(SIGNALS).count_documents(doc! {}).await.expect("a count")
}

#[tokio::test]
async fn damaged_signals_are_mended_and_heard_again() {
    for how in DAMAGES {
        let place = Place::new().await;
        let mut events = watch(&place.store, false).await;
        let add = async || {
            place.add().await;
        };
        provoke(&mut events, &format!("before they are {how}"), add, waits).await;
        place.damage(how, SIGNALS).await;
        provoke(&mut events, how, add, waits).await;
        let (options, _) = place.look(SIGNALS).await;
        assert!(options.get_bool("capped").unwrap_or(false), "{how}: {options}");
    }
}

#[tokio::test]
async fn an_empty_collection_gets_its_sentinel_back() {
    let place = Place::new().await;
    place.damage("emptied", SIGNALS).await;
    let mut events = watch(&place.store, false).await;
    assert_eq!(count(&place).await, 1);
    let mut gaps = 0;
    let add = async || {
        place.add().await;
    };
    let told = |event: &Event| {
        assert_ne!(*event, Event::Gap, "the cursor lived on");
        waits(event)
    };
    provoke(&mut events, "the first signal", add, told).await;
    // Emptied under a cursor that waits, it is opened again once, and not over and over.
    place.damage("emptied", SIGNALS).await;
    provoke(&mut events, "a signal after the gap", add, |event| {
        gaps += i32::from(*event == Event::Gap);
        waits(event)
    })
    .await;
    assert!(gaps <= 1, "{gaps} gaps were told");
}

#[tokio::test]
async fn a_reader_that_was_overrun_is_told_of_the_gap() {
    let place = Place::new().await;
    let mut events = watch(&place.store, false).await;
    let add = async || {
        place.add().await;
    };
    provoke(&mut events, "before it is overrun", add, waits).await;
    // The cursor is held up on the server while more is signalled than the collection holds.
    let held_up = doc! {"blockConnection": true, "blockTimeMS": 3_000};
    place.fail_next("getMore", held_up).await;
    let entered = doc! {"waitForFailPoint": "failCommand", "timesEntered": 1, "maxTimeMS": 20_000};
    let _ = place.store.client().database("admin").run_command(entered).await;
    let large = doc! {"events": [], "padding": "x".repeat(100 << 10)};
    for _ in 0..5 {
        place.run(doc! {"insert": SIGNALS, "documents": vec![large.clone(); 5]}).await;
    }
    let gap = timeout(PATIENCE, async {
        while let Some(event) = events.next().await {
            if event == Event::Gap {
                return true;
            }
        }
        false
    });
    assert_eq!(gap.await, Ok(true));
    provoke(&mut events, "after it was overrun", add, waits).await;
}

#[tokio::test]
async fn a_batch_is_one_signal_for_each_of_its_queues() {
    let place = Place::new().await;
    let before = count(&place).await;
    let mut events = watch(&place.store, false).await;
    let queue = |i: usize| QueueName::new(["a", "b"][i % 2]).expect("a name");
    let job =
        |i| NewJob::new(Kind::new("work").expect("a name"), Payload::from(b"{}".to_vec())).queue(queue(i));
    let jobs = (0..1_000).map(job).collect();
    place.store.enqueue(Deadline::default(), Enqueue { jobs }).await.expect("taken in");
    let mut told = Vec::new();
    while told.len() < 2 {
        told.push(timeout(PATIENCE, events.next()).await.expect("an event").expect("an event"));
    }
    assert!(told.contains(&Event::Waiting { queue: queue(0) }), "{told:?}");
    assert!(told.contains(&Event::Waiting { queue: queue(1) }), "{told:?}");
    assert!(count(&place).await - before <= 2);
}

#[tokio::test]
async fn a_change_stream_tells_what_signals_tell_and_what_is_changed_by_hand() {
    let place = Place::new().await;
    let streaming = place.again(|config| config.events(Events::ChangeStream)).await;
    let (mut streamed, mut signalled) = (watch(&streaming, true).await, watch(&place.store, false).await);
    // Those who hear signals and those who read the stream work together.
    let job = NewJob::new(Kind::new("work").expect("a name"), Payload::from(b"{}".to_vec()));
    streaming.enqueue(Deadline::default(), Enqueue { jobs: vec![job] }).await.expect("taken in");
    for events in [&mut streamed, &mut signalled] {
        provoke(events, "a job that was enqueued", async || {}, waits).await;
    }
    let lease = place.hold().await;
    let id = lease.job.id;
    let runs = |event: &Event| matches!(event, Event::Changed { job, state: leasehold_core::State::Running, .. } if *job == id);
    provoke(&mut streamed, "a job that runs", async || {}, runs).await;
    let mut position = 0;
    let write = async || {
        place.log(&lease, position, &["a"]).await.expect("written");
        position += 1;
    };
    provoke(&mut streamed, "a line", write, |event| matches!(event, Event::Logged { .. })).await;
    let by_hand = doc! {"q": {}, "u": {"$set": {"cancel_requested": true}}, "multi": true};
    place.run(doc! {"update": "leasehold_jobs", "updates": [by_hand]}).await;
    let cancelled = |event: &Event| matches!(event, Event::CancelRequested { job, .. } if *job == id);
    provoke(&mut streamed, "a cancellation", async || {}, cancelled).await;
    let paused = doc! {"insert": "leasehold_queues", "documents": [{"_id": "by hand"}]};
    place.run(paused).await;
    let set = |event: &Event| matches!(event, Event::QueueSet { queue } if queue.as_str() == "by hand");
    provoke(&mut streamed, "a queue", async || {}, set).await;
}

#[tokio::test]
async fn a_change_stream_that_broke_goes_on_where_it_was() {
    let place = Place::with(|config| config.events(Events::ChangeStream)).await;
    let mut events = watch(&place.store, false).await;
    provoke(
        &mut events,
        "before it broke",
        async || {
            place.add().await;
        },
        waits,
    )
    .await;
    // An error after which the driver does not go on by itself.
    place.fail_next("getMore", doc! {"errorCode": 286}).await;
    let added: Vec<JobId> = [place.add().await, place.add().await].into();
    for job in added {
        let told = |event: &Event| {
            assert_ne!(*event, Event::Gap, "it has a token to go on from");
            matches!(event, Event::Changed { job: of, .. } if *of == job)
        };
        provoke(&mut events, "what came meanwhile", async || {}, told).await;
    }
    // A drop of the database ends it for good.
    place.database.drop().await.expect("dropped");
    place.store.setup(Deadline::after(PATIENCE)).await.expect("a store that is set up");
    provoke(
        &mut events,
        "after the drop",
        async || {
            place.add().await;
        },
        waits,
    )
    .await;
}

#[tokio::test]
async fn a_standalone_server_has_no_change_streams() {
    let server = Server::standalone().expect("a server");
    let config = Config::new(server.url()).events(Events::ChangeStream);
    let error = Mongo::with(config).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    // Logs and signals need no replica set.
    let store = Mongo::connect(server.url()).await.expect("a store");
    store.setup(Deadline::after(PATIENCE)).await.expect("a store that is set up");
    let mut events = watch(&store, true).await;
    let queue = QueueName::default();
    provoke(&mut events, "a signal", async || store.wake(&queue), waits).await;
}
