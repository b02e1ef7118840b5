//! What an exporter of OpenTelemetry sees of a job.

use leasehold_core::{NewJob, Worker};
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use crate::store;

fn named(spans: &[SpanData], name: &str) -> Vec<SpanData> {
    spans.iter().filter(|span| span.name == name).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn one_trace_leads_from_who_enqueues_over_the_store_to_each_attempt() {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

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
    let inner = named(&spans, "inside");
    assert!(inner.iter().any(|span| span.parent_span_id == mine[0].span_context.span_id()));
    let other = attempts.iter().find(|span| span.span_context.trace_id() != trace).unwrap();
    assert_eq!(other.parent_span_id, SpanId::INVALID);
}
