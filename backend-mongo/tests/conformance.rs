//! The law, judged on a replica set of one node, on one of three, and on a server on its own: one server of each kind
//! for all cases, one prefix of collections per place, one handle with a pool of its own per opening.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Far, Harness, Place, Step};
use leasehold_core::{Backend, Deadline, JobId, NewJob};
use leasehold_mongo::mongodb::bson::spec::BinarySubtype;
use leasehold_mongo::mongodb::bson::{Binary, Document, doc};
use leasehold_mongo::mongodb::error::Error as ServerError;
use leasehold_mongo::{Config, Mongo};
use leasehold_test_servers::{Missing, Mongo as Server, Proxy};

/// Where another process of this program finds the server.
const SERVER: &str = "LEASEHOLD_CONFORMANCE_SERVER";

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

/// A kind of server, started by the first case that needs it.
struct On {
    start: fn() -> Result<Server, Missing>,
    server: OnceLock<Result<Server, String>>,
}

impl On {
    fn new(start: fn() -> Result<Server, Missing>) -> Self {
        Self { start, server: OnceLock::new() }
    }

    fn server(&self) -> Result<&Server, CannotRun> {
        let server = self.server.get_or_init(|| (self.start)().map_err(|missing| missing.to_string()));
        server.as_ref().map_err(CannotRun::missing)
    }

    /// The URL of the server, which another process may have started.
    fn url(&self) -> Result<String, CannotRun> {
        if let Ok(url) = std::env::var(SERVER) {
            return Ok(url);
        }
        Ok(self.server()?.url().to_owned())
    }

    /// The store of this place, over the server of this URL.
    async fn set_up(&self, place: &Place, url: &str) -> Result<Mongo, CannotRun> {
        let config = Config::new(url).prefix(format!("{}_", place.name));
        let config = match &place.clock {
            Some(clock) => config.clock(clock.clone()),
            None => config,
        };
        let store = Mongo::with(config).await?;
        store.setup(Deadline::after(Duration::from_secs(30))).await?;
        Ok(store)
    }
}

/// What we do to the server by hand says nothing of the backend.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn missing(error: ServerError) -> CannotRun {
    CannotRun::missing(format!("a change by hand: {error}"))
}

#[async_trait]
impl Harness for On {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        Ok(Arc::new(self.set_up(place, &self.url()?).await?))
    }

    async fn damage(&self, place: &Place, job: JobId) -> Result<(), CannotRun> {
        let store = self.set_up(place, &self.url()?).await?;
        let database = store.client().default_database();
        let database = database.unwrap_or_else(|| store.client().database("leasehold"));
        let jobs = database.collection::<Document>(&format!("{}_jobs", place.name));
        let id = Binary { subtype: BinarySubtype::Uuid, bytes: job.as_uuid().as_bytes().to_vec() };
        let damage = doc! {"$set": {"options": "{"}};
        let done = jobs.update_one(doc! {"_id": id}, damage).await.map_err(missing)?;
        if done.modified_count == 1 { Ok(()) } else { Err(CannotRun::missing("the record to be damaged")) }
    }

    async fn open_far(&self, place: &Place) -> Result<Far, CannotRun> {
        let [node] = self.server()?.nodes() else {
            return Err(CannotRun::unable("its harness has a proxy in front of one node of ours alone"));
        };
        let proxy = Proxy::to(node.port()).await.map_err(|error| CannotRun::missing(error.to_string()))?;
        let url = format!("mongodb://127.0.0.1:{}/?directConnection=true", proxy.port());
        Ok(Far { backend: Arc::new(self.set_up(place, &url).await?), reach: Box::new(proxy) })
    }

    async fn shown_of_password(&self, password: &str) -> Result<Vec<String>, CannotRun> {
        let mut shown = Vec::new();
        for rest in ["", "host:port", "host/?w=nonsense", "127.0.0.1:1/?serverSelectionTimeoutMS=300"] {
            let url = format!("mongodb://ann:{password}@{rest}");
            shown.push(format!("{:?}", Config::new(&url)));
            match Mongo::connect(&url).await {
                Ok(store) => shown.push(format!("{store:?}")),
                Err(error) => shown.push(format!("{error} {error:?}")),
            }
        }
        Ok(shown)
    }

    async fn enqueue_in_transaction(
        &self,
        place: &Place,
        jobs: Vec<NewJob>,
        commit: bool,
    ) -> Result<(), CannotRun> {
        let store = self.set_up(place, &self.url()?).await?;
        let mut session = store.client().start_session().await.map_err(missing)?;
        session.start_transaction().await.map_err(missing)?;
        store.enqueue_in(&mut session, jobs).await?;
        let done =
            if commit { session.commit_transaction().await } else { session.abort_transaction().await };
        done.map_err(missing)
    }

    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(SERVER.into(), self.url().ok()?)])
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
