//! What an exporter of OpenTelemetry sees of a job.

use std::net::TcpListener;
use std::time::Duration;

use leasehold_core::schedule::{Rule, Schedule};
use leasehold_core::{NewJob, Store, Worker};
use opentelemetry::trace::{SpanId, SpanKind, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use crate::store;

fn named(spans: &[SpanData], name: &str) -> Vec<SpanData> {
    spans.iter().filter(|span| span.name == name).cloned().collect()
}

/// Has this thread's spans go to a provider, until the guard is gone.
fn observe(provider: &SdkTracerProvider) -> tracing::subscriber::DefaultGuard {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    tracing::subscriber::set_default(tracing_subscriber::registry().with(layer))
}

#[tokio::test(start_paused = true)]
async fn one_trace_leads_from_who_enqueues_over_the_store_to_each_attempt() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let _guard = observe(&provider);

    let store = store();
    let enqueue = async {
        let queue = store.queue("default").unwrap();
        queue.enqueue(NewJob::dynamic("work", &1).unwrap()).await.unwrap()
    };
    let job = enqueue.instrument(tracing::info_span!("request")).await;
    let stranger =
        store.queue("default").unwrap().enqueue(NewJob::dynamic("work", &2).unwrap()).await.unwrap();
    let headers = store.find(job).await.unwrap().unwrap().options.headers;
    assert!(headers["traceparent"].starts_with("00-"), "{headers:?}");
    assert!(store.find(stranger).await.unwrap().unwrap().options.headers.is_empty());

    let inside = async || tracing::info_span!("inside").in_scope(|| {});
    Worker::builder(&store).until_idle().handle("work", inside).build().unwrap().run().await;
    provider.force_flush().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let request = &named(&spans, "request")[0];
    let trace = request.span_context.trace_id();
    let attempts = named(&spans, "leasehold.job");
    assert_eq!(attempts.len(), 2);
    let mine: Vec<_> = attempts.iter().filter(|span| span.span_context.trace_id() == trace).collect();
    assert_eq!(mine.len(), 1);
    assert_eq!(mine[0].parent_span_id, request.span_context.span_id());
    assert_eq!(mine[0].span_kind, SpanKind::Consumer);
    let inner = named(&spans, "inside");
    assert!(inner.iter().any(|span| span.parent_span_id == mine[0].span_context.span_id()));
    let other = attempts.iter().find(|span| span.span_context.trace_id() != trace).unwrap();
    assert_eq!(other.parent_span_id, SpanId::INVALID);
}

#[tokio::test(start_paused = true)]
async fn one_trace_leads_from_a_tick_to_each_attempt_of_its_job() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let _guard = observe(&provider);
    let store = store();
    let rule = Rule::every(Duration::from_secs(60), store.now().await.unwrap()).unwrap();
    let schedule = Schedule::new(rule, NewJob::dynamic("work", &1).unwrap()).unwrap();
    store.schedules().put("nightly", schedule).await.unwrap();
    let worker = Worker::builder(&store).schedules().handle("work", async || {});
    worker.max_time(Duration::from_secs(150)).build().unwrap().run().await;
    provider.force_flush().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    let (ticks, attempts) = (named(&spans, "leasehold.tick"), named(&spans, "leasehold.job"));
    assert_eq!((ticks.len(), attempts.len()), (2, 2));
    for (tick, attempt) in ticks.iter().zip(&attempts) {
        assert_eq!(attempt.span_context.trace_id(), tick.span_context.trace_id());
        assert_eq!(attempt.parent_span_id, tick.span_context.span_id());
        let schedule = tick.attributes.iter().find(|attribute| attribute.key.as_str() == "schedule");
        assert_eq!(schedule.unwrap().value.as_str(), "nightly");
    }
    assert_ne!(ticks[0].span_context.trace_id(), ticks[1].span_context.trace_id());
}

/// Runs so many jobs while their spans go to this port of this machine by a stock exporter.
async fn run_observed(port: u16, jobs: u64) {
    let exporter = SpanExporter::builder().with_http();
    let exporter = exporter.with_endpoint(format!("http://127.0.0.1:{port}/v1/traces"));
    let exporter = exporter.with_timeout(Duration::from_secs(600)).build().unwrap();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    let guard = observe(&provider);
    let store: Store = store();
    let queue = store.queue("default").unwrap();
    queue.enqueue_all((0..jobs).map(|n| NewJob::dynamic("work", &n).unwrap())).await.unwrap();
    let worker = Worker::builder(&store).until_idle().handle("work", async || {}).build().unwrap();
    let summary = tokio::time::timeout(Duration::from_secs(60), worker.run()).await.unwrap();
    assert_eq!((summary.succeeded, summary.failed, summary.retried), (jobs, 0, 0));
    drop(guard);
    // What it has not got rid of is lost.
    let _ = provider.shutdown_with_timeout(Duration::from_millis(1));
}

/// More spans than an exporter holds back.
const MANY: u64 = 5_000;

#[tokio::test]
async fn an_exporter_that_is_down_costs_no_job() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    run_observed(port, MANY).await;
}

#[tokio::test]
async fn an_exporter_that_never_answers_costs_no_job() {
    // Connections are taken, and nobody says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    run_observed(silent.local_addr().unwrap().port(), MANY).await;
    silent.set_nonblocking(true).unwrap();
    silent.accept().expect("the exporter had connected");
}
