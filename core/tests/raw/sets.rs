use std::time::Duration;

use leasehold_core::client::{Graph, RawCount};
use leasehold_core::layer::Operation;
use leasehold_core::worker::RawOptions;
use leasehold_core::{Due, ErrorKind, JobId, Payload, Timestamp, limits};

use super::{Runs, builder, jobs, left, noting, raw};
use crate::probe::{Fate, Probe};
use crate::store;

const HOUR: Duration = Duration::from_hours(1);

fn at(store_now: Timestamp, seconds: u64) -> Due {
    Due::At(store_now.plus(Duration::from_secs(seconds)))
}

#[tokio::test(start_paused = true)]
async fn each_payload_of_a_set_waits_once() {
    let (store, runs) = (store(), Runs::default());
    let set = raw(&store).set();
    assert_eq!(set.push_many(["a", "b", "a", "c"].map(str::to_owned)).await.unwrap(), 3);
    assert!(!set.push("b".to_owned()).await.unwrap());
    // Another kind, and another queue, are other sets.
    let queue = store.queue("raw").unwrap();
    assert!(queue.raw("other").unwrap().set().push("b".to_owned()).await.unwrap());
    assert!(store.queue("more").unwrap().raw("click").unwrap().set().push("b".to_owned()).await.unwrap());
    queue.raw("other").unwrap().set().clear().await.unwrap();
    assert_eq!(set.count().await.unwrap(), RawCount { payloads: 3, exact: true });
    assert_eq!(set.first(2).await.unwrap(), ["a", "b"].map(|text| Payload::from(text.to_owned())));

    assert!(set.remove("b".to_owned()).await.unwrap());
    assert!(!set.remove("b".to_owned()).await.unwrap());
    assert!(!set.remove("never".to_owned()).await.unwrap());
    assert_eq!(set.count().await.unwrap().payloads, 2);

    let (again, noted) = (set.clone(), runs.clone());
    let handler = move |payload: Payload| {
        let (text, run) = noted.note(&payload);
        let again = again.clone();
        // Once it runs it may be added again.
        async move {
            if text == "a" && run == 1 {
                assert!(again.push(text).await.unwrap());
            }
        }
    };
    let worker =
        builder(&store).handle_raw("click", RawOptions::default(), handler).until_idle().build().unwrap();
    worker.run().await;
    assert_eq!((runs.of("a"), runs.of("b"), runs.of("c")), (2, 0, 1));
    assert_eq!(left(&store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_lowest_score_comes_first_and_moves() {
    let store = store();
    let sorted = raw(&store).sorted();
    let most = 750_000_000_000;
    let pushed = [("b", 10), ("d", most - 1), ("a", -most), ("c", 11), ("e", -5)];
    assert_eq!(sorted.push_many(pushed.map(|(text, score)| (text.to_owned(), score))).await.unwrap(), 5);
    assert!(!sorted.push("e".to_owned(), 12).await.unwrap());
    assert_eq!(sorted.count().await.unwrap().payloads, 5);
    let first = sorted.first(10).await.unwrap();
    assert!(first.contains(&("e".to_owned().into(), 12)) && first.contains(&("a".to_owned().into(), -most)));
    let graph = sorted.graph(10..14, 2).await.unwrap();
    assert_eq!(graph, Graph { before: 1, slices: vec![2, 1], after: 1, all: true });
    assert_eq!(sorted.graph(3..3, 2).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    let all = sorted.graph(i64::MIN..i64::MAX, 4).await.unwrap();
    assert_eq!((all.before, all.slices.iter().sum::<u64>(), all.after), (0, 5, 0));
    assert_eq!(sorted.graph(0..10, usize::MAX).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    for score in [most, -most - 1] {
        assert_eq!(sorted.push("x".to_owned(), score).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let order = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let noted = order.clone();
    let handler = move |payload: Payload| {
        noted.lock().unwrap().push(payload.as_bytes()[0] as char);
        async {}
    };
    let worker =
        builder(&store).concurrency(1).handle_raw("click", RawOptions::default(), handler).until_idle();
    worker.build().unwrap().run().await;
    assert_eq!(*order.lock().unwrap(), "abced");
    assert_eq!(left(&store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_payload_is_due_at_its_time_and_moves() {
    let (store, runs) = (store(), Runs::default());
    let timed = raw(&store).timed();
    let now = store.now().await.unwrap();
    let pushed = [("soon", at(now, 10)), ("later", at(now, 20)), ("now", Due::Now)];
    timed.push_many(pushed.map(|(text, due)| (text.to_owned(), due))).await.unwrap();
    assert!(!timed.push("soon".to_owned(), at(now, 30)).await.unwrap());
    let graph =
        timed.graph(now.plus(Duration::from_secs(5))..now.plus(Duration::from_secs(35)), 3).await.unwrap();
    assert_eq!((graph.before, graph.slices, graph.after), (1, vec![0, 1, 1], 0));
    let running = noting(&store, &runs).build().unwrap().start();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!((runs.of("now"), runs.of("soon"), runs.of("later")), (1, 0, 0));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((runs.of("soon"), runs.of("later")), (0, 1));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(runs.of("soon"), 1);
    running.stop().await.unwrap();
    assert_eq!(left(&store).await, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_back_comes_again_until_it_is_removed() {
    let (store, runs) = (store(), Runs::default());
    let timed = raw(&store).timed().push_back(HOUR);
    assert!(timed.push("poll".to_owned(), Due::Now).await.unwrap());
    let running = noting(&store, &runs).build().unwrap().start();
    tokio::time::sleep(3 * HOUR + HOUR / 2).await;
    assert_eq!(runs.of("poll"), 4);
    assert_eq!(timed.count().await.unwrap().payloads, 1);
    // For another time.
    assert!(!timed.push("poll".to_owned(), Due::In(2 * HOUR)).await.unwrap());
    tokio::time::sleep(HOUR + HOUR / 2).await;
    assert_eq!(runs.of("poll"), 4);
    tokio::time::sleep(HOUR).await;
    assert_eq!(runs.of("poll"), 5);
    assert!(timed.remove("poll".to_owned()).await.unwrap());
    tokio::time::sleep(10 * HOUR).await;
    assert_eq!((runs.of("poll"), left(&store).await), (5, 0));
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_back_comes_again_once_however_often_it_is_tried() {
    let (store, runs) = (store(), Runs::default());
    let timed = raw(&store).timed().push_back(HOUR);
    timed.push("poll".to_owned(), Due::Now).await.unwrap();
    let noted = runs.clone();
    let handler = move |payload: Payload| {
        let (_, run) = noted.note(&payload);
        async move { if run < 4 { Err("not yet") } else { Ok(()) } }
    };
    let running =
        builder(&store).handle_raw("click", RawOptions::default(), handler).build().unwrap().start();
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(runs.of("poll"), 4);
    let waiting: Vec<JobId> =
        jobs(&store).await.iter().filter(|j| j.state.is_waiting()).map(|j| j.id).collect();
    assert_eq!(waiting.len(), 1);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_back_comes_again_though_the_first_attempt_could_not_say_so() {
    let probe = Probe::quiet();
    let (store, runs) = (probe.store(), Runs::default());
    raw(&store).timed().push_back(HOUR).push("poll".to_owned(), Due::Now).await.unwrap();
    let mut refused = false;
    probe.set(move |op| {
        if op == Operation::Enqueue && !std::mem::replace(&mut refused, true) {
            return Fate::Refuse(ErrorKind::Internal);
        }
        Fate::Pass
    });
    let running = noting(&store, &runs).build().unwrap().start();
    tokio::time::sleep(HOUR / 2).await;
    assert_eq!(runs.of("poll"), 1);
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(runs.of("poll"), 3);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_to_come_back_in_more_than_a_hundred_years_comes_back_in_a_hundred() {
    let (store, runs) = (store(), Runs::default());
    let timed = raw(&store).timed().push_back(2 * limits::SPAN);
    timed.push("comet".to_owned(), Due::Now).await.unwrap();
    let running = noting(&store, &runs).build().unwrap().start();
    tokio::time::sleep(HOUR).await;
    assert_eq!(runs.of("comet"), 1);
    let (_, due) = timed.first(2).await.unwrap()[0].clone();
    let now = store.now().await.unwrap();
    assert!(now.plus(limits::SPAN - 2 * HOUR) < due && due <= now.plus(limits::SPAN), "{due:?}");
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_dies_while_removing_what_is_not_there_swallows_nothing() {
    let probe = Probe::quiet();
    let store = probe.store();
    let set = raw(&store).set();
    let die = || {
        probe.set(|op| if op == Operation::Amend { Fate::Refuse(ErrorKind::Internal) } else { Fate::Pass });
    };
    for _ in 0..2 {
        die();
        set.remove("a".to_owned()).await.unwrap_err();
        probe.set(|_| Fate::Pass);
        assert_eq!(set.push_many(["a", "b", "a"].map(str::to_owned)).await.unwrap(), 2);
        assert_eq!(set.first(9).await.unwrap(), ["a", "b"].map(|text| Payload::from(text.to_owned())));
        assert_eq!(set.count().await.unwrap().payloads, 2);
        assert!(set.remove("a".to_owned()).await.unwrap() && set.remove("b".to_owned()).await.unwrap());
        assert_eq!(set.count().await.unwrap().payloads, 0);
    }
    for _ in 0..2 {
        die();
        set.remove("a".to_owned()).await.unwrap_err();
        probe.set(|_| Fate::Pass);
        assert!(!set.remove("a".to_owned()).await.unwrap());
        assert_eq!(set.count().await.unwrap().payloads, 0);
    }
    die();
    set.remove("a".to_owned()).await.unwrap_err();
    probe.set(|_| Fate::Pass);
    assert_eq!((set.clear().await.unwrap(), set.count().await.unwrap().payloads), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_while_it_is_removed_is_there_afterwards() {
    let probe = Probe::quiet();
    let store = probe.store();
    let set = raw(&store).set();
    let mut late = false;
    probe.set(move |op| {
        let first = op == Operation::Amend && !std::mem::replace(&mut late, true);
        if first { Fate::Late(Duration::from_secs(1)) } else { Fate::Pass }
    });
    let push = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        set.push("a".to_owned()).await.unwrap()
    };
    let (removed, pushed) = tokio::join!(set.remove("a".to_owned()), push);
    assert_eq!((removed.unwrap(), pushed), (false, true));
    assert_eq!(set.first(9).await.unwrap(), [Payload::from("a".to_owned())]);
    assert_eq!(set.count().await.unwrap().payloads, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_pushed_back_is_not_swallowed_by_who_looks_for_it() {
    let probe = Probe::quiet();
    let (store, runs) = (probe.store(), Runs::default());
    let timed = raw(&store).timed().push_back(HOUR);
    timed.push("poll".to_owned(), Due::Now).await.unwrap();
    let noted = runs.clone();
    let handler = move |payload: Payload| {
        let (text, run) = noted.note(&payload);
        let (timed, probe) = (timed.clone(), probe.clone());
        async move {
            if run > 1 {
                return Ok(());
            }
            assert!(timed.remove(text.clone()).await.unwrap());
            probe.set(
                |op| if op == Operation::Amend { Fate::Refuse(ErrorKind::Internal) } else { Fate::Pass },
            );
            timed.remove(text).await.unwrap_err();
            probe.set(|_| Fate::Pass);
            Err("once more")
        }
    };
    let running =
        builder(&store).handle_raw("click", RawOptions::default(), handler).build().unwrap().start();
    tokio::time::sleep(2 * HOUR + HOUR / 2).await;
    assert_eq!(runs.of("poll"), 4);
    running.stop().await.unwrap();
}
