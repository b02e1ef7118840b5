use std::io;
use std::ops::Range;

use leasehold::backend::Durability;
use leasehold_test_servers::{Missing, Postgres};

use super::Servers;
use crate::run::Trouble;

/// A server that keeps its defaults of what is durable.
impl Servers for Postgres {
    const VICTIM: &'static str = "the server";
    const AWAY: Range<u64> = 0..4_000;
    const DURABILITY: Durability = Durability::D2;

    fn begin() -> Result<Self, Missing> {
        Self::own()
    }

    fn store(&self) -> String {
        self.url().to_owned()
    }

    async fn strike(&self) -> io::Result<()> {
        self.kill()
    }

    fn mend(&self) -> io::Result<()> {
        self.restart()
    }

    async fn told(&self) -> Result<Option<String>, Trouble> {
        Ok(None)
    }
}
