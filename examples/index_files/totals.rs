//! The table at the end.

use std::collections::BTreeMap;
use std::path::Path;

use comfy_table::{CellAlignment, Table};
use futures::TryStreamExt;
use indicatif::{HumanBytes, HumanCount};
use leasehold::backend::{Filter, Order};
use leasehold::{Payload, Result, Store};

use crate::{Facts, IndexFile};

/// A table by file type, from the results that the queue keeps.
pub(crate) async fn print(store: &Store, folder: &Path) -> Result<()> {
    let mut totals: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut jobs = std::pin::pin!(store.list_all(Filter::default(), Order::OldestFirst));
    while let Some(job) = jobs.try_next().await? {
        let IndexFile { path } = job.payload.parse()?;
        let path = Path::new(&path);
        if !path.starts_with(folder) {
            continue;
        }
        let facts = job.result.as_ref().map(Payload::parse::<Facts>).transpose()?;
        if facts.is_none() {
            failures
                .push(job.last_failure().map_or(job.state.to_string(), |failure| failure.message.clone()));
        }
        let Facts { lines, bytes, .. } = facts.as_ref().unwrap_or(&Facts::default()).clone();
        let kind = path.extension().map_or("(none)".into(), |name| format!(".{}", name.to_string_lossy()));
        for row in [kind, "all".into()] {
            let sums = totals.entry(row).or_default().iter_mut();
            sums.zip([1, u64::from(facts.is_none()), lines, bytes]).for_each(|(sum, more)| *sum += more);
        }
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
    table.set_header(["type", "files", "failed", "lines", "bytes"]);
    for (kind, [files, failed, lines, bytes]) in totals {
        let numbers = [files, failed, lines].map(|n| HumanCount(n).to_string());
        table.add_row([&[kind], &numbers[..], &[HumanBytes(bytes).to_string()]].concat());
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    println!("{table}");
    failures.iter().take(20).for_each(|why| println!("failed: {why}"));
    Ok(())
}
