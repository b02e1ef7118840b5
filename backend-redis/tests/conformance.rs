//! The law, judged on a server that syncs its append-only file with every write: one server for all cases, one namespace
//! per place, one handle with a connection of its own per opening.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Far, Harness, Place, Step};
use leasehold_core::{Backend, Deadline, JobId, NewJob};
use leasehold_redis::redis::{self, Client};
use leasehold_redis::{Config, Redis};
use leasehold_test_servers::Redis as Server;
use leasehold_test_servers::harness::{OnServer, by_hand, shown, wire};

/// Every operation is one script.
const CUT_POINTS: &[CutPoint] = &[
    CutPoint::new("write::before_send", Effect::None, Step::ALL),
    CutPoint::new("write::acted", Effect::All, Step::ALL),
];

struct On(OnServer<Server>);

impl On {
    /// The store of this place, over the server of this URL.
    async fn set_up(&self, place: &Place, url: &str) -> Result<Redis, CannotRun> {
        let config = place.on_clock(Config::new(url).namespace(place.name.clone()), Config::clock);
        let store = Redis::with(config).await?;
        store.setup(Deadline::default()).await?;
        Ok(store)
    }

    /// A connection of somebody else's.
    async fn connection(&self) -> Result<redis::aio::MultiplexedConnection, CannotRun> {
        let client = Client::open(self.0.url()?).map_err(by_hand)?;
        client.get_multiplexed_async_connection().await.map_err(by_hand)
    }
}

#[async_trait]
impl Harness for On {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        Ok(Arc::new(self.set_up(place, &self.0.url()?).await?))
    }

    async fn damage(&self, place: &Place, job: JobId) -> Result<(), CannotRun> {
        let mut theirs = self.connection().await?;
        let key = format!("{{{}}}:job:{job}", place.name);
        let mut damage = redis::cmd("HSET");
        damage.arg(&key).arg("options").arg("{");
        let there: bool = redis::cmd("EXISTS").arg(&key).query_async(&mut theirs).await.map_err(by_hand)?;
        if !there {
            return Err(CannotRun::missing("the record to be damaged"));
        }
        damage.query_async(&mut theirs).await.map_err(by_hand)
    }

    async fn open_far(&self, place: &Place) -> Result<Far, CannotRun> {
        let proxy = wire(self.0.server()?.port()).await?;
        let store = self.set_up(place, &format!("redis://127.0.0.1:{}/", proxy.port())).await?;
        Ok(Far { backend: Arc::new(store), reach: Box::new(proxy) })
    }

    async fn shown_of_password(&self, password: &str) -> Result<Vec<String>, CannotRun> {
        let mut all = Vec::new();
        for rest in ["", "host:port", "host/nonsense", "127.0.0.1:1/?x=y", "127.0.0.1:1/"] {
            let url = format!("redis://ann:{password}@{rest}");
            all.extend(shown(&Config::new(&url), Redis::connect(&url).await));
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
        let mut theirs = self.connection().await?;
        let mut transaction = redis::pipe();
        transaction.atomic().cmd("SET").arg(format!("{{{}}}:theirs", place.name)).arg(1).ignore();
        let enqueueing = store.enqueue_in(&mut transaction, jobs)?;
        if commit {
            let answers: Vec<redis::Value> = transaction.query_async(&mut theirs).await.map_err(by_hand)?;
            answers.into_iter().try_for_each(|answer| enqueueing.read(answer).map(drop))?;
        }
        Ok(())
    }

    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        self.0.elsewhere()
    }

    fn cut_points(&self) -> &'static [CutPoint] {
        CUT_POINTS
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main(On(OnServer::new(Server::any, Server::url)))
}
