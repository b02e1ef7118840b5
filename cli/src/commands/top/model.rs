use std::collections::BTreeMap;

use crossterm::event::KeyCode;
use leasehold::backend::{QueueCounts, QueueRecord, WorkerRecord};
use leasehold::{JobId, JobRecord, QueueName, State, Timestamp, WorkerId};

/// How many looks the graph of a queue shows.
const HISTORY: usize = 30;

/// What there is to be seen at one moment.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) now: Timestamp,
    pub(super) counts: Vec<QueueCounts>,
    pub(super) queues: Vec<QueueRecord>,
    pub(super) jobs: Vec<JobRecord>,
    pub(super) workers: Vec<WorkerRecord>,
}

/// What a key asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    Look,
    Quit,
    Pause(QueueName),
    Resume(QueueName),
    Cancel(JobId),
    Requeue(JobId),
    Why(JobId),
    Stop(WorkerId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Pane {
    #[default]
    Queues,
    Jobs,
    Workers,
}

/// All that is shown.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) pane: Pane,
    rows: [usize; 3],
    /// Which jobs: any, or those in one state.
    pub(super) state: Option<State>,
    pub(super) seen: Seen,
    pub(super) said: String,
    /// How many jobs left each queue between two looks.
    pub(super) rates: BTreeMap<QueueName, Vec<f64>>,
}

impl Model {
    pub(super) fn states(&self) -> Option<Vec<State>> {
        self.state.map(|state| vec![state])
    }

    pub(super) fn say(&mut self, said: String) {
        self.said = said;
    }

    pub(super) fn see(&mut self, seen: Seen) {
        let seconds = seen.now.since(self.seen.now).as_secs_f64();
        for counts in &seen.counts {
            let before =
                self.seen.counts.iter().find(|before| before.queue == counts.queue).map(QueueCounts::done);
            let rates = self.rates.entry(counts.queue.clone()).or_default();
            rates.extend(
                before
                    .filter(|_| seconds > 0.0)
                    .map(|before| counts.done().saturating_sub(before) as f64 / seconds),
            );
            if rates.len() > HISTORY {
                rates.remove(0);
            }
        }
        self.seen = seen;
    }

    pub(super) fn row(&self) -> usize {
        self.rows[self.pane as usize].min(self.length().saturating_sub(1))
    }

    fn length(&self) -> usize {
        match self.pane {
            Pane::Queues => self.seen.counts.len(),
            Pane::Jobs => self.seen.jobs.len(),
            Pane::Workers => self.seen.workers.len(),
        }
    }

    /// Whether a queue is paused.
    pub(super) fn is_paused(&self, queue: &QueueName) -> bool {
        self.seen.queues.iter().any(|record| record.queue == *queue && record.settings.pause.is_some())
    }

    pub(super) fn key(&mut self, key: KeyCode) -> Act {
        let row = self.row();
        match key {
            KeyCode::Char('q') | KeyCode::Esc => Act::Quit,
            KeyCode::Tab | KeyCode::Right => {
                self.pane = match self.pane {
                    Pane::Queues => Pane::Jobs,
                    Pane::Jobs => Pane::Workers,
                    Pane::Workers => Pane::Queues,
                };
                Act::Nothing
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(row + 1),
            KeyCode::Up | KeyCode::Char('k') => self.step(row.saturating_sub(1)),
            KeyCode::Char('f') => {
                let all = State::ALL;
                let next = self
                    .state
                    .map_or(0, |state| all.iter().position(|it| *it == state).map_or(0, |at| at + 1));
                self.state = all.get(next).copied();
                Act::Look
            }
            KeyCode::Char(letter) => self.act(letter, row),
            _ => Act::Nothing,
        }
    }

    fn step(&mut self, row: usize) -> Act {
        self.rows[self.pane as usize] = row;
        Act::Nothing
    }

    fn act(&self, letter: char, row: usize) -> Act {
        let job = || self.seen.jobs.get(row).map(|job| job.id);
        let asked = match (self.pane, letter) {
            (Pane::Queues, 'p') => {
                self.seen.counts.get(row).map(|counts| match self.is_paused(&counts.queue) {
                    true => Act::Resume(counts.queue.clone()),
                    false => Act::Pause(counts.queue.clone()),
                })
            }
            (Pane::Jobs, 'c') => job().map(Act::Cancel),
            (Pane::Jobs, 'r') => job().map(Act::Requeue),
            (Pane::Jobs, 'w') => job().map(Act::Why),
            (Pane::Workers, 's') => self.seen.workers.get(row).map(|worker| Act::Stop(worker.worker)),
            _ => None,
        };
        asked.unwrap_or(Act::Nothing)
    }
}
