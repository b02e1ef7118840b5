//! The trace of a job: from the span in which it is enqueued, over the store, to the span of its attempts. It goes in the
//! headers that the installed propagator of OpenTelemetry writes, `traceparent` and `tracestate` by W3C's. Without the feature
//! `opentelemetry`, and without an installed propagator, nothing is written or read.

use std::collections::BTreeMap;

use crate::job::NewJob;
use crate::limits::Limits;

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
