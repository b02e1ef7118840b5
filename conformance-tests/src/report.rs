//! How the cases went, written down for whoever puts all backends into one table.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use leasehold_core::Deadline;
use leasehold_core::backend::Description;
use serde::{Deserialize, Serialize};

use crate::case::{Case, Report};
use crate::clause::Clause;
use crate::harness::{Harness, Place};

/// The environment variable that names a folder in which each process of a run writes down how its cases went: one
/// [`Line`] of JSON for each.
pub const REPORT: &str = "CONFORMANCE_REPORT";

/// How one case went on one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Line {
    /// What the kind of server is called, as in [`main_on`](crate::main_on); empty if there is but one.
    pub server: String,
    /// What the backend says of itself; none if it could not be asked.
    pub backend: Option<Description>,
    /// The part of the contract that the case belongs to.
    pub area: String,
    /// The name of the case.
    pub case: String,
    /// The clauses that it proves.
    pub clauses: Vec<Clause>,
    /// How it went.
    pub report: Report,
}

/// Reads what all processes of a run wrote into a folder.
///
/// # Errors
/// Those of reading files, and [`InvalidData`](io::ErrorKind::InvalidData) for what is no [`Line`].
pub fn read_reports(folder: impl AsRef<Path>) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        for line in std::fs::read_to_string(entry?.path())?.lines() {
            lines.push(serde_json::from_str(line)?);
        }
    }
    Ok(lines)
}

/// Writes down how the cases of one harness go, if somebody wants to know.
pub(crate) struct Reporter {
    folder: Option<PathBuf>,
    server: String,
    harness: Arc<dyn Harness>,
    described: OnceLock<Option<Description>>,
}

impl Reporter {
    /// Of a harness, and of the kind of server as it stands before the names of its cases.
    pub(crate) fn new(kind: &str, harness: &Arc<dyn Harness>) -> Self {
        let folder = std::env::var_os(REPORT).map(PathBuf::from);
        let (server, harness) = (kind.trim_end_matches("::").to_owned(), Arc::clone(harness));
        Self { folder, server, harness, described: OnceLock::new() }
    }

    pub(crate) fn note(&self, case: &Case, report: &Report) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut line = serde_json::to_vec(&Line {
            server: self.server.clone(),
            backend: self.described.get_or_init(|| self.describe()).clone(),
            area: case.area().to_owned(),
            case: case.name.to_owned(),
            clauses: case.clauses.to_vec(),
            report: report.clone(),
        })?;
        line.push(b'\n');
        std::fs::create_dir_all(folder)?;
        let file = folder.join(format!("{}.jsonl", std::process::id()));
        OpenOptions::new().create(true).append(true).open(file)?.write_all(&line)
    }

    fn describe(&self) -> Option<Description> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
        let described = runtime.block_on(async {
            let backend = self.harness.open(&Place::of("describe", &self.server)).await.ok()?;
            backend.describe(Deadline::default()).await.ok()
        });
        runtime.shutdown_background();
        described
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    #[async_trait::async_trait]
    impl Harness for Nowhere {
        async fn open(&self, _: &Place) -> Result<Arc<dyn leasehold_core::Backend>, crate::CannotRun> {
            Err(crate::CannotRun::missing("a server"))
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = std::env::temp_dir().join(format!("reports_{:x}", fastrand::u64(..)));
        let reporter = Reporter {
            folder: Some(folder.clone()),
            server: "small".into(),
            harness: Arc::new(Nowhere),
            described: OnceLock::new(),
        };
        let cases: Vec<&Case> = crate::cases().take(2).collect();
        reporter.note(cases[0], &Report::Kept).unwrap();
        reporter.note(cases[1], &Report::NotSupported("no events".into())).unwrap();
        let lines = read_reports(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let read: Vec<_> = lines.iter().map(|line| (line.case.as_str(), &line.report)).collect();
        let not_supported = Report::NotSupported("no events".into());
        assert_eq!(read, [(cases[0].name, &Report::Kept), (cases[1].name, &not_supported)]);
        assert_eq!((&lines[0].backend, lines[0].server.as_str()), (&None, "small"));
        assert_eq!(lines[0].clauses, cases[0].clauses);
    }
}
