//! The law, judged on a replica set of one node, on one of three, and on a server on its own: one server of each kind
//! for all cases, one prefix of collections per place, one handle with a pool of its own per opening.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Far, Harness, Place, Step};
use leasehold_core::{Backend, Deadline, JobId, NewJob};
use leasehold_mongo::mongodb::bson::spec::BinarySubtype;
use leasehold_mongo::mongodb::bson::{Binary, Document, doc};
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::harness::{OnServer, by_hand, shown, wire};
use leasehold_test_servers::{Missing, Mongo as Server};

/// The commands that write, and what is between the steps of what takes several.
const CUT_POINTS: &[CutPoint] = &[
    CutPoint::new("enqueue::before_send", Effect::None, &[Step::Enqueue, Step::EnqueueMany, Step::Tick]),
    CutPoint::new("enqueue::acted", Effect::All, &[Step::Enqueue, Step::EnqueueMany, Step::Tick]),
    CutPoint::new("claim::looked", Effect::None, &[Step::Claim]),
    CutPoint::new("claim::noted", Effect::None, &[Step::Claim]),
    CutPoint::new("write::before_send", Effect::None, Step::ALL),
    CutPoint::new("write::acted", Effect::All, UPDATES),
    CutPoint::new("write::acted", Effect::None, REGISTERING),
    CutPoint::new("write::acted", Effect::Some, &[Step::AppendLogs]),
    CutPoint::new("append_logs::numbered", Effect::None, &[Step::AppendLogs]),
    CutPoint::new("append_logs::moved", Effect::Some, &[Step::AppendLogs]),
];

/// The steps that are one command of updates.
const UPDATES: &[Step] = &[Step::Claim, Step::Renew, Step::Succeed, Step::Retry, Step::Recover];
/// The steps whose first command makes a queue known.
const REGISTERING: &[Step] = &[Step::Enqueue, Step::EnqueueMany, Step::Tick];

/// A kind of server.
struct On(OnServer<Server>);

impl On {
    fn new(start: fn() -> Result<Server, Missing>) -> Self {
        Self(OnServer::new(start, Server::url))
    }

    /// The store of this place, over the server of this URL.
    async fn set_up(&self, place: &Place, url: &str) -> Result<Mongo, CannotRun> {
        let config = place.on_clock(Config::new(url).prefix(format!("{}_", place.name)), Config::clock);
        let store = Mongo::with(config).await?;
        store.setup(Deadline::after(Duration::from_secs(30))).await?;
        Ok(store)
    }
}

#[async_trait]
impl Harness for On {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        Ok(Arc::new(self.set_up(place, &self.0.url()?).await?))
    }

    async fn damage(&self, place: &Place, job: JobId) -> Result<(), CannotRun> {
        let store = self.set_up(place, &self.0.url()?).await?;
        let database = store.client().default_database();
        let database = database.unwrap_or_else(|| store.client().database("leasehold"));
        let jobs = database.collection::<Document>(&format!("{}_jobs", place.name));
        let id = Binary { subtype: BinarySubtype::Uuid, bytes: job.as_uuid().as_bytes().to_vec() };
        let damage = doc! {"$set": {"options": "{"}};
        let done = jobs.update_one(doc! {"_id": id}, damage).await.map_err(by_hand)?;
        if done.modified_count == 1 { Ok(()) } else { Err(CannotRun::missing("the record to be damaged")) }
    }

    async fn open_far(&self, place: &Place) -> Result<Far, CannotRun> {
        let one = if let [node] = self.0.server()?.nodes() { Some(node.port()) } else { None };
        let proxy = wire(one).await?;
        let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port());
        Ok(Far { backend: Arc::new(self.set_up(place, &url).await?), reach: Box::new(proxy) })
    }

    async fn shown_of_password(&self, password: &str) -> Result<Vec<String>, CannotRun> {
        let mut all = Vec::new();
        for rest in ["", "host:port", "host/?w=nonsense", "127.0.0.1:1/?serverSelectionTimeoutMS=300"] {
            let url = format!("mongodb://ann:{password}@{rest}");
            all.extend(shown(&Config::new(&url), Mongo::connect(&url).await));
        }
        Ok(all)
    }

    async fn enqueue_in_transaction(
        &self,
        place: &Place,
        jobs: Vec<NewJob>,
        commit: bool,
    ) -> Result<(), CannotRun> {
        let store = self.set_up(place, &self.0.url()?).await?;
        let mut session = store.client().start_session().await.map_err(by_hand)?;
        session.start_transaction().await.map_err(by_hand)?;
        store.enqueue_in(&mut session, jobs).await?;
        let done =
            if commit { session.commit_transaction().await } else { session.abort_transaction().await };
        done.map_err(by_hand)
    }

    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        self.0.elsewhere()
    }

    fn cut_points(&self) -> &'static [CutPoint] {
        CUT_POINTS
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main_on([
        ("one_node", On::new(|| Server::replica_set(1))),
        ("three_nodes", On::new(|| Server::replica_set(3))),
        ("standalone", On::new(Server::standalone)),
    ])
}
