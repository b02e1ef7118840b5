//! A program that others watch: a request enqueues a job, a worker runs it, Prometheus reads `/metrics`, and one trace leads from
//! the request to the job, as a collector at `OTEL_EXPORTER_OTLP_ENDPOINT` sees.
//!
//! `cargo run --example observed --features opentelemetry,prometheus,schedules -- 127.0.0.1:8080 sqlite:observed.db`,
//! then `curl -X POST 127.0.0.1:8080/greet/Ada` and `curl 127.0.0.1:8080/metrics`

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use leasehold::client::Prometheus;
use leasehold::policy::BoxError;
use leasehold::schedule::{Rule, Schedule};
use leasehold::worker::Args;
use leasehold::{JobArgs, Queue, Worker};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl JobArgs for Greet {
    const KIND: &'static str = "greet";
}

async fn greet(Args(Greet { name }): Args<Greet>) {
    tracing::info_span!("say hello", name).in_scope(|| println!("Hello, {name}!"));
}

async fn request(State(queue): State<Queue>, Path(name): Path<String>) -> Result<String, String> {
    let span = tracing::info_span!("POST /greet", name);
    let job = queue.enqueue(Greet { name }).instrument(span).await;
    job.map(|job| format!("{job}\n")).map_err(|error| error.to_string())
}

async fn metrics(State(metrics): State<Prometheus>) -> impl IntoResponse {
    ([(CONTENT_TYPE, Prometheus::CONTENT_TYPE)], metrics.text().await)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let store = leasehold::connect(&arguments.next().unwrap_or_else(|| "memory:".into())).await?;

    // Spans go to the collector in batches, by a thread of their own: no job waits for it.
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build()?;
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("observed"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(spans))?;

    let text = Prometheus::install(&store)?;
    let hourly = Schedule::new(Rule::cron("0 * * * *", "UTC")?, Greet { name: "the hour".into() })?;
    store.schedules().put("hourly", hourly.queue("greetings".try_into()?)).await?;
    let worker = Worker::builder(&store).queue("greetings").handle(Greet::KIND, greet).schedules();
    let worker = worker.poll(Duration::from_millis(200)).build()?.start();

    let greetings = axum::Router::new().route("/greet/{name}", post(request));
    let greetings = greetings.with_state(store.queue("greetings")?);
    let app = axum::Router::new().route("/metrics", get(metrics)).with_state(text).merge(greetings);
    let server = axum::serve(tokio::net::TcpListener::bind(address).await?, app);
    server.with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
    worker.stop().await?;
    Ok(provider.shutdown()?)
}
