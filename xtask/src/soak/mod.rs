//! Workers are killed every second and the server, or the primary of three, every twenty, while jobs come in and are
//! run; then the recorded history of every call is judged.

mod crowd;
mod producer;
mod servers;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use leasehold::{Deadline, Store};
use leasehold_conformance::history::{FileSink, Journal, Rules, Verdict};
use leasehold_test_servers::{Mongo, Postgres, Redis};
use tokio::time::{Instant, sleep};

use self::crowd::Crowd;
use self::producer::Produced;
use self::servers::Servers;
use crate::history::{ended, judge};
use crate::run::Trouble;
use crate::{SoakOptions, SoakStore};

pub(crate) use self::worker::work;

/// The queue.
const QUEUE: &str = "soak";
/// How long all may take to end once nothing is broken any more.
const PATIENCE: Duration = Duration::from_mins(10);
/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Breaks things for as long as was asked for, and judges what came of it.
pub(crate) fn soak(options: &SoakOptions) -> Result<(), Trouble> {
    match options.store {
        SoakStore::Mongo => soak_on::<Mongo>(options),
        SoakStore::Postgres => soak_on::<Postgres>(options),
        SoakStore::Redis => soak_on::<Redis>(options),
    }
}

fn soak_on<S: Servers>(options: &SoakOptions) -> Result<(), Trouble> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!(
        "{:?}, seed {seed}: {} jobs in {} s, {} worker processes, one killed every {} ms and one frozen every {} s, \
         {} killed every {} s",
        options.store,
        options.jobs,
        options.seconds,
        options.processes,
        options.kill_every,
        options.freeze_every,
        S::VICTIM,
        options.server_every
    );
    let folder = tempfile::Builder::new().prefix("leasehold-soak-").tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(Soak::<S>::new(options, seed, folder.path().to_path_buf())?.run());
    outcome.map_err(|trouble| {
        let kept = folder.keep();
        format!("seed {seed}: {trouble}\nthe histories are kept in {}", kept.display()).into()
    })
}

/// One run.
struct Soak<'a, S> {
    options: &'a SoakOptions,
    seed: u64,
    place: PathBuf,
    servers: Arc<S>,
    url: String,
    journal: Journal,
}

impl<'a, S: Servers> Soak<'a, S> {
    fn new(options: &'a SoakOptions, seed: u64, place: PathBuf) -> Result<Self, Trouble> {
        let servers = Arc::new(S::begin()?);
        let url = servers.store();
        let journal = Journal::new("breaker", Arc::new(FileSink::append(place.join("breaker.jsonl"))?));
        Ok(Self { options, seed, place, servers, url, journal })
    }

    async fn run(&self) -> Result<(), Trouble> {
        let begun = Instant::now();
        let store = leasehold::connect(&self.url).await?;
        store.require_durability(S::DURABILITY).await?;
        let mut crowd = Crowd::new(&self.url, &self.place, self.journal.clone());
        for _ in 0..self.options.processes {
            crowd.start()?;
        }
        let calm = AtomicBool::new(false);
        let (produced, strikes) = tokio::try_join!(
            async {
                // Things break until all is enqueued, and for as long as was asked for.
                let (produced, ()) = tokio::try_join!(
                    producer::produce(self.options, self.seed, &self.url, &self.place, begun),
                    self.wait(begun)
                )?;
                calm.store(true, Ordering::Relaxed);
                Ok::<_, Trouble>(produced)
            },
            async {
                let (killed, ()) = tokio::try_join!(
                    servers::break_often(&self.servers, self.options, &self.journal, self.seed, &calm),
                    crowd.break_often(self.options, self.seed, &calm)
                )?;
                Ok(killed)
            },
        )?;
        let broken = begun.elapsed();
        let drained = self.drain(&store, produced.jobs).await;
        let (killed, freezes) = (crowd.killed, crowd.freezes);
        crowd.stop()?;
        let told = self.servers.told().await?.map(|told| format!("; {told}")).unwrap_or_default();
        println!(
            "{killed} workers killed, {freezes} frozen, {} killed {strikes} times in {:.0} s{told}",
            S::VICTIM,
            broken.as_secs_f64()
        );
        let Produced { jobs, calls, repeated } = produced;
        println!(
            "{jobs} jobs acknowledged by {calls} calls of the producers, {repeated} of which were repetitions of unknown ones"
        );
        drained?;
        println!("all ended {:.0} s after the last kill", (begun.elapsed() - broken).as_secs_f64());
        self.check(&store, produced.jobs).await
    }

    async fn wait(&self, begun: Instant) -> Result<(), Trouble> {
        tokio::time::sleep_until(begun + Duration::from_secs(self.options.seconds)).await;
        Ok(())
    }

    /// Waits until every job that was acknowledged has ended.
    async fn drain(&self, store: &Store, jobs: u64) -> Result<(), Trouble> {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} ended, {per_sec}")?;
        let bar = ProgressBar::new(jobs).with_style(style);
        let begun = Instant::now();
        loop {
            let count = match ended(store).await {
                Ok(count) => count,
                // There may still be no server.
                Err(trouble) if begun.elapsed() > PATIENCE => return Err(trouble),
                Err(_) => 0,
            };
            bar.set_position(count);
            if count >= jobs {
                bar.finish_and_clear();
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!(
                    "only {count} of {jobs} jobs have ended {PATIENCE:?} after the last kill"
                )
                .into());
            }
            sleep(LOOK).await;
        }
    }

    /// Judges what all processes wrote down, and the counts.
    async fn check(&self, store: &Store, jobs: u64) -> Result<(), Trouble> {
        let backend = leasehold::open(&self.url).await?;
        let jobs_wanted = usize::try_from(jobs)?;
        let capabilities = backend.describe(Deadline::default()).await?.capabilities;
        let mut rules = Rules::drained(jobs_wanted).of_a_store(&capabilities).losses(1).faults(1);
        let name = format!("{:?}", self.options.store).to_lowercase();
        rules = rules.repeated_by(format!("cargo xtask soak --store {name} --seed {}", self.seed));
        if self.options.seconds > self.options.server_every {
            rules = rules.unknown(1);
        }
        let verdict = judge(&self.place, &self.journal, &*backend, &rules).await?;
        tell(&verdict);
        let counts = store.counts().await?;
        let [queue] = counts.as_slice() else { return Err(format!("not one queue: {counts:?}").into()) };
        if queue.enqueued != jobs || queue.total() + queue.deleted != jobs {
            return Err(format!("{jobs} jobs were acknowledged, and the counts are {queue:?}").into());
        }
        if !verdict.is_valid() {
            let findings: Vec<_> = verdict.findings.iter().map(|found| format!("{found:?}\n")).collect();
            std::fs::write(self.place.join("findings.txt"), findings.concat())?;
            return Err(verdict.to_string().into());
        }
        println!("every acknowledged job ended exactly once, and the history keeps every invariant");
        Ok(())
    }
}

fn tell(verdict: &Verdict) {
    let tally = verdict.tally;
    println!(
        "{} events; {} calls, of which {} unknown and {} failed for certain; {} leases given, {} lost and taken back; \
         {} jobs ended; {} faults",
        tally.events,
        tally.calls,
        tally.unknown,
        tally.failed,
        tally.grants,
        tally.losses,
        tally.ended,
        tally.faults
    );
    println!("{} settlements under lost leases refused", tally.refused);
}
