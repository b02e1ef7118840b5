//! What the numbers of a store are compared with: bare batches of its own driver, and what people write without a
//! queue at hand.

mod mongo;
mod postgres;
mod redis;
mod sqlite;

pub(crate) use mongo::{NaiveMongo, RawMongo};
pub(crate) use postgres::RawPostgres;
pub(crate) use redis::{RawRedis, clear};
pub(crate) use sqlite::RawSqlite;
