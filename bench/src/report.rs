use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};

use crate::Trouble;
use crate::options::Options;
use crate::sample::Sample;
use crate::target::BATCH;

/// The numbers of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<[String; 6]>,
}

impl Report {
    /// Adds a number; `limit` is what it is compared with.
    pub(crate) fn add(&mut self, workload: &str, store: &str, sample: Sample, limit: Option<Sample>) {
        let ratio = limit.map(|limit| sample.jobs_per_second() / limit.jobs_per_second());
        self.rows.push([
            workload.to_owned(),
            store.to_owned(),
            thousands(sample.jobs_per_second() as u64),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            format!("{:.2}", sample.spread),
            sample.calls_per_job().map_or_else(String::new, |calls| format!("{calls:.4}")),
        ]);
    }

    pub(crate) fn print(&self, options: &Options) -> Result<(), Trouble> {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["workload", "store", "jobs/s", "ratio", "spread", "round trips/job"]);
        table.add_rows(&self.rows);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let (jobs, rounds) = (thousands(options.jobs() as u64), options.rounds());
        println!("{jobs} jobs a round, batches of {BATCH}, the median of {rounds} rounds.");
        println!(
            "The ratio is to the bare driver's speed; in `flat` to that with 1,000 jobs waiting.\n\n{table}"
        );
        Ok(std::io::stdout().flush()?)
    }
}

/// A number in groups of three digits.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn groups_digits() {
        assert_eq!([7, 1_000, 1_234_567].map(super::thousands), ["7", "1,000", "1,234,567"]);
    }
}
