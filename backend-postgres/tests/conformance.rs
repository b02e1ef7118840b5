//! The law, judged on a real server: one for all cases, one schema per place, one handle with connections of its own per
//! opening.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::{CannotRun, CutPoint, Effect, Far, Harness, Place, Step};
use leasehold_core::{Backend, Deadline, JobId, NewJob};
use leasehold_postgres::{Config, Postgres, sqlx};
use leasehold_test_servers::Postgres as Server;
use leasehold_test_servers::harness::{OnServer, by_hand, shown, wire};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Every write is one statement, or one transaction.
const CUT_POINTS: &[CutPoint] = &[
    CutPoint::new("write::before_send", Effect::None, Step::ALL),
    CutPoint::new("write::acted", Effect::All, Step::ALL),
];

struct On(OnServer<Server>);

impl On {
    /// The store of this place, over the server of this URL.
    async fn set_up(&self, place: &Place, url: &str) -> Result<Postgres, CannotRun> {
        let config = place.on_clock(Config::from_url(url)?.schema(&place.name), Config::clock);
        let store = Postgres::with(config).await?;
        store.setup(Deadline::after(Duration::from_secs(30))).await?;
        Ok(store)
    }

    /// A connection of somebody else's.
    async fn connection(&self) -> Result<PgConnection, CannotRun> {
        PgConnection::connect(&self.0.url()?).await.map_err(by_hand)
    }
}

#[async_trait]
impl Harness for On {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        Ok(Arc::new(self.set_up(place, &self.0.url()?).await?))
    }

    async fn damage(&self, place: &Place, job: JobId) -> Result<(), CannotRun> {
        let mut theirs = self.connection().await?;
        let damage = format!("UPDATE {}.jobs SET options = '{{' WHERE id = $1", place.name);
        let damage = sqlx::query(AssertSqlSafe(damage)).bind(*job.as_uuid());
        let done = damage.execute(&mut theirs).await.map_err(by_hand)?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(CannotRun::missing("the record to be damaged")) }
    }

    async fn open_far(&self, place: &Place) -> Result<Far, CannotRun> {
        let proxy = wire(self.0.server()?.port()).await?;
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
        Ok(Far { backend: Arc::new(self.set_up(place, &url).await?), reach: Box::new(proxy) })
    }

    async fn shown_of_password(&self, password: &str) -> Result<Vec<String>, CannotRun> {
        let mut all = Vec::new();
        for rest in
            ["", "host:port", "127.0.0.1:1/db?schema=pg_x", "127.0.0.1:1/db?nonsense", "127.0.0.1:1/db"]
        {
            let url = format!("postgres://ann:{password}@{rest}");
            all.extend(shown(&Config::new(&url), Postgres::connect(&url).await));
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
        let mut transaction = theirs.begin().await.map_err(by_hand)?;
        store.enqueue_in(&mut transaction, jobs).await?;
        let done = if commit { transaction.commit().await } else { transaction.rollback().await };
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
    leasehold_conformance::main(On(OnServer::new(Server::server, Server::url)))
}
