use std::sync::atomic::{AtomicU64, Ordering};

use std::collections::BTreeMap;

use async_trait::async_trait;
use leasehold_core::backend::Enqueue;
use leasehold_core::{Backend, Deadline};
use leasehold_test_servers::Mongo;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{Acknowledgment, DatabaseOptions, WriteConcern};
use mongodb::{Client, Database};

use crate::Trouble;
use crate::counted::Commands;
use crate::target::{PATIENCE, batches};

/// What drivers and servers ask by themselves, and what we ask to count.
const UNCOUNTED: [&str; 6] = ["hello", "isMaster", "ismaster", "endSessions", "serverStatus", "buildInfo"];

/// The MongoDB server of a run, in which each store has a database of its own.
#[derive(Debug)]
pub(crate) struct Server {
    mongo: Mongo,
    client: Client,
    template: Document,
    databases: AtomicU64,
}

impl Server {
    /// Starts one, or takes the one that the environment names.
    pub(crate) async fn start() -> Result<Self, Trouble> {
        let mongo = Mongo::replica_set(1)?;
        let client = Client::with_uri_str(mongo.url()).await?;
        // Test servers are small: with a cache that holds no million jobs, the disk would be measured. A server
        // that is not ours may refuse.
        let cache = doc! {"setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=2GB"};
        let _ = client.database("admin").run_command(cache).await;
        let mut server = Self { mongo, client, template: Document::new(), databases: AtomicU64::new(0) };
        server.template = server.a_document().await?;
        Ok(server)
    }

    pub(crate) fn url(&self) -> &str {
        self.mongo.url()
    }

    /// A name that no other database of this server has.
    pub(crate) fn new_database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        format!("leasehold_bench_{}_{number}", std::process::id())
    }

    /// A database, in which what is acknowledged is as durable as the backend makes it.
    pub(crate) fn database(&self, name: &str) -> Database {
        let options = DatabaseOptions::builder().write_concern(concern()).build();
        self.client.database_with_options(name, options)
    }

    /// How a job looks that the backend has just taken in.
    pub(crate) fn template(&self) -> &Document {
        &self.template
    }

    async fn a_document(&self) -> Result<Document, Trouble> {
        let name = self.new_database();
        let config = leasehold_mongo::Config::new(self.url()).database(&name);
        let backend = leasehold_mongo::Mongo::with(config).await?;
        backend.setup(Deadline::after(PATIENCE)).await?;
        let jobs = batches(1, 1)?.remove(0);
        backend.enqueue(Deadline::after(PATIENCE), Enqueue { jobs }).await?;
        let found = self.database(&name).collection("leasehold_jobs").find_one(doc! {}).await?;
        backend.close().await;
        self.database(&name).drop().await?;
        found.ok_or_else(|| "the job that was enqueued is not there".into())
    }

    /// How many commands it was sent so far.
    pub(crate) async fn commands(&self) -> Result<u64, Trouble> {
        Ok(self.commands_by_name().await?.values().sum())
    }
}

#[async_trait]
impl Commands for Server {
    async fn commands_by_name(&self) -> Result<BTreeMap<String, u64>, Trouble> {
        let status = self.client.database("admin").run_command(doc! {"serverStatus": 1}).await?;
        let commands = status.get_document("metrics")?.get_document("commands")?;
        let total = |told: &Bson| match told.as_document()?.get("total")? {
            Bson::Int64(n) => u64::try_from(*n).ok(),
            Bson::Int32(n) => u64::try_from(*n).ok(),
            _ => None,
        };
        let counted = commands.iter().filter(|(name, _)| !UNCOUNTED.contains(&name.as_str()));
        Ok(counted.filter_map(|(name, told)| Some((name.clone(), total(told)?))).collect())
    }
}

/// As durable as the backend writes: in the journals of a majority.
pub(crate) fn concern() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build()
}
