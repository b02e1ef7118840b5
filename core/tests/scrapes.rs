//! Metrics as Prometheus reads them, and their table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backend::Level;
use leasehold_core::client::Prometheus;
use leasehold_core::flow::Flow;
use leasehold_core::layer::{Chaos, Faults, Operation};
use leasehold_core::telemetry::METRICS;
use leasehold_core::worker::HandlerOptions;
use leasehold_core::{Attempt, Limits, NewJob, Store, Worker, telemetry};
use leasehold_memory::Memory;
use metrics::LocalRecorderGuard;
use tokio::time::sleep;

use crate::schedules::{MINUTE, every, fire};

/// What this thread counts from now on, and what the store says.
fn collect(store: &Store) -> (Prometheus, LocalRecorderGuard<'static>) {
    let recorder = Box::leak(Box::new(Prometheus::builder().build_recorder()));
    let handle = recorder.handle();
    let guard = metrics::set_default_local_recorder(recorder);
    telemetry::describe();
    (Prometheus::of(handle, store), guard)
}

/// The value of a line.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// The metrics of a text and what they are.
fn told(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// Lets everything happen that is counted.
async fn live(memory: &Memory, store: &Store) {
    let queue = store.queue("default").unwrap();
    queue.enqueue_all((0..3).map(|n| NewJob::dynamic("work", &n).unwrap())).await.unwrap();
    store.schedules().put("s", every(store, MINUTE).await).await.unwrap();
    fire(store, MINUTE + Duration::from_secs(5)).await;
    // A flow of which one job is cancelled by hand, and so the other one by whoever looks after it.
    let mut flow = Flow::new("f").unwrap();
    let parent = flow.add(NewJob::dynamic("parent", &0).unwrap()).unwrap();
    flow.after(parent).add(NewJob::dynamic("child", &0).unwrap()).unwrap();
    let id = store.flows().enqueue(&flow).await.unwrap();
    store.cancel(id.member(0)).await.unwrap();
    // A worker whose renewals are lost, so that it loses a lease; another one takes it back.
    let hung = Faults { hung: 1.0, ..Faults::default() };
    let line = Chaos::new(Arc::new(memory.clone()), hung, 7).only([Operation::Renew, Operation::AppendLogs]);
    let deaf = Store::with_limits(Arc::new(line), Limits::default()).patience(Duration::from_secs(2));
    let talks = async |attempt: Attempt| {
        for n in 0..20_000 {
            attempt.log(Level::Info, format!("line {n}"));
        }
        sleep(Duration::from_secs(60)).await;
    };
    let deaf = Worker::builder(&deaf).lease(Duration::from_secs(4)).handle("work", talks).max_jobs(1);
    deaf.build().unwrap().run().await;
    let sound = Worker::builder(store)
        .recovery(Duration::from_millis(100))
        .handle_other(HandlerOptions::default(), async || {});
    sound.max_time(MINUTE * 2).build().unwrap().run().await;
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_in_the_table_and_every_one_of_the_table_is_told() {
    let memory = Memory::new();
    let store = Store::new(memory.clone());
    let (metrics, _guard) = collect(&store);
    live(&memory, &store).await;
    let text = metrics.text().await;
    let table = METRICS.iter().map(|metric| (metric.name.to_owned(), metric.kind.to_string())).collect();
    assert_eq!(told(&text), table, "{text}");
    let page = include_str!("../../docs/telemetry.md");
    let rows: BTreeSet<(&str, &str)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `leasehold_")?.split_once("` | "))
        .filter_map(|(name, rest)| Some((name, rest.split_once(" |")?.0)))
        .collect();
    let kinds: Vec<String> = METRICS.iter().map(|metric| metric.kind.to_string()).collect();
    let names = METRICS.iter().map(|metric| metric.name.trim_start_matches("leasehold_"));
    assert_eq!(rows, names.zip(kinds.iter().map(String::as_str)).collect(), "docs/telemetry.md");
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} {}", metric.name, metric.says)), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_is_told_by_queue_and_state() {
    let store = crate::store();
    let (metrics, _guard) = collect(&store);
    let queue = store.queue("mail").unwrap();
    queue.enqueue(NewJob::dynamic("work", &1).unwrap()).await.unwrap();
    queue.enqueue(NewJob::dynamic("work", &2).unwrap().delay(MINUTE * 60)).await.unwrap();
    store.schedules().put("s", every(&store, MINUTE).await).await.unwrap();
    sleep(Duration::from_secs(150)).await;
    let text = metrics.text().await;
    assert_eq!(value(&text, r#"leasehold_jobs{queue="mail",state="queued"}"#), Some(1.0), "{text}");
    assert_eq!(value(&text, r#"leasehold_jobs{queue="mail",state="scheduled"}"#), Some(1.0), "{text}");
    assert_eq!(value(&text, r#"leasehold_jobs{queue="mail",state="failed"}"#), Some(0.0), "{text}");
    assert_eq!(value(&text, r#"leasehold_oldest_due_seconds{queue="mail"}"#), Some(150.0), "{text}");
    assert_eq!(value(&text, "leasehold_schedules_overdue"), Some(1.0), "{text}");
    assert_eq!(value(&text, r#"leasehold_workers{state="alive"}"#), Some(0.0), "{text}");
    let worker = Worker::builder(&store).queue("mail").handle("work", async || {}).build().unwrap().start();
    sleep(Duration::from_secs(10)).await;
    let text = metrics.text().await;
    assert_eq!(value(&text, r#"leasehold_workers{state="alive"}"#), Some(1.0), "{text}");
    assert_eq!(value(&text, r#"leasehold_jobs{queue="mail",state="succeeded"}"#), Some(1.0), "{text}");
    assert_eq!(value(&text, r#"leasehold_oldest_due_seconds{queue="mail"}"#), Some(0.0), "{text}");
    // It dies without a word.
    drop(worker);
    sleep(MINUTE * 5).await;
    let text = metrics.text().await;
    assert_eq!(value(&text, r#"leasehold_workers{state="lost"}"#), Some(1.0), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_store_is_asked_seldom_however_often_metrics_are_read() {
    let store = crate::store();
    let (metrics, _guard) = collect(&store);
    let asked = async || {
        let text = metrics.text().await;
        ["counts", "workers", "registers"]
            .map(|operation| format!(r#"leasehold_calls_total{{operation="{operation}",outcome="ok"}}"#))
            .map(|series| value(&text, &series).unwrap_or_default())
    };
    for _ in 0..50 {
        let many = futures::future::join_all((0..20).map(|_| metrics.text()));
        many.await;
    }
    assert_eq!(asked().await, [1.0; 3]);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(asked().await, [2.0; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_holds_up_no_scrape() {
    let down = Faults { hung: 1.0, ..Faults::default() };
    let store = Store::with_limits(Arc::new(Chaos::new(Arc::new(Memory::new()), down, 7)), Limits::default());
    let (metrics, _guard) = collect(&store);
    let begun = tokio::time::Instant::now();
    let text = metrics.text().await;
    assert_eq!(value(&text, "leasehold_store_up"), Some(0.0), "{text}");
    assert!(begun.elapsed() <= Duration::from_secs(3), "{:?}", begun.elapsed());
}
