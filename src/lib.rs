//! A job queue that does not care where the jobs are kept.
//!
//! A worker never owns a job; it holds it on a lease. Every write is fenced by that lease, only the store
//! tells the time, and every call may be repeated. The store is chosen by a URL and a cargo feature:
//!
//! | URL | store | feature |
//! |---|---|---|
//! | `memory:` | this process's memory, for tests | `memory`, on by default |
//! | `sqlite:FILE` | a SQLite file, shared by any number of processes of one host | `sqlite`, on by default |
//! | `mongodb://HOSTS/DATABASE`, `mongodb+srv://...` | a MongoDB database, shared by any number of hosts | `mongo` |
//! | `postgres://HOST/DATABASE?schema=NAME` | a schema of a PostgreSQL database, shared by any number of hosts | `postgres` |
//! | `redis://HOST`, `rediss://...`, with `?namespace=NAME` | a Redis or Valkey server, shared by any number of hosts | `redis` |
//!
//! # Hello
//!
//! ```
#![doc = include_str!("../examples/hello.rs")]
//! ```
//!
//! # Where to go from here
//!
//! - **Enqueue**: [`Queue`] takes jobs in, [`NewJob`] has their options, [`Store`] finds, lists, counts,
//!   cancels, requeues and follows them.
//! - **Run**: [`Worker`] runs handlers ([`worker::Handler`], [`worker::Args`], [`worker::State`]) and keeps
//!   their leases; [`Consumer`] holds jobs by hand.
//! - **Decide**: [`policy`] says when to try again and when to give up.
//! - **Test**: `testing` (feature `testing`) runs handlers inline, on virtual time.
//! - **Come from another queue**: [each name of MTQ, mongoqueue, pymjq, TQueues and MRQ](https://github.com/leasehold/leasehold/blob/main/docs/coming-from/README.md).
//! - **Write a store**: [`backend`] is the contract, rule by rule; the crate `leasehold-conformance` is the
//!   judge.

#[doc(inline)]
pub use leasehold_core::*;

#[cfg(feature = "memory")]
#[doc(inline)]
pub use leasehold_memory as memory;
#[cfg(feature = "mongo")]
#[doc(inline)]
pub use leasehold_mongo as mongo;
#[cfg(feature = "postgres")]
#[doc(inline)]
pub use leasehold_postgres as postgres;
#[cfg(feature = "redis")]
#[doc(inline)]
pub use leasehold_redis as redis;
#[cfg(feature = "sqlite")]
#[doc(inline)]
pub use leasehold_sqlite as sqlite;

use std::sync::Arc;

/// Connects to the store that `url` names and makes it ready.
///
/// # Errors
/// [`Config`](ErrorKind::Config) for a URL that names no store, or one whose feature is off; what the store
/// says, such as [`Incompatible`](ErrorKind::Incompatible) for a file of a newer version.
pub async fn connect(url: &str) -> Result<Store> {
    let store = Store::with_limits(open(url).await?, Limits::default());
    store.setup().await?;
    Ok(store)
}

/// Opens the backend that `url` names, with no layer in front of it and not yet set up: for whoever puts
/// something of their own around it.
///
/// # Errors
/// Those of [`connect`].
pub async fn open(url: &str) -> Result<Arc<dyn Backend>> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    match scheme {
        Some("memory") => memory_store(url),
        Some("sqlite") => sqlite_store(url).await,
        Some("mongodb" | "mongodb+srv") => mongo_store(url).await,
        Some("postgres" | "postgresql") => postgres_store(url).await,
        Some("redis" | "rediss") => redis_store(url).await,
        _ => Err(Error::new(ErrorKind::Config, unknown(scheme))),
    }
}

fn unknown(scheme: Option<&str>) -> String {
    const KNOWN: [&str; 5] = ["memory", "sqlite", "mongodb", "postgres", "redis"];
    let known = "a store's URL is `memory:`, `sqlite:FILE`, `mongodb://HOST/DATABASE`, `postgres://HOST/DATABASE` or \
                 `redis://HOST`";
    let Some(scheme) = scheme else { return format!("this is not a URL, for it has no `:`; {known}") };
    let near = KNOWN.iter().find(|known| near(known, scheme));
    let hint = near.map(|near| format!("; did you mean `{near}:`?")).unwrap_or_default();
    format!("no store is called {scheme:?}; {known}{hint}")
}

/// Whether one is the other with a letter or two mistyped.
fn near(known: &str, typed: &str) -> bool {
    let typed = typed.to_lowercase();
    let prefix = known.chars().zip(typed.chars()).take_while(|(a, b)| a == b).count();
    let suffix = known.chars().rev().zip(typed.chars().rev()).take_while(|(a, b)| a == b).count();
    prefix + suffix + 2 >= known.len().max(typed.len())
}

#[cfg(feature = "memory")]
fn memory_store(url: &str) -> Result<Arc<dyn Backend>> {
    if url == "memory:" {
        return Ok(Arc::new(leasehold_memory::Memory::new()));
    }
    Err(Error::new(ErrorKind::Config, "a store in memory has no name and no options; its URL is `memory:`"))
}

#[cfg(not(feature = "memory"))]
fn memory_store(_: &str) -> Result<Arc<dyn Backend>> {
    Err(off("memory"))
}

#[cfg(feature = "sqlite")]
async fn sqlite_store(url: &str) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(leasehold_sqlite::Sqlite::connect(url).await?))
}

#[cfg(not(feature = "sqlite"))]
#[expect(clippy::unused_async, reason = "the same signature as with the feature")]
async fn sqlite_store(_: &str) -> Result<Arc<dyn Backend>> {
    Err(off("sqlite"))
}

#[cfg(feature = "mongo")]
async fn mongo_store(url: &str) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(leasehold_mongo::Mongo::connect(url).await?))
}

#[cfg(not(feature = "mongo"))]
#[expect(clippy::unused_async, reason = "the same signature as with the feature")]
async fn mongo_store(_: &str) -> Result<Arc<dyn Backend>> {
    Err(off("mongo"))
}

#[cfg(feature = "postgres")]
async fn postgres_store(url: &str) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(leasehold_postgres::Postgres::connect(url).await?))
}

#[cfg(not(feature = "postgres"))]
#[expect(clippy::unused_async, reason = "the same signature as with the feature")]
async fn postgres_store(_: &str) -> Result<Arc<dyn Backend>> {
    Err(off("postgres"))
}

#[cfg(feature = "redis")]
async fn redis_store(url: &str) -> Result<Arc<dyn Backend>> {
    Ok(Arc::new(leasehold_redis::Redis::connect(url).await?))
}

#[cfg(not(feature = "redis"))]
#[expect(clippy::unused_async, reason = "the same signature as with the feature")]
async fn redis_store(_: &str) -> Result<Arc<dyn Backend>> {
    Err(off("redis"))
}

#[cfg(not(all(
    feature = "memory",
    feature = "sqlite",
    feature = "mongo",
    feature = "postgres",
    feature = "redis"
)))]
fn off(feature: &str) -> Error {
    let how =
        format!("leasehold = {{ version = \"{}\", features = [\"{feature}\"] }}", env!("CARGO_PKG_VERSION"));
    Error::new(
        ErrorKind::Config,
        format!("this program was built without `{feature}` stores; in Cargo.toml say {how}"),
    )
}
