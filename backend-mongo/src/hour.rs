//! The server's hour, as far as it is known without asking for it each time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_core::{Clock, Error, ErrorKind, Timestamp};
use mongodb::bson::doc;
use tokio::time::Instant;

use crate::error::Done;
use crate::session::Db;

/// Where the hour is read.
pub(crate) enum Hour {
    /// On the server; what it last said.
    Server(Mutex<Option<Anchor>>),
    /// Here, for tests.
    Clock(Arc<dyn Clock>),
}

/// The server's hour, which was so at some moment between the question and the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anchor {
    at: Timestamp,
    asked: Instant,
    heard: Instant,
}

impl Anchor {
    fn stamp(self) -> Stamp {
        let no_earlier = self.at.plus(self.asked.elapsed());
        let elapsed = i64::try_from(self.heard.elapsed().as_millis()).unwrap_or(0);
        Stamp { no_later: Timestamp::from_millis(self.at.as_millis() + elapsed), no_earlier }
    }
}

/// The server's hour as far as it is known without asking: between the two, unless its clock was set within the last
/// second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// For what is due now and is to be found at once.
    pub(crate) no_later: Timestamp,
    /// For what must last some time (clause C8).
    pub(crate) no_earlier: Timestamp,
}

impl Stamp {
    fn exactly(at: Timestamp) -> Self {
        Self { no_later: at, no_earlier: at }
    }
}

impl Db {
    /// The present moment by the server's clock, for what has to be stamped beforehand.
    pub(crate) async fn stamp(&self) -> Done<Stamp> {
        const FRESH: Duration = Duration::from_secs(1);
        let anchor = match &self.hour {
            Hour::Clock(clock) => return Ok(Stamp::exactly(clock.now())),
            Hour::Server(anchor) => anchor,
        };
        let known = *anchor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.filter(|known| known.heard.elapsed() < FRESH) {
            return Ok(known.stamp());
        }
        let asked = Instant::now();
        let at = self.ask_hour().await?;
        let known = Anchor { at, asked, heard: Instant::now() };
        *anchor.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        Ok(known.stamp())
    }

    /// Asks for the present moment.
    pub(crate) async fn ask_hour(&self) -> Done<Timestamp> {
        if let Hour::Clock(clock) = &self.hour {
            return Ok(clock.now());
        }
        let hello = self.database.run_command(doc! {"hello": 1}).await?;
        match hello.get_datetime("localTime") {
            Ok(at) => Ok(Timestamp::from_millis(at.timestamp_millis())),
            Err(_) => Err(Error::new(ErrorKind::Internal, "the server does not tell the hour").into()),
        }
    }
}
