//! Random sequences of calls, made side by side on the backend and on a reference that is written to be read: after
//! each step both must have answered the same, and show the same. What differs is made as short as it gets.

mod carry;
mod manage;
mod names;
mod play;
mod reference;
mod step;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::Handle;

use self::play::play;
use self::step::{Step, sequences};
use crate::bench::Bench;
use crate::breach::{Breach, Done, Kept, Trouble};

/// How many sequences are played at once, each on a store of its own.
const LANES: usize = 4;

/// How many sequences follow each other in one store, which remembers the queues of all of them.
const IN_ONE_PLACE: u64 = 100;

/// How often a sequence that shows a difference is tried in shorter forms.
const TRIES: usize = 2_000;

/// Plays so many sequences. The first one is cast with this seed, each other one with the next.
pub(crate) async fn agree(t: &Bench, seed: u64, cases: u64) -> Kept {
    let shared = Arc::new(Shared { seed, cases, begun: AtomicU64::new(0), over: AtomicBool::new(false) });
    let mut lanes = Vec::new();
    for _ in 0..LANES {
        let (t, shared) = (t.clone(), Arc::clone(&shared));
        let here = Handle::current();
        // What shrinks a sequence cannot be handed from thread to thread.
        lanes.push(tokio::task::spawn_blocking(move || here.block_on(shared.lane(&t))));
    }
    for lane in lanes {
        lane.await??;
    }
    Ok(())
}

/// What the lanes have in common.
struct Shared {
    seed: u64,
    cases: u64,
    begun: AtomicU64,
    over: AtomicBool,
}

impl Shared {
    async fn lane(&self, t: &Bench) -> Kept {
        let (mut t, mut played) = (t.clone(), 0);
        while !self.over.load(Ordering::Relaxed) {
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            if number >= self.cases {
                break;
            }
            if played % IN_ONE_PLACE == 0 {
                t = t.in_another_place().await?;
            }
            played += 1;
            let outcome = one(&t, self.seed.wrapping_add(number)).await;
            if outcome.is_err() {
                self.over.store(true, Ordering::Relaxed);
            }
            outcome?;
        }
        Ok(())
    }
}

/// Plays one sequence; one that shows a difference is told in the shortest form that was found.
async fn one(t: &Bench, seed: u64) -> Kept {
    let mut tree = cast(seed)?;
    let steps = tree.current();
    let Err(breach) = play(t, &steps).await else { return Ok(()) };
    let mut shrinking = Shrinking { t: t.in_another_place().await?, tries: 0, steps, breach };
    shrinking.simplify(&mut tree).await?;
    shrinking.leave_out().await?;
    Err(told(seed, &shrinking.steps, &shrinking.breach))
}

/// The shortest sequence so far that shows a difference.
struct Shrinking {
    t: Bench,
    tries: usize,
    steps: Vec<Step>,
    breach: Breach,
}

impl Shrinking {
    /// Leaves each step out once, and makes what is in those that stay simpler.
    async fn simplify(&mut self, tree: &mut impl ValueTree<Value = Vec<Step>>) -> Kept {
        let mut simpler = tree.simplify();
        while simpler && self.tries < TRIES {
            simpler = match self.still_shows(tree.current()).await? {
                true => tree.simplify(),
                false => tree.complicate(),
            };
        }
        Ok(())
    }

    /// Leaves out what has become needless since, and most of all what follows the difference.
    async fn leave_out(&mut self) -> Kept {
        let mut before = usize::MAX;
        while self.steps.len() < before {
            before = self.steps.len();
            for at in (0..before).rev() {
                let mut fewer = self.steps.clone();
                fewer.remove(at);
                self.still_shows(fewer).await?;
            }
        }
        Ok(())
    }

    /// Whether this sequence shows a difference too, and is the shortest by now.
    async fn still_shows(&mut self, steps: Vec<Step>) -> Done<bool> {
        self.tries += 1;
        let Err(breach) = play(&self.t, &steps).await else { return Ok(false) };
        (self.steps, self.breach) = (steps, breach);
        // After a difference a store is not what the next sequence expects.
        self.t = self.t.in_another_place().await?;
        Ok(true)
    }
}

fn cast(seed: u64) -> Result<impl ValueTree<Value = Vec<Step>>, Trouble> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let dice = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), dice);
    sequences().new_tree(&mut runner).map_err(|why| Trouble::Unmet(format!("no sequence was cast: {why}")))
}

fn told(seed: u64, steps: &[Step], breach: &Breach) -> Breach {
    let steps: Vec<String> =
        steps.iter().enumerate().map(|(n, step)| format!("{:>4}. {step:?}", n + 1)).collect();
    Breach::new(format!(
        "the backend differs from the reference; `--seed {seed} --cases 1` plays this sequence alone, of which {} \
         steps are left:\n{}\n{breach}",
        steps.len(),
        steps.join("\n")
    ))
}
