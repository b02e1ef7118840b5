//! What the chores that break things have in common: when a queue is empty, and what a history proves.

use std::path::{Path, PathBuf};

use leasehold::{Backend, State, Store};
use leasehold_conformance::history::{Journal, Rules, Verdict, check, read_files};

use crate::run::Trouble;

/// How many jobs have ended.
pub(crate) async fn ended(store: &Store) -> Result<u64, Trouble> {
    let counts = store.counts().await?;
    let terminal = State::ALL.into_iter().filter(|state| state.is_terminal());
    Ok(terminal.map(|state| counts.iter().map(|queue| queue.of(state)).sum::<u64>()).sum())
}

/// Looks at all jobs for the last time, and judges what all processes wrote down in a folder, the killed ones too.
pub(crate) async fn judge(
    place: &Path,
    journal: &Journal,
    backend: &dyn Backend,
    rules: &Rules,
) -> Result<Verdict, Trouble> {
    journal.last_look(backend).await?;
    let logs = std::fs::read_dir(place)?.map(|entry| entry.map(|entry| entry.path()));
    let logs: Vec<PathBuf> = logs.collect::<Result<_, _>>()?;
    let logs = logs.into_iter().filter(|path| path.extension().is_some_and(|name| name == "jsonl"));
    Ok(check(&read_files(logs)?, rules))
}
