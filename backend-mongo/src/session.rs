//! The server as operations see it: collections by name, the hour, and writes with or without a transaction.
//!
//! Every write goes through [`Session::update`] and its siblings, which set the concern in one place.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
pub(crate) use leasehold_core::authoring::stored::millis;
use leasehold_core::backend::LogCaps;
use leasehold_core::{Error, ErrorKind, Timestamp, fail_point};
use mongodb::bson::Timestamp as LogTime;
use mongodb::bson::{Bson, DateTime, Document, RawDocument, RawDocumentBuf, doc};
use mongodb::options::{Acknowledgment, CollectionOptions, ReadConcern, WriteConcern};
use mongodb::{Client, ClientSession, Collection, Database};
use tokio::time::Instant;

use crate::config::Events;
use crate::error::{Done, Fault, by_code};
use crate::heads::Heads;
use crate::hour::Hour;
use crate::tail::{Tail, What};
use crate::turns::{Crowd, Turns};
use crate::watch::Signals;

/// What is kept, each in a collection of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Jobs,
    Queues,
    Claims,
    Limits,
    Logs,
    LogHeads,
    Workers,
    Registers,
    Meta,
    Signals,
}

impl Kept {
    /// Those that are capped collections.
    pub(crate) const CAPPED: [Self; 2] = [Self::Logs, Self::Signals];
    /// Those that are ordinary collections.
    pub(crate) const PLAIN: [Self; 8] = [
        Self::Jobs,
        Self::Queues,
        Self::Claims,
        Self::Limits,
        Self::LogHeads,
        Self::Workers,
        Self::Registers,
        Self::Meta,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Queues => "queues",
            Self::Claims => "claims",
            Self::Limits => "limits",
            Self::Logs => "logs",
            Self::LogHeads => "log_heads",
            Self::Workers => "workers",
            Self::Registers => "registers",
            Self::Meta => "meta",
            Self::Signals => "signals",
        }
    }
}

/// The server, the database and what this process knows of both.
pub(crate) struct Db {
    pub(crate) client: Client,
    pub(crate) database: Database,
    pub(crate) prefix: String,
    pub(crate) hour: Hour,
    pub(crate) caps: LogCaps,
    /// Whether the server has transactions: it is of a replica set.
    pub(crate) transactions: bool,
    pub(crate) signals: Signals,
    /// The time, in the servers' log, of the latest write of this process: it reads nothing older (see
    /// [`causal`](Self::causal)).
    pub(crate) written: Mutex<Option<LogTime>>,
    pub(crate) turns: Turns,
    pub(crate) crowd: Crowd,
    pub(crate) heads: Heads,
    /// Queues that are known to be on record.
    pub(crate) queues: Mutex<HashSet<String>>,
    /// Where the events of all watchers of this process come from, but those of log lines.
    pub(crate) change_tail: Tail,
    /// Where those of log lines come from.
    pub(crate) line_tail: Tail,
    /// What watchers are told of.
    pub(crate) events: Events,
    /// When this process last saw that the collection of lines is as it should be.
    pub(crate) logs_seen: Mutex<Option<Instant>>,
}

/// What is acknowledged is in the journals of a majority, whatever a URL says (clause P1).
pub(crate) fn concern() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build()
}

impl Db {
    pub(crate) fn name(&self, kept: Kept) -> String {
        format!("{}{}", self.prefix, kept.name())
    }

    pub(crate) fn of(&self, kept: Kept) -> Collection<Document> {
        self.database.collection(&self.name(kept))
    }

    /// A collection whose writes one node acknowledges, for notes that what is written next makes good.
    pub(crate) fn quickly(&self, kept: Kept) -> Collection<Document> {
        let options = CollectionOptions::builder().write_concern(WriteConcern::nodes(1)).build();
        self.database.collection_with_options(&self.name(kept), options)
    }

    /// A collection as this server has it by now, whether or not other nodes have it too: for hints, and for what
    /// the next write will be judged by.
    pub(crate) fn fresh(&self, kept: Kept) -> Collection<Document> {
        let options = CollectionOptions::builder().read_concern(ReadConcern::local()).build();
        self.database.collection_with_options(&self.name(kept), options)
    }

    pub(crate) fn tail(&self, what: What) -> &Tail {
        match what {
            What::Changes => &self.change_tail,
            What::Lines => &self.line_tail,
        }
    }

    /// The present moment as an expression: the server's own, or a test's.
    pub(crate) fn now(&self) -> Bson {
        match &self.hour {
            Hour::Server(_) => "$$NOW".into(),
            Hour::Clock(clock) => date(clock.now()),
        }
    }

    /// The present moment `span` later, as an expression.
    pub(crate) fn after(&self, span: Duration) -> Bson {
        doc! {"$add": [self.now(), millis(span)]}.into()
    }

    /// A session with no transaction.
    pub(crate) fn plain(&self) -> Session<'_> {
        Session { db: self, inner: None, tries: 0, most: TRIES }
    }

    /// A session in which all is done or nothing, where the server can.
    pub(crate) async fn atomic(&self) -> Done<Session<'_>> {
        let mut session = self.plain();
        session.begin().await?;
        Ok(session)
    }

    /// A session whose reads see what this process has written. A new primary shows for a moment less than a majority
    /// has, and would tell a holder that its own settlement is not there.
    pub(crate) async fn causal(&self) -> Done<ClientSession> {
        let mut session = self.client.start_session().await?;
        if let Some(written) = *self.written.lock().unwrap_or_else(PoisonError::into_inner) {
            session.advance_operation_time(written);
        }
        Ok(session)
    }

    /// Notes when the latest write of this process was made. A standalone server does not tell.
    pub(crate) fn wrote_at(&self, at: Option<LogTime>) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        *written = (*written).max(at);
        wrote();
    }
}

pub(crate) fn date(at: Timestamp) -> Bson {
    DateTime::from_millis(at.as_millis()).into()
}

tokio::task_local! {
    /// Whether the call under way has written something: it did not fail any more, whatever happens next.
    pub(crate) static WROTE: Cell<bool>;
}

/// Notes that the call under way has written something.
pub(crate) fn wrote() {
    // Outside of a call nobody asks.
    let _ = WROTE.try_with(|wrote| wrote.set(true));
}

/// How often a transaction is begun again when others wrote the same at once: longer than a call may take.
const TRIES: u32 = 40;
/// The most statements and bytes of one command. The server takes 16 MiB and more statements.
const STATEMENTS: usize = 1_000;
const BYTES: usize = 8 << 20;

/// A conversation with the server, perhaps in a transaction.
pub(crate) struct Session<'a> {
    pub(crate) db: &'a Db,
    inner: Option<ClientSession>,
    tries: u32,
    most: u32,
}

/// One statement of an update.
pub(crate) struct Change {
    pub(crate) filter: Document,
    pub(crate) update: Bson,
    pub(crate) many: bool,
    pub(crate) upsert: bool,
    /// How many bytes of user data it carries.
    pub(crate) bytes: usize,
}

impl Change {
    pub(crate) fn one(filter: Document, update: impl Into<Bson>) -> Self {
        Self { filter, update: update.into(), many: false, upsert: false, bytes: 0 }
    }

    pub(crate) fn many(filter: Document, update: impl Into<Bson>) -> Self {
        Self { many: true, ..Self::one(filter, update) }
    }

    fn statement(self) -> Document {
        doc! {"q": self.filter, "u": self.update, "multi": self.many, "upsert": self.upsert}
    }
}

/// What became of the statements of an update.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// How many documents matched.
    pub(crate) matched: u64,
    /// Statements that failed: which, the server's code, and what it says.
    pub(crate) failed: Vec<(usize, i32, String)>,
}

impl Written {
    /// Refuses if any statement failed.
    pub(crate) fn whole(self) -> Done<u64> {
        self.unless(0)
    }

    /// Refuses if any statement failed with another code.
    pub(crate) fn unless(self, but: i32) -> Done<u64> {
        match self.failed.into_iter().find(|(_, code, _)| *code != but) {
            None => Ok(self.matched),
            Some((_, code, what)) => {
                let (kind, message) = by_code(code, &what);
                Err(Error::new(kind, message).into())
            }
        }
    }
}

impl Session<'_> {
    /// Begins again no more than so often.
    pub(crate) fn trying(self, most: u32) -> Self {
        Self { most, ..self }
    }

    async fn begin(&mut self) -> Done<()> {
        if self.db.transactions {
            let mut session = self.db.client.start_session().await?;
            session
                .start_transaction()
                .read_concern(ReadConcern::snapshot())
                .write_concern(concern())
                .await?;
            self.inner = Some(session);
        }
        Ok(())
    }

    /// Ends the transaction; none means that it has begun again and its work is to be done anew.
    pub(crate) async fn end<T>(&mut self, outcome: Done<T>) -> Done<Option<T>> {
        let Some(mut session) = self.inner.take() else { return outcome.map(Some) };
        let fault = match outcome {
            Ok(value) => match session.commit_transaction().await {
                Ok(()) => {
                    self.db.wrote_at(session.operation_time());
                    return Ok(Some(value));
                }
                Err(error) => Fault::from(error),
            },
            Err(fault) => {
                // What cannot be aborted now is aborted by the server in time.
                let _ = session.abort_transaction().await;
                fault
            }
        };
        self.tries += 1;
        if !fault.may_begin_again() || self.tries >= self.most {
            return Err(fault);
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..4 << self.tries.min(5)))).await;
        self.begin().await?;
        Ok(None)
    }

    /// Gives the transaction up and begins another one, because what was read has changed.
    pub(crate) async fn again(&mut self) -> Done<()> {
        if let Some(mut session) = self.inner.take() {
            let _ = session.abort_transaction().await;
        }
        self.begin().await
    }

    /// Runs a command that writes.
    async fn command(&mut self, mut command: Document) -> Done<Document> {
        fail_point!("write::before_send");
        let reply = match &mut self.inner {
            Some(session) => self.db.database.run_command(command).session(session).await?,
            None => {
                command.insert("writeConcern", doc! {"w": "majority", "j": true});
                let reply = self.db.database.run_command(command).await?;
                self.db.wrote_at(reply.get_timestamp("operationTime").ok());
                reply
            }
        };
        fail_point!("write::acted");
        if let Ok(error) = reply.get_document("writeConcernError") {
            let code = error.get_i32("code").unwrap_or(64);
            let what = error.get_str("errmsg").unwrap_or("the write concern was not met");
            let (_, message) = by_code(code, what);
            return Err(Error::new(ErrorKind::Unknown, message).into());
        }
        Ok(reply)
    }

    /// Changes documents: each statement for itself, so that one that fails spoils no other.
    pub(crate) async fn update(&mut self, kept: Kept, changes: Vec<Change>) -> Done<Written> {
        let mut written = Written::default();
        let (mut first, mut bytes, mut part) = (0, 0, Vec::new());
        for change in changes {
            bytes += change.bytes + 512;
            if part.len() >= STATEMENTS || bytes > BYTES && !part.is_empty() {
                bytes = change.bytes + 512;
                let sent = std::mem::take(&mut part);
                first += self.send("update", "updates", kept, sent, first, &mut written).await?;
            }
            part.push(change.statement());
        }
        if !part.is_empty() {
            self.send("update", "updates", kept, part, first, &mut written).await?;
        }
        Ok(written)
    }

    /// Adds small documents.
    pub(crate) async fn insert(&mut self, kept: Kept, documents: Vec<Document>) -> Done<Written> {
        let mut written = Written::default();
        let mut documents = documents.into_iter();
        let mut first = 0;
        loop {
            let part: Vec<_> = documents.by_ref().take(STATEMENTS).collect();
            if part.is_empty() {
                return Ok(written);
            }
            first += self.send("insert", "documents", kept, part, first, &mut written).await?;
        }
    }

    /// Removes what matches, and tells how many.
    pub(crate) async fn delete(&mut self, kept: Kept, filter: Document) -> Done<u64> {
        self.delete_all(kept, vec![filter]).await
    }

    /// Removes what matches any of these.
    pub(crate) async fn delete_all(&mut self, kept: Kept, filters: Vec<Document>) -> Done<u64> {
        let mut written = Written::default();
        let deletes = filters.into_iter().map(|filter| doc! {"q": filter, "limit": 0}).collect();
        self.send("delete", "deletes", kept, deletes, 0, &mut written).await?;
        written.whole()
    }

    async fn send(
        &mut self,
        verb: &str,
        field: &str,
        kept: Kept,
        part: Vec<Document>,
        first: usize,
        written: &mut Written,
    ) -> Done<usize> {
        let sent = part.len();
        let reply = self.command(doc! {verb: self.db.name(kept), field: part, "ordered": false}).await?;
        written.matched += u64::try_from(crate::record::whole(reply.get("n")).unwrap_or(0)).unwrap_or(0);
        let failed = reply.get_array("writeErrors").map(Vec::as_slice).unwrap_or_default();
        for error in failed.iter().filter_map(Bson::as_document) {
            let index = crate::record::whole(error.get("index")).and_then(|i| usize::try_from(i).ok());
            let code = error.get_i32("code").unwrap_or_default();
            let what = error.get_str("errmsg").unwrap_or_default().to_owned();
            written.failed.push((first + index.unwrap_or(0), code, what));
        }
        Ok(sent)
    }

    /// Reads what a pipeline gives of what a majority has.
    pub(crate) async fn read(&mut self, kept: Kept, pipeline: Vec<Document>) -> Done<Vec<Document>> {
        self.read_at(kept, pipeline, ReadConcern::majority()).await
    }

    /// Reads what a pipeline gives of what the primary has just now: for what is compared again when it is written.
    pub(crate) async fn read_now(&mut self, kept: Kept, pipeline: Vec<Document>) -> Done<Vec<Document>> {
        self.read_at(kept, pipeline, ReadConcern::local()).await
    }

    async fn read_at(
        &mut self,
        kept: Kept,
        pipeline: Vec<Document>,
        concern: ReadConcern,
    ) -> Done<Vec<Document>> {
        let collection = self.db.of(kept);
        let mut reading = collection.aggregate(pipeline).batch_size(1_000).with_type::<RawDocumentBuf>();
        let mut causal;
        let session = match &mut self.inner {
            Some(session) => session,
            None => {
                reading = reading.read_concern(concern);
                causal = self.db.causal().await?;
                &mut causal
            }
        };
        let mut cursor = reading.session(&mut *session).await?;
        let found: Vec<RawDocumentBuf> = cursor.stream(session).try_collect().await?;
        Ok(found.iter().map(|document| readable(document)).collect())
    }
}

/// A document as far as it can be read: of one that is no valid BSON, or looks like the driver's notation of another
/// type, at least the id (clause B3).
pub(crate) fn readable(raw: &RawDocument) -> Document {
    Document::try_from(raw).unwrap_or_else(|_| {
        let id = raw.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
        id.map_or_else(Document::new, |id| doc! {"_id": id})
    })
}
