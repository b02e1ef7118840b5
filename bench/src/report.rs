use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;

use crate::Trouble;
use crate::aims;
use crate::options::Options;
use crate::sample::Sample;
use crate::stores::Kind;
use crate::workloads::Name;

/// The numbers of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) waits: Vec<Wait>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) sizes: Vec<Size>,
}

/// How fast something was.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: Name,
    /// The workload and its circumstances, as shown.
    pub(crate) case: String,
    pub(crate) kind: Kind,
    pub(crate) claimers: usize,
    /// Jobs of a call; 0 where the worker chooses.
    pub(crate) batch: usize,
    pub(crate) sample: Sample,
    /// What it is compared with.
    pub(crate) limit: Option<Sample>,
    /// What people would have without a queue.
    pub(crate) naive: Option<Sample>,
}

/// How long workers that had nothing to do took to begin, in microseconds.
#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) kind: Kind,
    pub(crate) waits: Histogram<u64>,
}

/// What a worker asked for that had nothing to do.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) kind: Kind,
    pub(crate) commands: BTreeMap<String, u64>,
    pub(crate) seconds: f64,
}

/// How large tables were when so many jobs had gone through them.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) jobs: usize,
    /// Jobs per second since the row before.
    pub(crate) speed: f64,
    /// Names and bytes.
    pub(crate) tables: Vec<(String, i64)>,
}

impl Row {
    pub(crate) fn of_limit(&self) -> Option<f64> {
        self.limit.map(|limit| self.sample.jobs_per_second() / limit.jobs_per_second())
    }

    pub(crate) fn of_naive(&self) -> Option<f64> {
        self.naive.map(|naive| self.sample.jobs_per_second() / naive.jobs_per_second())
    }

    fn cells(&self) -> [String; 11] {
        let two = |number: Option<f64>| number.map_or_else(String::new, |number| format!("{number:.2}"));
        [
            self.case.clone(),
            self.kind.to_string(),
            self.claimers.to_string(),
            if self.batch == 0 { String::new() } else { self.batch.to_string() },
            thousands(self.sample.jobs_per_second() as u64),
            two(self.of_limit()),
            two(self.of_naive()),
            format!("{:.2}", self.sample.spread),
            self.sample.trips_per_job().map_or_else(String::new, |trips| format!("{trips:.4}")),
            two(self.sample.processor_per_job()),
            two(self.sample.commands_per_job()),
        ]
    }
}

impl Wait {
    pub(crate) fn millis(&self, quantile: f64) -> f64 {
        self.waits.value_at_quantile(quantile) as f64 / 1_000.0
    }

    fn cells(&self) -> [String; 6] {
        let at = |quantile| format!("{:.1}", self.millis(quantile));
        let most = format!("{:.1}", self.waits.max() as f64 / 1_000.0);
        [self.kind.to_string(), self.waits.len().to_string(), at(0.5), at(0.9), at(0.99), most]
    }
}

impl Asked {
    pub(crate) fn per_second(&self) -> f64 {
        self.commands.values().sum::<u64>() as f64 / self.seconds
    }

    fn cells(&self) -> [String; 3] {
        let each = |(name, count): (&String, &u64)| format!("{name} {:.2}", *count as f64 / self.seconds);
        let named = self.commands.iter().map(each).collect::<Vec<_>>().join(", ");
        [self.kind.to_string(), format!("{:.2}", self.per_second()), named]
    }
}

impl Size {
    fn cells(&self) -> [String; 4] {
        let mib = |bytes: i64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let large = self.tables.iter().filter(|(_, bytes)| *bytes >= 1 << 20);
        let named =
            large.map(|(name, bytes)| format!("{name} {}", mib(*bytes))).collect::<Vec<_>>().join(", ");
        let all = self.tables.iter().map(|(_, bytes)| bytes).sum();
        [thousands(self.jobs as u64), thousands(self.speed as u64), mib(all), named]
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [jobs, speed, all, named] = self.cells();
        write!(f, "{jobs} jobs at {speed}/s: {all} MiB ({named})")
    }
}

impl Report {
    pub(crate) fn print(&self, options: &Options) -> Result<(), Trouble> {
        let (jobs, rounds) = (thousands(options.jobs(usize::MAX / 1_000) as u64), options.rounds());
        println!(
            "Up to {jobs} jobs a round, the median of {rounds} rounds. `of limit` is the ratio to the bare"
        );
        println!(
            "driver's speed, or to that in memory where none is known; in `flat` to that with 1,000 jobs waiting,"
        );
        println!("in `beside` to that alone, in `raw` to that of jobs.");
        if options.processes > 1 {
            println!("Backends were claimed from by {} processes.", options.processes);
        }
        let speeds = [
            "workload",
            "store",
            "claimers",
            "batch",
            "jobs/s",
            "of limit",
            "x naive",
            "spread",
            "round trips/job",
            "server µs/job",
            "commands/job",
        ];
        show("", speeds, self.rows.iter().map(Row::cells), 2);
        let waits = ["store", "wakes", "p50", "p90", "p99", "longest"];
        show(
            "From enqueue to the start of an idle worker's handler, ms:",
            waits,
            self.waits.iter().map(Wait::cells),
            1,
        );
        let asked = ["store", "all", "each"];
        show(
            "What an idle worker asks for, round trips or calls per second, which is its poll interval:",
            asked,
            self.asked.iter().map(Asked::cells),
            9,
        );
        let sizes = ["jobs so far", "jobs/s", "MiB", "tables of a MiB or more"];
        show(
            "PostgreSQL's tables with their indexes, as ever more jobs have gone through:",
            sizes,
            self.sizes.iter().map(Size::cells),
            9,
        );
        show("Aims:", aims::HEAD, aims::judge(self).into_iter(), 9);
        Ok(std::io::stdout().flush()?)
    }
}

/// Shows a table if there is anything in it; columns from `numbers` on are aligned as such.
fn show<const N: usize>(
    title: &str,
    head: [&str; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
    numbers: usize,
) {
    if rows.len() == 0 {
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(head);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{title}{}{table}", if title.is_empty() { "" } else { "\n\n" });
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
