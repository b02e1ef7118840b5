//! What is left of a run that broke an invariant, for whoever has to find out why.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bench::Bench;
use crate::breach::{Breach, Kept};
use crate::history::{Event, Rules, Verdict, check};

/// The environment variable that names the folder in which the histories of broken runs are kept. Where it is not set,
/// that is `conformance-failures` in cargo's target folder, if the environment names one, or in that for temporary files.
pub const KEEP: &str = "CONFORMANCE_KEEP";

/// Whether histories are kept where nobody has named a folder.
static BY_ITSELF: AtomicBool = AtomicBool::new(false);

/// From here on histories are kept, also where nobody has named a folder.
pub(crate) fn keep_by_itself() {
    BY_ITSELF.store(true, Ordering::Relaxed);
}

/// Judges what was recorded of a case. If it is not valid, the history and what is wrong with it are kept in a folder
/// that the breach names.
#[track_caller]
pub(crate) fn judge(t: &Bench, events: &[Event], rules: &Rules) -> Kept<Verdict> {
    let verdict = check(events, rules);
    if verdict.is_valid() {
        return Ok(verdict);
    }
    let mut what = verdict.to_string();
    if let Some(folder) = folder() {
        let folder = folder.join(&t.place().name);
        // A string takes whatever is written to it.
        let _ = match keep(&folder, events, &what) {
            Ok(()) => write!(what, "the history is kept in {}", folder.display()),
            Err(error) => write!(what, "the history could not be kept in {}: {error}", folder.display()),
        };
    }
    Err(Breach::new(what))
}

fn folder() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(KEEP) {
        return Some(named.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    BY_ITSELF.load(Ordering::Relaxed).then(|| target.join("conformance-failures"))
}

fn keep(folder: &Path, events: &[Event], story: &str) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut lines = Vec::new();
    for event in events {
        serde_json::to_writer(&mut lines, event)?;
        lines.push(b'\n');
    }
    std::fs::write(folder.join("history.jsonl"), lines)?;
    std::fs::write(folder.join("story.txt"), story)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Call, What, read_files};

    #[test]
    fn what_is_kept_can_be_judged_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let event = |op| Event { t: op, p: "a#1".into(), op, what: What::Invoke { call: Call::Look } };
        let events = [event(1), event(2)];
        keep(&folder.path().join("case"), &events, "so it came").expect("kept");
        let history = folder.path().join("case/history.jsonl");
        assert_eq!(read_files([history]).expect("a history"), events);
        let story = std::fs::read_to_string(folder.path().join("case/story.txt")).expect("a story");
        assert_eq!(story, "so it came");
    }
}
