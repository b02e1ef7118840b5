use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use leasehold_peers_round::{Counts, Round, Trouble};

use crate::options::{Options, Peer};
use crate::peers::Contestant;
use crate::versions::version;

/// The columns, and from which on they are numbers.
const HEAD: [&str; 12] = [
    "store",
    "peer",
    "version",
    "config",
    "jobs",
    "enqueue/s",
    "process/s",
    "x Leasehold",
    "once",
    "more",
    "never",
    "left",
];
const NUMBERS: usize = 4;

/// A contestant and what came of its rounds.
pub(crate) struct Row {
    pub(crate) contestant: Contestant,
    rounds: Vec<Round>,
    /// What went wrong, of any round.
    troubles: Vec<String>,
}

impl Row {
    pub(crate) fn new(contestant: Contestant) -> Self {
        Self { contestant, rounds: Vec::new(), troubles: Vec::new() }
    }

    pub(crate) fn add(&mut self, outcome: Result<Round, Trouble>) {
        match outcome {
            Ok(round) => {
                self.troubles.extend(round.trouble.clone());
                self.rounds.push(round);
            }
            Err(trouble) => self.troubles.push(trouble.to_string()),
        }
    }

    /// Whether something went wrong, so that no other round is played.
    pub(crate) fn is_out(&self) -> bool {
        !self.troubles.is_empty()
    }

    fn enqueued_per_second(&self) -> Option<f64> {
        median(self.rounds.iter().map(|round| per_second(jobs(&round.counts), round.enqueue)).collect())
    }

    fn processed_per_second(&self) -> Option<f64> {
        median(self.rounds.iter().map(|round| per_second(round.counts.ran(), round.process)).collect())
    }

    fn cells(&self, leasehold: Option<f64>) -> [String; HEAD.len()] {
        let counts = self.rounds.iter().map(|round| round.counts).fold(Counts::default(), Counts::and);
        let speed = |speed: Option<f64>| speed.map_or_else(String::new, |speed| thousands(speed as u64));
        let processed = self.processed_per_second();
        let ratio = processed.zip(leasehold).map(|(this, leasehold)| format!("{:.2}", this / leasehold));
        let left: u64 = self.rounds.iter().map(|round| round.left).sum();
        let Contestant { peer, store, package, config, .. } = &self.contestant;
        [
            store.to_string(),
            peer.to_string(),
            version(package).into(),
            config.clone(),
            thousands(jobs(&counts) as u64),
            speed(self.enqueued_per_second()),
            speed(processed),
            ratio.unwrap_or_default(),
            thousands(counts.once as u64),
            thousands(counts.more as u64),
            thousands(counts.never as u64),
            thousands(left),
        ]
    }
}

pub(crate) fn print(options: &Options, rows: &[Row]) {
    let (course, rounds) = (options.course(), options.rounds);
    println!(
        "{} jobs a round, the median of {rounds} rounds, {} at the same time. `x Leasehold` is the ratio to its first\n\
         row on the same store; `jobs` and what follows the ratio are of all rounds together.\n",
        thousands(course.jobs as u64),
        course.concurrency
    );
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(HEAD);
    for row in rows {
        let same = |other: &&Row| {
            other.contestant.peer == Peer::Leasehold && other.contestant.store == row.contestant.store
        };
        table.add_row(row.cells(rows.iter().find(same).and_then(Row::processed_per_second)));
    }
    for column in table.column_iter_mut().skip(NUMBERS) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    for row in rows {
        let Contestant { peer, store, config, .. } = &row.contestant;
        row.troubles.iter().for_each(|trouble| println!("\n{peer} on {store}, {config}: {trouble}."));
    }
}

/// What came of a round, in a few words.
pub(crate) fn in_short(outcome: &Result<Round, Trouble>) -> String {
    match outcome {
        Ok(round) => {
            let speed = per_second(round.counts.ran(), round.process);
            let trouble = round.trouble.as_ref().map(|trouble| format!("; {trouble}")).unwrap_or_default();
            format!("{} jobs/s{trouble}", thousands(speed as u64))
        }
        Err(trouble) => trouble.to_string(),
    }
}

fn jobs(counts: &Counts) -> usize {
    counts.ran() + counts.never
}

fn per_second(jobs: usize, time: Duration) -> f64 {
    jobs as f64 / time.as_secs_f64()
}

fn median(mut speeds: Vec<f64>) -> Option<f64> {
    speeds.sort_by(f64::total_cmp);
    speeds.get(speeds.len() / 2).copied()
}

/// A number in groups of three digits.
fn thousands(number: u64) -> String {
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
    fn groups_digits_and_takes_the_middle() {
        assert_eq!([7, 1_000, 1_234_567].map(super::thousands), ["7", "1,000", "1,234,567"]);
        assert_eq!((super::median(vec![3.0, 1.0, 2.0]), super::median(Vec::new())), (Some(2.0), None));
    }
}
