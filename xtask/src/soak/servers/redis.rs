use std::io;

use leasehold::backend::Durability;
use leasehold_test_servers::{Missing, Redis};

use super::Servers;

/// A server that syncs its append-only file with every write.
impl Servers for Redis {
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
