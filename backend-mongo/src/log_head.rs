//! The head of a job's log: how far its lease has written, how much, and what the caps leave of it.
//!
//! What is counted only grows, and every line carries what was counted with it. So what a cap takes is known by
//! comparing, whatever the server has taken before; nothing has to be read or counted back.

use leasehold_core::backend::{LogAppend, LogCaps, LogLine, NewLine};
use leasehold_core::{JobId, JobRecord, Timestamp};
use mongodb::bson::{Document, doc};
use uuid::Uuid;

use crate::record;
use crate::session::{Change, date};

/// Every line counts as its message and so many bytes more, so that empty lines are bounded too.
const LINE: i64 = 64;

/// The log of a running job.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) claim: Uuid,
    pub(crate) worker: Option<Uuid>,
    /// The last line of the worker, as far as is known.
    pub(crate) worker_last: i64,
    attempt: i64,
    queue: String,
    /// How many lines of this lease were taken in.
    position: i64,
    /// The number of the last line; 0 for none.
    pub(crate) last: i64,
    all: Count,
    /// What fell to the job's caps.
    gone: Count,
    /// The state before the latest append, from which a repetition finds the numbers of its lines.
    latest: Latest,
    /// Whether lines have just fallen to the job's caps.
    pub(crate) trims: bool,
}

/// How much was ever written.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    lines: i64,
    bytes: i64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Latest {
    position: i64,
    first: i64,
    before: i64,
    all: Count,
}

/// A line, its number, and what was counted with it.
pub(crate) struct Numbered<'a> {
    line: &'a NewLine,
    pub(crate) sequence: i64,
    before: i64,
    count: Count,
}

impl Count {
    fn read(of: &Document) -> Self {
        let number = |name: &str| record::whole(of.get(name)).unwrap_or(0);
        Self { lines: number("lines"), bytes: number("bytes") }
    }

    fn document(self) -> Document {
        doc! {"lines": self.lines, "bytes": self.bytes}
    }

    fn count(&mut self, message: &str) {
        self.lines += 1;
        self.bytes += size(message);
    }

    fn add(&mut self, line: &NewLine) {
        self.count(&line.message);
    }
}

fn size(message: &str) -> i64 {
    i64::try_from(message.len()).unwrap_or(i64::MAX).saturating_add(LINE)
}

impl Head {
    /// The head in a job that runs.
    pub(crate) fn read(job: &Document) -> Option<Self> {
        let claim = record::as_uuid(job.get("claim")?)?;
        let log = job.get_document("log").cloned().unwrap_or_default();
        let part = |name: &str| log.get_document(name).cloned().unwrap_or_default();
        let number = |of: &Document, name: &str| record::whole(of.get(name)).unwrap_or(0);
        let same_lease = log.get("claim").and_then(record::as_uuid) == Some(claim);
        let latest = part("latest");
        let worker = job.get_array("of_worker").ok().and_then(|found| found.first()?.as_document());
        Some(Self {
            claim,
            worker: job.get("worker").and_then(record::as_uuid),
            worker_last: worker.map_or(0, |worker| number(worker, "last")),
            attempt: number(job, "attempt"),
            queue: job.get_str("queue").unwrap_or_default().to_owned(),
            position: if same_lease { number(&log, "position") } else { 0 },
            last: number(&log, "last"),
            all: Count::read(&log),
            gone: Count::read(&part("gone")),
            latest: Latest {
                position: number(&latest, "position"),
                first: number(&latest, "first"),
                before: number(&latest, "before"),
                all: Count::read(&latest),
            },
            trims: false,
        })
    }

    /// Takes lines in and numbers those that are new from `next` on. Those of the latest append get the numbers again
    /// that they have, because it is not known whether they got as far as the collection (clause E2); earlier ones
    /// did, or never will.
    pub(crate) fn take<'a>(&mut self, append: &'a LogAppend, next: i64, caps: &LogCaps) -> Vec<Numbered<'a>> {
        let start = i64::try_from(append.position).unwrap_or(i64::MAX);
        let places = (0..).map(|i: i64| start.saturating_add(i));
        let (known, before_known) = (self.position, self.latest);
        let mut count = before_known.all;
        let mut lines = Vec::new();
        for (place, line) in places.zip(&append.lines) {
            if place < known {
                if place < before_known.position {
                    continue;
                }
                let sequence = before_known.first + (place - before_known.position);
                count.add(line);
                count.lines = before_known.all.lines + (place - before_known.position) + 1;
                let before = if place == before_known.position { before_known.before } else { sequence - 1 };
                lines.push(Numbered { line, sequence, before, count });
                continue;
            }
            if self.position == known {
                self.latest = Latest { position: place, first: next, before: self.last, all: self.all };
            }
            let before = self.last;
            self.last = if self.position == known { next } else { self.last + 1 };
            self.position = place.saturating_add(1);
            self.all.add(line);
            lines.push(Numbered { line, sequence: self.last, before, count: self.all });
        }
        self.trim(caps);
        let gone = self.gone;
        lines.retain(|line| line.count.lines > gone.lines && line.count.bytes > gone.bytes);
        lines
    }

    /// Lets the oldest eighth fall where a cap is reached, so that lines fall many at a time.
    fn trim(&mut self, caps: &LogCaps) {
        let cap = |cap: u64| i64::try_from(cap).unwrap_or(i64::MAX);
        let left = |cap: i64| (cap - cap / 8).max(1);
        let (lines, bytes) = (cap(caps.job_lines), cap(caps.job_bytes));
        if self.all.lines - self.gone.lines > lines {
            self.gone.lines = self.all.lines - left(lines);
            self.trims = true;
        }
        if self.all.bytes - self.gone.bytes > bytes {
            self.gone.bytes = self.all.bytes - left(bytes);
            self.trims = true;
        }
    }

    /// Writes the head, if the job still runs under the claim and nobody else has moved it.
    pub(crate) fn moved(&self, job: JobId, from: i64) -> Change {
        // A job that never logged has no head.
        let known = if from == 0 {
            doc! {"$in": [null, 0]}
        } else {
            doc! {"$eq": from}
        };
        let mut filter = record::held(record::ids([&job]), &self.claim);
        filter.insert("log.last", known);
        let mut latest = self.latest.all.document();
        let Latest { position, first, before, .. } = self.latest;
        latest.extend(doc! {"position": position, "first": first, "before": before});
        let head = doc! {
            "log.claim": record::uuid(&self.claim), "log.position": self.position, "log.last": self.last,
            "log.lines": self.all.lines, "log.bytes": self.all.bytes,
            "log.gone": self.gone.document(), "log.latest": latest,
        };
        Change::one(filter, doc! {"$set": head, "$currentDate": {"log.at": true}})
    }

    pub(crate) fn document(
        &self,
        job: JobId,
        line: &Numbered<'_>,
        of_worker: i64,
        now: Timestamp,
    ) -> Document {
        doc! {
            "_id": line.sequence,
            "job": record::uuid(job.as_uuid()),
            "queue": &self.queue,
            "worker": self.worker.as_ref().map(record::uuid),
            "attempt": self.attempt,
            "at": date(now),
            "level": <&str>::from(line.line.level),
            "message": &line.line.message,
            "before": {"job": line.before, "worker": of_worker},
            "count": line.count.document(),
        }
    }

    /// The lines that fell to the job's caps.
    pub(crate) fn fallen(&self, job: JobId) -> Document {
        let Count { lines, bytes } = self.gone;
        doc! {
            "job": record::uuid(job.as_uuid()),
            "$or": [{"count.lines": {"$lte": lines}}, {"count.bytes": {"$lte": bytes}}],
        }
    }
}

/// The log of a job that comes from another store, under numbers of this one.
pub(crate) struct Arrived<'a> {
    job: &'a JobRecord,
    /// The lines that the caps leave, and the number of each.
    lines: Vec<(i64, &'a LogLine)>,
    first: i64,
}

impl<'a> Arrived<'a> {
    /// Numbers its lines from `first` on, and leaves out the oldest that exceed the caps.
    pub(crate) fn new(job: &'a JobRecord, logs: &'a [LogLine], first: i64, caps: &LogCaps) -> Self {
        let mut left = Count::default();
        let fits = |(_, line): &(i64, &LogLine)| {
            left.count(&line.message);
            left.lines.unsigned_abs() <= caps.job_lines && left.bytes.unsigned_abs() <= caps.job_bytes
        };
        let numbered: Vec<_> = (first..).zip(logs).collect();
        let mut lines: Vec<_> = numbered.into_iter().rev().take_while(fits).collect();
        lines.reverse();
        Self { job, lines, first }
    }

    fn all(&self) -> Count {
        let mut all = Count::default();
        self.lines.iter().for_each(|(_, line)| all.count(&line.message));
        all
    }

    /// The head that the job comes with.
    pub(crate) fn head(&self, now: Timestamp) -> Document {
        let mut head = self.all().document();
        let last = self.lines.last().map_or(0, |(number, _)| *number);
        head.extend(doc! {"last": last, "at": date(now), "arrived": self.first});
        head
    }

    /// The last line of each worker.
    pub(crate) fn workers(&self) -> impl Iterator<Item = (Uuid, i64)> {
        self.lines.iter().filter_map(|(number, line)| Some((*line.worker?.as_uuid(), *number)))
    }

    pub(crate) fn documents(&self) -> Vec<Document> {
        let mut count = Count::default();
        // What fell to a cap is told like what falls later: the first line names one that is not there.
        let mut before =
            self.lines.first().map_or(0, |(number, _)| if *number > self.first { number - 1 } else { 0 });
        let document = |(number, line): &(i64, &LogLine)| {
            count.count(&line.message);
            let document = doc! {
                "_id": *number,
                "job": record::uuid(self.job.id.as_uuid()),
                "queue": self.job.queue.as_str(),
                "worker": line.worker.map(|worker| record::uuid(worker.as_uuid())),
                "attempt": i64::from(line.attempt),
                "at": date(line.at),
                "level": <&str>::from(line.level),
                "message": &line.message,
                "before": {"job": before, "worker": 0_i64},
                "count": count.document(),
            };
            before = *number;
            document
        };
        self.lines.iter().map(document).collect()
    }
}
