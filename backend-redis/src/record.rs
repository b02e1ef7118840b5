//! Jobs as hashes: their fields, and how these become records (clause B3).

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::str::FromStr;

use leasehold_core::backend::{NewFailure, SetAside};
use leasehold_core::limits::HISTORY;
use leasehold_core::{
    ClaimId, Due, Failure, JobId, JobOptions, JobRecord, Keep, Kind, NewJob, OnConflict, Payload, QueueName,
    Reason, Result, Retention, State, Tag, Timestamp, UniqueScope,
};
use redis::Cmd;
use serde_json::{Map, Value as Json};

use crate::error::{Done, corrupt};
use crate::session::millis;

/// A hash as it comes from the server.
pub(crate) type Hash = HashMap<String, Vec<u8>>;

/// Writes a new job as arguments of a script: its id, when it is due, how long it holds a key, what it does to whoever
/// holds that, and its fields.
pub(crate) fn push_new(command: &mut Cmd, job: &NewJob) -> Done<()> {
    let (rule, due) = due(job.due);
    let unique = job.options.unique.as_ref();
    let period = match unique.map(|unique| unique.scope) {
        Some(UniqueScope::For(period)) => millis(period).to_string(),
        _ => String::new(),
    };
    let fields = fields(job)?;
    let on_conflict = match job.on_conflict() {
        OnConflict::Keep => String::new(),
        OnConflict::Debounce { at_most } => millis(at_most).to_string(),
        _ => "replace".to_owned(),
    };
    command.arg(job.id.to_string()).arg(rule).arg(due).arg(period).arg(on_conflict).arg(fields.len());
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
    Ok(())
}

/// When a job is due, as a rule and milliseconds.
pub(crate) fn due(due: Due) -> (&'static str, i64) {
    match due {
        Due::Now => ("in", 0),
        Due::In(delay) => ("in", millis(delay)),
        Due::At(at) => ("at", at.as_millis()),
    }
}

fn fields(job: &NewJob) -> Done<Vec<(&'static str, Vec<u8>)>> {
    let options = &job.options;
    let mut fields = vec![
        ("queue", job.queue.as_str().into()),
        ("kind", job.kind.as_str().into()),
        ("payload", job.payload.as_bytes().to_vec()),
        ("priority", options.priority.to_string().into()),
        ("max", options.max_attempts.to_string().into()),
        ("keep", keep(job).into()),
        ("options", written(options)?.into()),
    ];
    if !options.tags.is_empty() {
        let tags: Vec<&str> = options.tags.iter().map(Tag::as_str).collect();
        fields.push(("tags", tags.join("\n").into()));
    }
    fields.extend(options.lease.map(|lease| ("lease", millis(lease).to_string().into())));
    if let Some(limit) = &options.limit {
        fields.push(("limit", limit.key.as_str().into()));
        fields.push(("limit_max", limit.max.to_string().into()));
        if !limit.when_full.is_wait() {
            fields.push(("limit_ends", "1".into()));
        }
    }
    if let Some(unique) = &options.unique {
        let scope = match unique.scope {
            UniqueScope::UntilClaimed => "claimed",
            UniqueScope::UntilFinished => "finished",
            UniqueScope::For(_) => "for",
        };
        fields.push(("unique", unique.key.as_str().into()));
        fields.push(("scope", scope.into()));
    }
    Ok(fields)
}

/// How long it is kept after each of the ends, in milliseconds.
fn keep(job: &NewJob) -> String {
    let of = |keep: Keep| keep.span().map_or_else(|| "-".into(), |span| millis(span).to_string());
    let retention = &job.options.retention;
    format!("{} {} {}", of(retention.succeeded), of(retention.failed), of(retention.cancelled))
}

/// Options as JSON without those that are as they would be anyway: most jobs have none, and a million of them are much.
fn written(options: &JobOptions) -> Done<String> {
    let mut usual = JobOptions::default();
    // It has a field of its own.
    usual.priority = options.priority;
    if *options == usual {
        return Ok("{}".into());
    }
    let (options, defaults) = (object(options)?, object(&JobOptions::default())?);
    let own: Map<String, Json> =
        options.into_iter().filter(|(name, value)| defaults.get(name) != Some(value)).collect();
    Ok(serde_json::to_string(&own)?)
}

fn object(options: &JobOptions) -> Done<Map<String, Json>> {
    match serde_json::to_value(options)? {
        Json::Object(object) => Ok(object),
        other => Err(corrupt(format!("options are not written as {other}"))),
    }
}

/// The record of a job as it is `now`.
pub(crate) fn read(id: &str, hash: &Hash, now: Timestamp) -> Result<JobRecord, SetAside> {
    let job: Option<JobId> = id.parse().ok();
    let read = job.ok_or_else(|| format!("{id:?} is no id")).and_then(|id| Fields(hash).job(id, now));
    read.map_err(|why| {
        tracing::warn!(job = id, why, "a record cannot be read");
        SetAside { job, why }
    })
}

/// The claim that a job runs under.
pub(crate) fn claim(hash: &Hash) -> Option<ClaimId> {
    Fields(hash).parse("claim").ok().flatten()
}

struct Fields<'a>(&'a Hash);

impl Fields<'_> {
    fn job(&self, id: JobId, now: Timestamp) -> Result<JobRecord, String> {
        let (queue, kind) = (QueueName::new(self.text("queue")?), Kind::new(self.text("kind")?));
        let (queue, kind) = (queue.map_err(|e| e.to_string())?, kind.map_err(|e| e.to_string())?);
        let mut options: JobOptions =
            serde_json::from_str(self.text("options")?).map_err(|e| e.to_string())?;
        options.priority = self.needed("priority")?;
        let payload = self.bytes("payload").ok_or("it has no payload")?;
        let (due, at) = (self.moment("due")?, self.moment("at")?);
        let (due, at) = (due.ok_or("it has no due time")?, at.ok_or("nobody knows when it came")?);
        let mut job = JobRecord::new(id, queue, kind, payload, options, due, at);
        job.state = match self.text("state")? {
            "waiting" => State::Queued,
            other => other.parse().map_err(|_| format!("there is no state {other:?}"))?,
        };
        job.reason = self.parse::<Reason>("reason")?;
        job.attempt = self.parse("attempt")?.unwrap_or(0);
        job.crashes = self.parse("crashes")?.unwrap_or(0);
        job.generation = self.parse("generation")?.unwrap_or(0);
        job.started_at = self.moment("started")?;
        job.finished_at = self.moment("finished")?;
        job.expires_at = self.moment("expires")?;
        job.worker = self.parse("worker")?;
        if job.state == State::Running {
            job.lease_until = self.moment("lease_until")?;
            job.cancel_requested = self.0.contains_key("cancel");
        }
        job.progress = self.json("progress")?;
        job.result = self.bytes("result");
        job.history = self.history()?;
        job.look(now);
        Ok(job)
    }

    /// The first failure stands at 0, and the latest ones go round after it.
    fn history(&self) -> Result<Vec<Failure>, String> {
        let (all, round) = (self.parse::<usize>("failures")?.unwrap_or(0), HISTORY - 1);
        let latest = all.saturating_sub(round).max(1)..all.max(1);
        let places = (0..all.min(1)).chain(latest.map(|nth| 1 + (nth - 1) % round));
        places.map(|place| self.failure(&format!("failure{place}"))).collect()
    }

    fn failure(&self, name: &str) -> Result<Failure, String> {
        let mut parts = self.text(name)?.splitn(4, '\n');
        let mut part = || parts.next().ok_or_else(|| format!("{name} has too few lines"));
        let (attempt, worker, at, told) = (part()?, part()?, part()?, part()?);
        let NewFailure { reason, class, message } = serde_json::from_str(told).map_err(|e| e.to_string())?;
        let worker = if worker.is_empty() { None } else { Some(parsed(name, worker)?) };
        let (attempt, at) = (parsed(name, attempt)?, Timestamp::from_millis(parsed(name, at)?));
        Ok(Failure { attempt, worker, at, reason, class, message })
    }

    fn bytes(&self, name: &str) -> Option<Payload> {
        self.0.get(name).map(|bytes| Payload::from_bytes(bytes.clone()))
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        let bytes = self.0.get(name).ok_or_else(|| format!("it has no {name}"))?;
        std::str::from_utf8(bytes).map_err(|error| format!("{name}: {error}"))
    }

    fn parse<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, String> {
        if self.0.contains_key(name) { parsed(name, self.text(name)?).map(Some) } else { Ok(None) }
    }

    fn needed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, String> {
        parsed(name, self.text(name)?)
    }

    fn moment(&self, name: &str) -> Result<Option<Timestamp>, String> {
        Ok(self.parse(name)?.map(Timestamp::from_millis))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        if !self.0.contains_key(name) {
            return Ok(None);
        }
        serde_json::from_str(self.text(name)?).map(Some).map_err(|error| format!("{name}: {error}"))
    }
}

fn parsed<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{name}: {error}"))
}

/// How long a record that cannot be read is kept, in milliseconds.
pub(crate) fn kept_aside() -> String {
    let kept = Retention::default().failed.span();
    kept.map_or_else(String::new, |span| millis(span).to_string())
}

/// Lists of names as scripts read them: behind their length.
pub(crate) fn push_all<T>(command: &mut Cmd, items: &BTreeSet<T>, text: impl Fn(&T) -> &str) {
    command.arg(items.len());
    for item in items {
        command.arg(text(item));
    }
}
