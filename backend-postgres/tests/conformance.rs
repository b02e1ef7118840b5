//! The law, judged on a real server: one for all cases, one schema per place, one handle with connections of its own per
//! opening.

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Far, Harness, Place, Step};
use leasehold_core::{Backend, Deadline, JobId, NewJob};
use leasehold_postgres::{Config, Postgres, sqlx};
use leasehold_test_servers::{Postgres as Server, Proxy};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Where another process of this program finds the server.
const SERVER: &str = "LEASEHOLD_CONFORMANCE_SERVER";

/// Every write is one statement, or one transaction.
const CUT_POINTS: &[CutPoint] = &[
    CutPoint::new("write::before_send", Effect::None, Step::ALL),
    CutPoint::new("write::acted", Effect::All, Step::ALL),
];

#[derive(Default)]
struct OnServer(OnceLock<Result<Server, String>>);

impl OnServer {
    fn server(&self) -> Result<&Server, CannotRun> {
        let server = self.0.get_or_init(|| Server::server().map_err(|missing| missing.to_string()));
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
    async fn set_up(&self, place: &Place, url: &str) -> Result<Postgres, CannotRun> {
        let config = Config::from_url(url)?.schema(&place.name);
        let config = match &place.clock {
            Some(clock) => config.clock(clock.clone()),
            None => config,
        };
        let store = Postgres::with(config).await?;
        store.setup(Deadline::after(Duration::from_secs(30))).await?;
        Ok(store)
    }

    /// A connection of somebody else's.
    async fn connection(&self) -> Result<PgConnection, CannotRun> {
        PgConnection::connect(&self.url()?).await.map_err(missing)
    }
}

/// What we do to the server by hand says nothing of the backend.
#[expect(clippy::needless_pass_by_value, reason = "it is handed to `map_err`")]
fn missing(error: sqlx::Error) -> CannotRun {
    CannotRun::missing(format!("a change by hand: {error}"))
}

#[async_trait]
impl Harness for OnServer {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        Ok(Arc::new(self.set_up(place, &self.url()?).await?))
    }

    async fn damage(&self, place: &Place, job: JobId) -> Result<(), CannotRun> {
        let mut theirs = self.connection().await?;
        let damage = format!("UPDATE {}.jobs SET options = '{{' WHERE id = $1", place.name);
        let damage = sqlx::query(AssertSqlSafe(damage)).bind(*job.as_uuid());
        let done = damage.execute(&mut theirs).await.map_err(missing)?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(CannotRun::missing("the record to be damaged")) }
    }

    async fn open_far(&self, place: &Place) -> Result<Far, CannotRun> {
        let Some(port) = self.server()?.port() else {
            return Err(CannotRun::unable("its harness has a proxy in front of a server of ours alone"));
        };
        let proxy = Proxy::to(port).await.map_err(|error| CannotRun::missing(error.to_string()))?;
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
        Ok(Far { backend: Arc::new(self.set_up(place, &url).await?), reach: Box::new(proxy) })
    }

    async fn shown_of_password(&self, password: &str) -> Result<Vec<String>, CannotRun> {
        let mut shown = Vec::new();
        for rest in
            ["", "host:port", "127.0.0.1:1/db?schema=pg_x", "127.0.0.1:1/db?nonsense", "127.0.0.1:1/db"]
        {
            let url = format!("postgres://ann:{password}@{rest}");
            shown.push(format!("{:?}", Config::new(&url)));
            match Postgres::connect(&url).await {
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
        let mut transaction = theirs.begin().await.map_err(missing)?;
        store.enqueue_in(&mut transaction, jobs).await?;
        let done = if commit { transaction.commit().await } else { transaction.rollback().await };
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
    leasehold_conformance::main(OnServer::default())
}
