//! Whoever follows logs or waits for events goes on, whatever becomes of the capped collections; and what a
//! transaction of the caller's own takes in is told after its commit.

mod events;
mod logs;
mod transactions;

use std::sync::OnceLock;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use leasehold_core::backend::{
    Answer, AppendLogs, Claim, Enqueue, Event, Level, LogAppend, LogPage, LogSource, NewLine, ReadLogs, Watch,
};
use leasehold_core::{Backend, Deadline, JobId, Kind, LeasedJob, NewJob, Payload, QueueName, WorkerId};
use leasehold_mongo::mongodb::Database;
use leasehold_mongo::mongodb::bson::{Document, doc};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::Mongo as Server;
use tokio::time::{Instant, sleep, timeout};

/// How long anything may take to be as it has to be.
const PATIENCE: Duration = Duration::from_secs(30);

/// What may be done to a collection.
const DAMAGES: [&str; 5] = ["dropped", "dropped and filled", "made ordinary", "converted again", "emptied"];

/// A store of its own on the server that all tests of this process share.
struct Place {
    config: Config,
    store: Mongo,
    database: Database,
    worker: WorkerId,
}

impl Place {
    async fn new() -> Self {
        Self::with(|config| config).await
    }

    /// Its name is that of its database and, to the server, that of the program: faults can be made for it alone.
    async fn with(change: impl FnOnce(Config) -> Config) -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let url = SERVER.get_or_init(|| Server::replica_set(1).expect("a server")).url();
        let name = format!("test_{}", JobId::generate().as_uuid().simple());
        let joint = if url.contains('?') { '&' } else { '?' };
        let config = change(Config::new(format!("{url}{joint}appName={name}")).database(&name));
        let store = Mongo::with(config.clone()).await.expect("a store");
        store.setup(Deadline::after(PATIENCE)).await.expect("a store that is set up");
        let database = store.client().database(&name);
        Self { config, store, database, worker: WorkerId::generate() }
    }

    /// Another handle of the same store.
    async fn again(&self, change: impl FnOnce(Config) -> Config) -> Mongo {
        let store = Mongo::with(change(self.config.clone())).await.expect("a store");
        store.setup(Deadline::after(PATIENCE)).await.expect("a store that is set up");
        store
    }

    async fn run(&self, command: Document) -> Document {
        let what = command.to_string();
        self.database.run_command(command).await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    async fn run_as_admin(&self, command: Document) -> Document {
        let admin = self.store.client().database("admin");
        let what = command.to_string();
        admin.run_command(command).await.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Makes the next command of this kind fail, of this store only.
    async fn fail_next(&self, command: &str, mut how: Document) {
        how.extend(doc! {"failCommands": [command], "appName": self.database.name()});
        let fault = doc! {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": how};
        self.run_as_admin(fault).await;
    }

    async fn add(&self) -> JobId {
        let job = NewJob::new(Kind::new("work").expect("a name"), Payload::from(b"{}".to_vec()));
        let id = job.id;
        self.store.enqueue(Deadline::default(), Enqueue { jobs: vec![job] }).await.expect("taken in");
        id
    }

    async fn hold(&self) -> LeasedJob {
        self.add().await;
        let claim = Claim::new(self.worker, [QueueName::default()], 1, Duration::from_secs(300));
        let mut jobs = self.store.claim(Deadline::default(), claim).await.expect("a claim").jobs;
        jobs.pop().expect("a job")
    }

    async fn log(&self, lease: &LeasedJob, position: u64, lines: &[&str]) -> leasehold_core::Result<Answer> {
        let line = |text: &&str| NewLine { level: Level::Info, message: (*text).to_owned() };
        let lines = lines.iter().map(line).collect();
        let appends = vec![LogAppend { job: lease.job.id, token: lease.token, position, lines }];
        Ok(self.store.append_logs(Deadline::default(), AppendLogs { appends }).await?[0])
    }

    async fn read(&self, source: LogSource, after: u64) -> LogPage {
        let read = ReadLogs { source, after, limit: 1_000 };
        self.store.read_logs(Deadline::default(), read).await.expect("lines")
    }

    /// The options of a collection, and the names of its indexes.
    async fn look(&self, collection: &str) -> (Document, Vec<String>) {
        let listed = self.run(doc! {"listCollections": 1, "filter": {"name": collection}}).await;
        let first = first_batch(&listed).into_iter().next().unwrap_or_default();
        let options = first.get_document("options").cloned().unwrap_or_default();
        let indexes = match first.is_empty() {
            true => Vec::new(),
            false => first_batch(&self.run(doc! {"listIndexes": collection}).await),
        };
        let name = |index: &Document| index.get_str("name").unwrap_or_default().to_owned();
        let mut names: Vec<String> = indexes.iter().map(name).collect();
        names.sort();
        (options, names)
    }

    /// Does one of [`DAMAGES`] to a collection.
    async fn damage(&self, how: &str, collection: &str) {
        let (rename, copy) = ("renameCollection", format!("{collection}_copy"));
        let full = |name: &str| format!("{}.{name}", self.database.name());
        match how {
            "dropped" | "dropped and filled" => drop(self.run(doc! {"drop": collection}).await),
            "made ordinary" => {
                let pipeline = [doc! {"$out": copy.as_str()}];
                self.run(doc! {"aggregate": collection, "pipeline": pipeline.to_vec(), "cursor": {}}).await;
                let back = doc! {rename: full(&copy), "to": full(collection), "dropTarget": true};
                self.run_as_admin(back).await;
            }
            "converted again" => {
                drop(self.run(doc! {"convertToCapped": collection, "size": 65_536}).await);
            }
            _ => drop(self.run(doc! {"delete": collection, "deletes": [{"q": {}, "limit": 0}]}).await),
        }
        if how == "dropped and filled" {
            let stranger = doc! {"_id": 1, "events": []};
            self.run(doc! {"insert": collection, "documents": [stranger]}).await;
        }
    }

    /// How many cursors of this store wait in a collection.
    async fn tails(&self, collection: &str) -> usize {
        let ops = vec![
            doc! {"$currentOp": {"allUsers": true, "idleCursors": true}},
            doc! {"$match": {
                "ns": format!("{}.{collection}", self.database.name()), "cursor.tailable": true,
            }},
        ];
        let admin = self.store.client().database("admin");
        admin.aggregate(ops).await.expect("operations").count().await
    }
}

fn first_batch(reply: &Document) -> Vec<Document> {
    let cursor = reply.get_document("cursor").expect("a cursor");
    let batch = cursor.get_array("firstBatch").expect("a batch");
    batch.iter().filter_map(|entry| entry.as_document().cloned()).collect()
}

async fn watch(store: &Mongo, logs: bool) -> BoxStream<'static, Event> {
    store.watch(Deadline::default(), Watch { queues: None, logs }).await.expect("events")
}

/// Does something again and again until such an event comes of it.
async fn provoke(
    events: &mut BoxStream<'static, Event>,
    what: &str,
    mut act: impl AsyncFnMut(),
    mut wanted: impl FnMut(&Event) -> bool,
) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        act().await;
        let hear = async {
            while let Some(event) = events.next().await {
                if wanted(&event) {
                    return true;
                }
            }
            panic!("{what}: the events ended");
        };
        if timeout(Duration::from_millis(500), hear).await == Ok(true) {
            return;
        }
    }
    panic!("{what}: no event came");
}

/// Waits until it is so.
async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(50)).await;
    }
}
