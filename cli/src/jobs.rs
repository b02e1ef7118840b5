//! How jobs are shown.

use leasehold::{JobRecord, Timestamp};

use crate::words::{cut, moment, relative, span, word};

pub(crate) const COLUMNS: [&str; 7] = ["id", "queue", "kind", "state", "attempt", "when", "about"];

/// A job as a row of a table.
pub(crate) fn row(job: &JobRecord, now: Timestamp) -> Vec<String> {
    vec![
        job.id.to_string(),
        job.queue.to_string(),
        job.kind.to_string(),
        state(job),
        format!("{}/{}", job.attempt, job.options.max_attempts),
        when(job, now),
        about(job),
    ]
}

/// Its state, and why it is there.
pub(crate) fn state(job: &JobRecord) -> String {
    match (&job.reason, job.is_parked()) {
        (_, true) => "parked".to_owned(),
        (Some(reason), _) => format!("{} ({})", job.state, word(reason)),
        (None, _) => job.state.to_string(),
    }
}

/// The moment that matters most of it.
fn when(job: &JobRecord, now: Timestamp) -> String {
    if job.is_parked() {
        return relative(job.enqueued_at, now);
    }
    let at = match (job.finished_at, job.started_at) {
        (Some(finished), _) => finished,
        (None, Some(started)) if job.state == leasehold::State::Running => started,
        _ => job.due,
    };
    relative(at, now)
}

/// What there is to be said of it in a few words.
fn about(job: &JobRecord) -> String {
    const MOST: usize = 60;
    match (job.last_failure(), &job.progress, &job.result) {
        (_, _, Some(result)) => cut(&text(result.as_bytes()), MOST),
        (Some(failure), _, _) if !job.state.is_terminal() || job.state == leasehold::State::Failed => {
            cut(&format!("{}: {}", failure.class, failure.message), MOST)
        }
        (_, Some(progress), _) => {
            let of = progress.total.map(|total| format!("/{total}")).unwrap_or_default();
            cut(&format!("{}{of} {}", progress.done, progress.message), MOST)
        }
        _ => cut(&text(job.payload.as_bytes()), MOST),
    }
}

/// Bytes as text, if they are any.
pub(crate) fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{} bytes that are no text", bytes.len()),
    }
}

/// All of a job, line by line.
pub(crate) fn lines(job: &JobRecord, now: Timestamp) -> Vec<(&'static str, String)> {
    let at = |at: Timestamp| format!("{} ({})", moment(at), relative(at, now));
    let options = &job.options;
    let mut lines = vec![
        ("id", job.id.to_string()),
        ("queue", job.queue.to_string()),
        ("kind", job.kind.to_string()),
        ("state", state(job)),
        ("enqueued", at(job.enqueued_at)),
    ];
    let mut add = |name, value: Option<String>| lines.extend(value.map(|value| (name, value)));
    add("due", (job.state.is_waiting() && !job.is_parked()).then(|| at(job.due)));
    add("started", job.started_at.map(at));
    add("finished", job.finished_at.map(at));
    add("kept until", job.expires_at.map(at));
    let crashes = if job.crashes == 0 { String::new() } else { format!(", {} crashes", job.crashes) };
    add("attempts", Some(format!("{} of {}{crashes}", job.attempt, options.max_attempts)));
    add("rounds", (job.generation > 0).then(|| format!("requeued {} times", job.generation)));
    add("worker", job.worker.map(|worker| worker.to_string()));
    add("lease", job.lease_until.map(at));
    add("cancel", job.cancel_requested.then(|| "asked for".to_owned()));
    add("priority", (options.priority != 0).then(|| options.priority.to_string()));
    let tags: Vec<&str> = options.tags.iter().map(leasehold::Tag::as_str).collect();
    add("tags", (!tags.is_empty()).then(|| tags.join(" ")));
    add("unique key", options.unique.as_ref().map(|unique| unique.key.to_string()));
    add("limit key", options.limit.as_ref().map(|limit| format!("{}, {} at once", limit.key, limit.max)));
    add("timeout", options.timeout.map(span));
    for (name, value) in &options.headers {
        add("header", Some(format!("{name}: {value}")));
    }
    add(
        "progress",
        job.progress.as_ref().map(|progress| {
            let of = progress.total.map(|total| format!(" of {total}")).unwrap_or_default();
            format!("{}{of} {}", progress.done, progress.message)
        }),
    );
    add("payload", Some(text(job.payload.as_bytes())));
    add("result", job.result.as_ref().map(|result| text(result.as_bytes())));
    for failure in &job.history {
        let (attempt, why) = (failure.attempt, word(&failure.reason));
        add(
            "failure",
            Some(format!(
                "attempt {attempt}, {why}, {}\n{}: {}",
                at(failure.at),
                failure.class,
                failure.message
            )),
        );
    }
    lines
}
