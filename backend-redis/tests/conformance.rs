//! The law, judged on a server that syncs its append-only file with every write: one server for all cases, one namespace
//! per place, one handle with a connection of its own per opening.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Far, Harness, Place, Step};
use leasehold_core::{Backend, Deadline, JobId, NewJob};
use leasehold_redis::redis::{self, Client, RedisError};
use leasehold_redis::{Config, Redis};
use leasehold_test_servers::{Proxy, Redis as Server};

/// Where another process of this program finds the server.
const SERVER: &str = "LEASEHOLD_CONFORMANCE_SERVER";

/// Every operation is one script.
const CUT_POINTS: &[CutPoint] = &[
    CutPoint::new("write::before_send", Effect::None, Step::ALL),
    CutPoint::new("write::acted", Effect::All, Step::ALL),
];

/// A server, started by the first case that needs it.
#[derive(Default)]
struct OnServer {
    server: OnceLock<Result<Server, String>>,
}

impl OnServer {
    fn server(&self) -> Result<&Server, CannotRun> {
        let server = self.server.get_or_init(|| Server::any().map_err(|missing| missing.to_string()));
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
    async fn set_up(&self, place: &Place, url: &str) -> Result<Redis, CannotRun> {
        let config = Config::new(url).namespace(place.name.clone());
        let config = match &place.clock {
            Some(clock) => config.clock(clock.clone()),
            None => config,
        };
        let store = Redis::with(config).await?;
        store.setup(Deadline::default()).await?;
        Ok(store)
    }

    /// A connection of somebody else's.
    async fn connection(&self) -> Result<redis::aio::MultiplexedConnection, CannotRun> {
        let client = Client::open(self.url()?).map_err(missing)?;
        client.get_multiplexed_async_connection().await.map_err(missing)
    }
}

/// What we do to the server by hand says nothing of the backend.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn missing(error: RedisError) -> CannotRun {
    CannotRun::missing(format!("a change by hand: {error}"))
}

#[async_trait]
impl Harness for OnServer {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        Ok(Arc::new(self.set_up(place, &self.url()?).await?))
    }

    async fn damage(&self, place: &Place, job: JobId) -> Result<(), CannotRun> {
        let mut theirs = self.connection().await?;
        let key = format!("{{{}}}:job:{job}", place.name);
        let mut damage = redis::cmd("HSET");
        damage.arg(key).arg("options").arg("{");
        match damage.query_async(&mut theirs).await.map_err(missing)? {
            0 => Ok(()),
            _ => Err(CannotRun::missing("the record to be damaged")),
        }
    }

    async fn open_far(&self, place: &Place) -> Result<Far, CannotRun> {
        let port = self.server()?.port();
        let port = port
            .ok_or_else(|| CannotRun::unable("its harness has a proxy in front of a server of ours alone"))?;
        let proxy = Proxy::to(port).await.map_err(|error| CannotRun::missing(error.to_string()))?;
        let store = self.set_up(place, &format!("redis://127.0.0.1:{}/", proxy.port())).await?;
        Ok(Far { backend: Arc::new(store), reach: Box::new(proxy) })
    }

    async fn shown_of_password(&self, password: &str) -> Result<Vec<String>, CannotRun> {
        let mut shown = Vec::new();
        for rest in ["", "host:port", "host/nonsense", "127.0.0.1:1/?x=y", "127.0.0.1:1/"] {
            let url = format!("redis://ann:{password}@{rest}");
            shown.push(format!("{:?}", Config::new(&url)));
            match Redis::connect(&url).await {
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
        let mut theirs = self.connection().await?;
        let mut transaction = redis::pipe();
        transaction.atomic().cmd("SET").arg(format!("{{{}}}:theirs", place.name)).arg(1).ignore();
        let enqueueing = store.enqueue_in(&mut transaction, jobs)?;
        if commit {
            let answers: Vec<redis::Value> = transaction.query_async(&mut theirs).await.map_err(missing)?;
            answers.into_iter().try_for_each(|answer| enqueueing.read(answer).map(drop))?;
        }
        Ok(())
    }

    fn elsewhere(&self) -> Option<Vec<(String, String)>> {
        Some(vec![(SERVER.into(), self.url().ok()?)])
    }

    fn cut_points(&self) -> &'static [CutPoint] {
        CUT_POINTS
    }
}

fn main() -> ExitCode {
    leasehold_conformance::main(OnServer::default())
}
