use std::sync::Arc;

use async_trait::async_trait;
use leasehold::sqlite::{Config, Sqlite, Synchronous};
use leasehold::worker::{Args, State};
use leasehold::{Backend, Limits, NewJob};
use leasehold_peers_round::{Job, Queue, Tally, Trouble, Worker};

use super::{Contestant, on};
use crate::options::{Peer, Store};

const KIND: &str = "noop";
/// How many jobs the best worker holds beside those that run.
const AHEAD: usize = 5_000;

pub(super) fn contestants(store: Store) -> Vec<Contestant> {
    let contestant = |config: String, prefetch, synchronous| Contestant {
        peer: Peer::Leasehold,
        store,
        package: "leasehold",
        config,
        play: on(move |url| Leasehold::open(store, url, prefetch, synchronous)),
    };
    let ahead = format!("prefetch {AHEAD}");
    if store != Store::Sqlite {
        let full = Synchronous::Full;
        return vec![contestant("default".into(), None, full), contestant(ahead, Some(AHEAD), full)];
    }
    vec![
        contestant("default, FULL".into(), None, Synchronous::Full),
        contestant(format!("{ahead}, FULL"), Some(AHEAD), Synchronous::Full),
        contestant(format!("{ahead}, NORMAL"), Some(AHEAD), Synchronous::Normal),
    ]
}

struct Leasehold {
    store: leasehold::Store,
    prefetch: Option<usize>,
}

impl Leasehold {
    async fn open(
        store: Store,
        url: String,
        prefetch: Option<usize>,
        synchronous: Synchronous,
    ) -> Result<Self, Trouble> {
        let backend: Arc<dyn Backend> = match store {
            Store::Sqlite => Arc::new(Sqlite::with(Config::new(url).synchronous(synchronous)).await?),
            _ => leasehold::open(&url).await?,
        };
        let store = leasehold::Store::with_limits(backend, Limits::default());
        store.setup().await?;
        Ok(Self { store, prefetch })
    }
}

#[async_trait]
impl Queue for Leasehold {
    async fn enqueue(&self, jobs: Vec<Job>) -> Result<(), Trouble> {
        let jobs = jobs.iter().map(|job| NewJob::dynamic(KIND, job)).collect::<Result<Vec<_>, _>>()?;
        self.store.queue("default")?.enqueue_all(jobs).await?;
        Ok(())
    }

    async fn start(&self, concurrency: usize, tally: Arc<Tally>) -> Result<Worker, Trouble> {
        let mut builder =
            leasehold::Worker::builder(&self.store).concurrency(concurrency).state(tally).handle(KIND, run);
        if let Some(jobs) = self.prefetch {
            builder = builder.prefetch(jobs);
        }
        let worker = builder.build()?;
        let stopper = worker.stopper();
        let work = async move {
            worker.run().await;
            Ok(())
        };
        Ok(Worker::spawn(work, move || stopper.stop()))
    }

    async fn left(&self) -> Result<u64, Trouble> {
        let counts = self.store.queue("default")?.counts().await?;
        Ok(counts.states.iter().filter(|(state, _)| !state.is_terminal()).map(|(_, jobs)| jobs).sum())
    }
}

async fn run(Args(job): Args<Job>, State(tally): State<Arc<Tally>>) {
    tally.ran(&job);
}
