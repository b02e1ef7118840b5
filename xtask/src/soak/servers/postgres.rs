use std::io;

use leasehold::backend::Durability;
use leasehold_test_servers::{Missing, Postgres};

use super::Servers;

/// A server that keeps its defaults of what is durable.
impl Servers for Postgres {
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
}
