use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use leasehold_core::{JobId, LeaseToken, NewJob};
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, doc};
use mongodb::{Collection, IndexModel};

use crate::Trouble;
use crate::server::{Server, concern};
use crate::target::{Held, Target, expect};

/// The limit of MongoDB: the documents of the backend in a collection with no index of its own. One `insertMany`
/// takes a batch in, one `updateMany` by id ends it; what is claimed is known beforehand, and asks nobody.
pub(crate) struct RawMongo {
    server: Arc<Server>,
    jobs: Collection<Document>,
    waiting: Mutex<Vec<JobId>>,
}

impl RawMongo {
    pub(crate) fn open(server: Arc<Server>, database: &str) -> Self {
        let jobs = server.database(database).collection("jobs");
        Self { server, jobs, waiting: Mutex::default() }
    }
}

#[async_trait]
impl Target for RawMongo {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<(), Trouble> {
        let documents: Vec<_> = jobs.iter().map(|job| document(self.server.template(), job)).collect();
        let done = self.jobs.insert_many(documents).ordered(false).await?;
        expect("inserted", done.inserted_ids.len() == jobs.len())?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(jobs.iter().map(|job| job.id));
        Ok(())
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Held>, Trouble> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = waiting.len().saturating_sub(limit);
        Ok(waiting.drain(rest..).map(held).collect())
    }

    async fn settle(&self, held: Vec<Held>) -> Result<(), Trouble> {
        let ids: Vec<_> = held.iter().map(|(job, _)| id(*job)).collect();
        let done = self.jobs.update_many(doc! {"_id": {"$in": ids}}, finish()).await?;
        expect("updated", done.modified_count == held.len() as u64)
    }

    async fn trips(&self) -> Result<Option<u64>, Trouble> {
        self.server.commands().await.map(Some)
    }
}

/// The loop that most people write: `insertOne`, a sorted `findOneAndUpdate` for each job, `updateOne` at its end,
/// with the index that fits.
pub(crate) struct NaiveMongo {
    server: Arc<Server>,
    jobs: Collection<Document>,
}

impl NaiveMongo {
    pub(crate) async fn open(server: Arc<Server>, database: &str) -> Result<Self, Trouble> {
        let jobs: Collection<Document> = server.database(database).collection("jobs");
        let keys = doc! {"queue": 1, "state": 1, "priority": -1, "due": 1, "_id": 1};
        jobs.create_index(IndexModel::builder().keys(keys).build()).await?;
        Ok(Self { server, jobs })
    }
}

#[async_trait]
impl Target for NaiveMongo {
    async fn enqueue(&self, jobs: Vec<NewJob>) -> Result<(), Trouble> {
        for job in &jobs {
            self.jobs.insert_one(document(self.server.template(), job)).await?;
        }
        Ok(())
    }

    async fn claim(&self, _: usize) -> Result<Vec<Held>, Trouble> {
        let now = mongodb::bson::DateTime::now();
        let next = doc! {"queue": "default", "state": "waiting", "due": {"$lte": now}};
        let lease = mongodb::bson::DateTime::from_millis(now.timestamp_millis() + 600_000);
        let take = doc! {"$set": {"state": "running", "lease_until": lease, "started_at": now}, "$inc": {"attempt": 1}};
        let taken = self.jobs.find_one_and_update(next, take).sort(doc! {"priority": -1, "due": 1, "_id": 1});
        let taken = taken.write_concern(concern()).await?;
        let job = taken.as_ref().and_then(|job| match job.get("_id") {
            Some(Bson::Binary(id)) => id.bytes.as_slice().try_into().ok(),
            _ => None,
        });
        Ok(job.map(|bytes| held(JobId::from_uuid(uuid::Uuid::from_bytes(bytes)))).into_iter().collect())
    }

    async fn settle(&self, settled: Vec<Held>) -> Result<(), Trouble> {
        for (job, _) in settled {
            let mine = doc! {"_id": id(job), "state": "running"};
            let done = self.jobs.update_one(mine, finish()).await?;
            expect("updated", done.modified_count == 1)?;
        }
        Ok(())
    }

    async fn trips(&self) -> Result<Option<u64>, Trouble> {
        self.server.commands().await.map(Some)
    }
}

fn id(job: JobId) -> Bson {
    Binary { subtype: BinarySubtype::Uuid, bytes: job.as_uuid().as_bytes().to_vec() }.into()
}

fn held(job: JobId) -> Held {
    (job, LeaseToken::from_uuid(*job.as_uuid()))
}

/// The document that the backend would write.
fn document(template: &Document, job: &NewJob) -> Document {
    let mut document = template.clone();
    document.insert("_id", id(job.id));
    let payload = Binary { subtype: BinarySubtype::Generic, bytes: job.payload.as_bytes().to_vec() };
    document.insert("payload", payload);
    document
}

fn finish() -> Document {
    doc! {"$set": {"state": "succeeded"}, "$currentDate": {"finished_at": true}}
}
