//! Opens the stores of this workspace that have a driver, and what they are compared with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_core::{Backend, Deadline};
use leasehold_mongo::Mongo;
use leasehold_postgres::Postgres;
use leasehold_redis::Redis;
use leasehold_sqlite::Sqlite;

use crate::Trouble;
use crate::counted::Counted;
use crate::limits::{NaiveMongo, RawMongo, RawPostgres, RawRedis, RawSqlite, clear};
use crate::server::Server;
use crate::stores::{Closing, Kind, Place, Store, Stores};
use crate::target::PATIENCE;
use crate::work::Meter;

/// A new store, empty: at this place if it is in a file.
pub(crate) async fn open(stores: &Stores, place: Place) -> Result<(Place, Store, Option<Closing>), Trouble> {
    if matches!(place.kind, Kind::Sqlite | Kind::RawSqlite) {
        let store = in_file(&place).await?;
        return Ok((place, store, None));
    }
    if matches!(place.kind, Kind::Postgres | Kind::RawPostgres) {
        return in_schema(stores, place).await;
    }
    if place.kind.backend() == Kind::Redis {
        return on_redis(stores, place).await;
    }
    let server = stores.server.get_or_try_init(async || Server::start().await.map(Arc::new)).await?.clone();
    let place = Place { at: server.url().to_owned(), database: server.new_database(), ..place };
    let store = on_server(&place, &server).await?;
    let database = server.database(&place.database);
    let close = async move { Ok(database.drop().await?) };
    Ok((place, store, Some(Box::pin(close))))
}

async fn on_redis(stores: &Stores, place: Place) -> Result<(Place, Store, Option<Closing>), Trouble> {
    static NAMESPACES: AtomicU64 = AtomicU64::new(0);
    let url = match stores.redis.get() {
        Some(server) => server.url().to_owned(),
        None => {
            let server = leasehold_test_servers::Redis::any()?;
            stores.redis.get_or_init(|| server).url().to_owned()
        }
    };
    let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
    let place = Place { at: url, database: format!("bench_{}_{number}", std::process::id()), ..place };
    let store = match place.kind {
        Kind::RawRedis => Store::Limit(Arc::new(RawRedis::records(&place.at, &place.database).await?)),
        Kind::NaiveRedis => Store::Limit(Arc::new(RawRedis::lists(&place.at, &place.database).await?)),
        _ => {
            let redis = redis(&place).await?;
            redis.setup(Deadline::after(PATIENCE)).await?;
            // Each call is one script, at the sizes that are measured.
            Store::Backend(Counted::calls_of(Arc::new(redis)))
        }
    };
    let close = clear(place.at.clone(), place.database.clone());
    Ok((place, store, Some(Box::pin(close))))
}

async fn in_file(place: &Place) -> Result<Store, Trouble> {
    if place.kind == Kind::RawSqlite {
        return Ok(Store::Limit(Arc::new(RawSqlite::open(place.at.as_ref()).await?)));
    }
    let sqlite = Sqlite::open(&place.at).await?;
    sqlite.setup(Deadline::after(PATIENCE)).await?;
    Ok(Store::Backend(Counted::calls_of(Arc::new(sqlite))))
}

/// A new store in a schema of the run's PostgreSQL server.
async fn in_schema(stores: &Stores, place: Place) -> Result<(Place, Store, Option<Closing>), Trouble> {
    static SCHEMAS: AtomicU64 = AtomicU64::new(0);
    // With buffers as a server of its own has them: of those for tests a vacuum gets too few.
    let start = async || {
        Ok::<_, Trouble>(Arc::new(leasehold_test_servers::Postgres::server_with(&["shared_buffers=1GB"])?))
    };
    let server = stores.postgres.get_or_try_init(start).await?;
    let schema = format!("bench_{}_{}", std::process::id(), SCHEMAS.fetch_add(1, Ordering::Relaxed));
    let place = Place { at: server.url().to_owned(), database: schema, ..place };
    let store = if place.kind == Kind::RawPostgres {
        Store::Limit(Arc::new(RawPostgres::open(&place.at, &place.database).await?))
    } else {
        let postgres = postgres(&place).await?;
        postgres.setup(Deadline::after(PATIENCE)).await?;
        Store::Backend(Counted::calls_of(Arc::new(postgres)))
    };
    let closed = place.clone();
    let close = async move { RawPostgres::drop(&closed.at, &closed.database).await };
    Ok((place, store, Some(Box::pin(close))))
}

async fn postgres(place: &Place) -> Result<Postgres, Trouble> {
    Ok(Postgres::with(leasehold_postgres::Config::new(&place.at).schema(&place.database)).await?)
}

async fn on_server(place: &Place, server: &Arc<Server>) -> Result<Store, Trouble> {
    Ok(match place.kind {
        Kind::RawMongo => Store::Limit(Arc::new(RawMongo::open(server.clone(), &place.database))),
        Kind::NaiveMongo => Store::Limit(Arc::new(NaiveMongo::open(server.clone(), &place.database).await?)),
        _ => {
            let mongo = mongo(place).await?;
            mongo.setup(Deadline::after(PATIENCE)).await?;
            Store::Backend(Counted::commands_of(Arc::new(mongo), server.clone()))
        }
    })
}

/// One more handle of a store, with connections of its own.
pub(crate) async fn another(place: &Place) -> Result<Arc<dyn Backend>, Trouble> {
    match place.kind {
        Kind::Sqlite => Ok(Arc::new(Sqlite::open(&place.at).await?)),
        Kind::Postgres => Ok(Arc::new(postgres(place).await?)),
        Kind::Redis => Ok(Arc::new(redis(place).await?)),
        _ => Ok(Arc::new(mongo(place).await?)),
    }
}

async fn mongo(place: &Place) -> Result<Mongo, Trouble> {
    Ok(Mongo::with(leasehold_mongo::Config::new(&place.at).database(&place.database)).await?)
}

async fn redis(place: &Place) -> Result<Redis, Trouble> {
    Ok(Redis::with(leasehold_redis::Config::new(&place.at).namespace(&place.database)).await?)
}

/// What reads how much the Redis server of this place has done.
pub(crate) async fn redis_meter(place: &Place) -> Result<Meter, Trouble> {
    let client = leasehold_redis::redis::Client::open(place.at.as_str())?;
    Ok(Meter::Redis(client.get_multiplexed_async_connection().await?))
}
