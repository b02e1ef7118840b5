//! What there is to see of a process by its metrics, and the trace of a job.
//!
//! A trace leads from the span in which a job is enqueued, over the store, to the span of its attempts. It goes in the
//! headers that the installed propagator of OpenTelemetry writes, `traceparent` and `tracestate` by W3C's. Without the feature
//! `opentelemetry`, and without an installed propagator, nothing is written or read.

use std::collections::BTreeMap;

use crate::job::NewJob;
use crate::limits::Limits;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "snake_case")]
pub enum MetricKind {
    /// It goes up.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It is measured again and again.
    Histogram,
}

/// A metric, as `docs/telemetry.md` has it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// What it says, in one sentence without its full stop.
    pub says: &'static str,
}

const fn metric(name: &'static str, kind: MetricKind, says: &'static str) -> Metric {
    Metric { name, kind, says }
}

/// Every metric that there is.
pub const METRICS: &[Metric] = &[
    metric("leasehold_calls_total", MetricKind::Counter, "Calls to the store, by how they ended"),
    metric("leasehold_call_seconds", MetricKind::Histogram, "How long calls to the store took"),
    metric("leasehold_jobs_total", MetricKind::Counter, "Attempts that ended here, by how"),
    metric("leasehold_job_seconds", MetricKind::Histogram, "How long handlers ran here"),
    metric(
        "leasehold_leases_lost_total",
        MetricKind::Counter,
        "Handlers stopped because their lease was lost",
    ),
    metric(
        "leasehold_leases_recovered_total",
        MetricKind::Counter,
        "Leases that ran out and were taken back here",
    ),
    metric("leasehold_ticks_total", MetricKind::Counter, "Ticks of schedules that were fired here"),
    metric("leasehold_flow_jobs_let_go_total", MetricKind::Counter, "Jobs of flows that were let go here"),
    metric(
        "leasehold_flow_jobs_cancelled_total",
        MetricKind::Counter,
        "Jobs of flows that were cancelled here because of others",
    ),
    metric(
        "leasehold_flows_total",
        MetricKind::Counter,
        "Flows whose end was written here, by how they ended",
    ),
    metric("leasehold_log_lines_dropped_total", MetricKind::Counter, "Lines of job logs that were too many"),
    metric("leasehold_jobs", MetricKind::Gauge, "Jobs in the store, by queue and state"),
    metric(
        "leasehold_oldest_due_seconds",
        MetricKind::Gauge,
        "How long the oldest due job of a queue has waited",
    ),
    metric("leasehold_workers", MetricKind::Gauge, "Workers that the store knows, alive and lost"),
    metric("leasehold_schedules_overdue", MetricKind::Gauge, "Schedules that are due for more than a minute"),
    metric("leasehold_store_up", MetricKind::Gauge, "Whether the store answered when it was last asked"),
];

/// Tells the exporter that is installed what each metric says. [`Prometheus::install`](crate::client::Prometheus::install) does
/// so by itself.
pub fn describe() {
    for Metric { name, kind, says } in METRICS {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(*name, *says),
            MetricKind::Gauge => metrics::describe_gauge!(*name, *says),
            MetricKind::Histogram => metrics::describe_histogram!(*name, *says),
        }
    }
}

/// Writes the present span's context into the headers of these jobs, where it fits into the limits and nobody has written one.
#[cfg(feature = "opentelemetry")]
pub(crate) fn send(jobs: &mut [NewJob], limits: &Limits) {
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let context = tracing::Span::current().context();
    let mut written = std::collections::HashMap::new();
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&context, &mut written);
    });
    if written.is_empty() {
        return;
    }
    let bytes = |key: &String, value: &String| key.len() + value.len();
    let size: usize = written.iter().map(|(key, value)| bytes(key, value)).sum();
    for job in jobs {
        let headers = &mut job.options.headers;
        let there: usize = headers.iter().map(|(key, value)| bytes(key, value)).sum();
        let fits = headers.len() + written.len() <= limits.headers && there + size <= limits.headers_bytes;
        if fits && !written.keys().any(|key| headers.contains_key(key)) {
            headers.extend(written.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
    }
}

/// Makes an attempt's span a child of the one in which its job was enqueued.
#[cfg(feature = "opentelemetry")]
pub(crate) fn receive(span: &tracing::Span, headers: &BTreeMap<String, String>) {
    use opentelemetry::trace::TraceContextExt;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let sent: std::collections::HashMap<String, String> = headers.clone().into_iter().collect();
    let context = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&sent));
    if context.span().span_context().is_valid() {
        // It fails if no layer of OpenTelemetry's takes spans: then nobody sees it either.
        let _ = span.set_parent(context);
    }
}

#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn send(_jobs: &mut [NewJob], _limits: &Limits) {}

#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn receive(_span: &tracing::Span, _headers: &BTreeMap<String, String>) {}
