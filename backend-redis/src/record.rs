//! Jobs as hashes: their fields, and how these become records (clause B3).

use std::collections::{BTreeSet, HashMap};
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use leasehold_core::backend::{NewFailure, SetAside};
use leasehold_core::limits::HISTORY;
use leasehold_core::{
    ClaimId, Due, Failure, JobId, JobOptions, JobRecord, Keep, Kind, NewJob, OnConflict, Payload, QueueName,
    Reason, Result, Retention, State, Timestamp, UniqueScope,
};
use redis::{Cmd, ToRedisArgs};
use serde_json::{Map, Value as Json};

use crate::error::{Done, corrupt};
use crate::session::millis;

/// A hash as it comes from the server.
pub(crate) type Hash = HashMap<String, Vec<u8>>;

/// A payload is cut into so many fields of so many bytes at most: see `jobs.lua`.
const PIECES: usize = 3;
const PIECE: usize = 64;

/// Writes a new job as arguments of a script: its id, when it is due, its lane, its terms, and its fields.
pub(crate) fn push_new(command: &mut Cmd, job: &NewJob) -> Done<()> {
    command.arg(job.id.to_string());
    match job.due {
        Due::Now => command.arg(""),
        Due::In(delay) => command.arg(format!("+{}", millis(delay))),
        Due::At(at) => command.arg(format!("@{}", at.as_millis())),
    };
    command.arg(lane(job)).arg(terms(job));
    push_fields(command, &fields(job)?, &job.payload);
    Ok(())
}

fn push_fields<N: ToRedisArgs, V: ToRedisArgs>(command: &mut Cmd, fields: &[(N, V)], payload: &Payload) {
    let pieces = pieces(payload);
    // What is too long for pieces stands alone behind the pairs.
    let whole = pieces.is_empty();
    command.arg(2 * (fields.len() + pieces.len()) + usize::from(whole));
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
    for (number, piece) in (1..).zip(pieces) {
        command.arg(number).arg(piece);
    }
    if whole {
        command.arg(payload.as_bytes());
    }
}

/// Writes a job of another store as arguments of a script: its id, lane, terms, state and moments, and its fields.
pub(crate) fn push_admitted(command: &mut Cmd, job: &JobRecord) -> Done<()> {
    let mut new = NewJob::new(job.kind.clone(), Payload::EMPTY);
    (new.queue, new.options) = (job.queue.clone(), job.options.clone());
    let state = if job.state.is_waiting() { "waiting" } else { job.state.into() };
    command.arg(job.id.to_string()).arg(lane(&new)).arg(terms(&new)).arg(state);
    command.arg(job.enqueued_at.as_millis()).arg(job.due.as_millis());
    let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, value: String| pairs.push((name.to_owned(), value.into_bytes()));
    for (name, value) in fields(&new)? {
        match name {
            "on_conflict" | "period" => {}
            name => add(name, value),
        }
    }
    if let Some(UniqueScope::For(period)) = job.options.unique.as_ref().map(|unique| unique.scope) {
        add("unique_until", job.enqueued_at.plus(period).as_millis().to_string());
    }
    let counts = [("attempt", job.attempt), ("crashes", job.crashes), ("generation", job.generation)];
    for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        add(name, count.to_string());
    }
    if let (Some(started), Some(worker)) = (job.started_at, job.worker) {
        add("run", format!("{} {worker}", started.as_millis()));
    }
    job.reason.into_iter().for_each(|reason| add("reason", reason.to_string()));
    job.finished_at.into_iter().for_each(|at| add("finished", at.as_millis().to_string()));
    if let Some(progress) = &job.progress {
        add("progress", serde_json::to_string(progress)?);
    }
    for (place, failure) in job.history.iter().enumerate() {
        let Failure { attempt, worker, at, reason, class, message } = failure.clone();
        let told = serde_json::to_string(&NewFailure { reason, class, message })?;
        let worker = worker.map_or_else(String::new, |worker| worker.to_string());
        add(&format!("failure{place}"), format!("{attempt}\n{worker}\n{}\n{told}", at.as_millis()));
    }
    if !job.history.is_empty() {
        add("failures", job.history.len().to_string());
    }
    pairs.extend(job.result.iter().map(|result| ("result".to_owned(), result.as_bytes().to_vec())));
    push_fields(command, &pairs, &job.payload);
    Ok(())
}

/// What the payload is cut into, nothing if it is too long for that.
fn pieces(payload: &Payload) -> Vec<&[u8]> {
    match payload.as_bytes() {
        [] => vec![&[]],
        bytes if bytes.len() <= PIECES * PIECE => bytes.chunks(PIECE).collect(),
        _ => Vec::new(),
    }
}

/// When a job is due, as a rule and milliseconds.
pub(crate) fn due(due: Due) -> (&'static str, i64) {
    match due {
        Due::Now => ("in", 0),
        Due::In(delay) => ("in", millis(delay)),
        Due::At(at) => ("at", at.as_millis()),
    }
}

/// The name of its lane.
fn lane(job: &NewJob) -> String {
    let mut lane = format!("{}\n{}\n{}", job.queue.as_str(), job.options.priority, job.kind.as_str());
    for tag in &job.options.tags {
        lane.push('\n');
        lane.push_str(tag.as_str());
    }
    lane
}

/// Attempts at most, for how many milliseconds it is kept after each of the ends, and whether it has keys.
fn terms(job: &NewJob) -> String {
    let of = |keep: Keep| keep.span().map_or_else(|| "-".into(), |span| millis(span).to_string());
    let (options, retention) = (&job.options, &job.options.retention);
    let (succeeded, failed) = (of(retention.succeeded), of(retention.failed));
    let keys = if options.limit.is_some() || options.unique.is_some() { " keys" } else { "" };
    format!("{} {succeeded} {failed} {}{keys}", options.max_attempts, of(retention.cancelled))
}

/// What not every job has.
fn fields(job: &NewJob) -> Done<Vec<(&'static str, String)>> {
    let options = &job.options;
    let mut fields = Vec::new();
    fields.extend(written(options)?.map(|options| ("options", options)));
    fields.extend(options.lease.map(|lease| ("lease", millis(lease).to_string())));
    if let Some(limit) = &options.limit {
        fields.push(("limit", limit.key.to_string()));
        fields.push(("limit_max", limit.max.to_string()));
        if !limit.when_full.is_wait() {
            fields.push(("limit_ends", "1".into()));
        }
    }
    if let Some(unique) = &options.unique {
        let scope = match unique.scope {
            UniqueScope::UntilClaimed => "claimed",
            UniqueScope::UntilFinished => "finished",
            UniqueScope::For(period) => {
                fields.push(("period", millis(period).to_string()));
                "for"
            }
        };
        fields.push(("unique", unique.key.to_string()));
        fields.push(("scope", scope.into()));
    }
    match job.on_conflict() {
        OnConflict::Keep => {}
        OnConflict::Debounce { at_most } => fields.push(("on_conflict", millis(at_most).to_string())),
        _ => fields.push(("on_conflict", "replace".into())),
    }
    Ok(fields)
}

/// Options as JSON without those that are as they would be anyway: most jobs have none, and a million of them are much.
fn written(options: &JobOptions) -> Done<Option<String>> {
    let mut usual = JobOptions::default();
    // It has a field of its own.
    usual.priority = options.priority;
    if *options == usual {
        return Ok(None);
    }
    let (options, defaults) = (object(options)?, object(&JobOptions::default())?);
    let own: Map<String, Json> =
        options.into_iter().filter(|(name, value)| defaults.get(name) != Some(value)).collect();
    Ok(Some(serde_json::to_string(&own)?))
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
        let mut lane = self.text("lane")?.splitn(4, '\n');
        let mut part = || lane.next().ok_or("its lane has too few lines");
        let (queue, priority, kind) = (part()?, part()?, part()?);
        let (queue, kind) = (QueueName::new(queue), Kind::new(kind));
        let (queue, kind) = (queue.map_err(|e| e.to_string())?, kind.map_err(|e| e.to_string())?);
        let mut options: JobOptions = self.json("options")?.unwrap_or_default();
        options.priority = parsed("priority", priority)?;
        let payload = self.payload().ok_or("it has no payload")?;
        let at = self.moment("at")?.ok_or("nobody knows when it came")?;
        let due = self.moment("due")?.unwrap_or(at);
        let mut job = JobRecord::new(id, queue, kind, payload, options, due, at);
        job.state = match self.text("state")? {
            "waiting" => State::Queued,
            other => other.parse().map_err(|_| format!("there is no state {other:?}"))?,
        };
        job.reason = self.parse::<Reason>("reason")?;
        job.attempt = self.parse("attempt")?.unwrap_or(0);
        job.crashes = self.parse("crashes")?.unwrap_or(0);
        job.generation = self.parse("generation")?.unwrap_or(0);
        if self.0.contains_key("run") {
            let (started, worker) = self.text("run")?.split_once(' ').ok_or("it runs nowhere")?;
            job.started_at = Some(Timestamp::from_millis(parsed("run", started)?));
            job.worker = Some(parsed("run", worker)?);
        }
        job.finished_at = self.moment("finished")?;
        job.expires_at = if job.is_withdrawn() { None } else { self.expiry(job.state, job.finished_at)? };
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

    /// When it goes, as the terms say that it was taken in with.
    fn expiry(&self, state: State, finished: Option<Timestamp>) -> Result<Option<Timestamp>, String> {
        let place = match state {
            State::Succeeded => 1,
            State::Failed => 2,
            State::Cancelled => 3,
            _ => return Ok(None),
        };
        let kept = self.text("terms")?.split(' ').nth(place).ok_or("its terms are too few")?;
        let Some(finished) = finished.filter(|_| kept != "-") else { return Ok(None) };
        Ok(Some(finished.plus(Duration::from_millis(parsed("terms", kept)?))))
    }

    fn payload(&self) -> Option<Payload> {
        let mut bytes = self.0.get("1")?.clone();
        for number in 2..=PIECES {
            match self.0.get(number.to_string().as_str()) {
                Some(piece) => bytes.extend(piece),
                None => break,
            }
        }
        Some(Payload::from_bytes(bytes))
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
