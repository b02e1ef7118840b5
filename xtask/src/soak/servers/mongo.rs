use std::io;
use std::ops::Range;

use leasehold::backend::Durability;
use leasehold_test_servers::{Missing, Mongo, Node};

use super::Servers;
use crate::run::Trouble;

/// Three nodes, of which the primary is killed.
impl Servers for Mongo {
    const VICTIM: &'static str = "the primary";
    // Longer than it takes to elect another.
    const AWAY: Range<u64> = 2_000..6_000;
    const DURABILITY: Durability = Durability::D3;

    fn begin() -> Result<Self, Missing> {
        Self::own(3)
    }

    fn store(&self) -> String {
        self.url().replacen("/?", "/soak?", 1)
    }

    async fn strike(&self) -> io::Result<()> {
        self.primary().await?.kill()
    }

    fn mend(&self) -> io::Result<()> {
        // Those that run are left as they are.
        self.nodes().iter().try_for_each(Node::start)
    }

    async fn told(&self) -> Result<Option<String>, Trouble> {
        let asked = [("replSetGetStatus".to_owned(), 1.into())].into_iter().collect();
        let status = self.primary().await?.run(asked).await?;
        // The term rises with each election, and the first made the set.
        Ok(Some(format!("{} elections", status.get_i64("term")? - 1)))
    }
}
