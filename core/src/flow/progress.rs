use std::collections::BTreeSet;

use super::dependents::Dependents;
use super::plan::{Plan, Span};
use super::record::FlowCounts;
use crate::job::State;

/// What is known of a job of a flow. To have ended well lasts; to have ended otherwise may be undone by a requeue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Known {
    /// Nothing, or that it has not ended.
    #[default]
    Open,
    Succeeded,
    Failed,
    /// Also if it is there no more.
    Cancelled,
}

impl Known {
    pub(crate) fn of(state: State) -> Self {
        match state {
            State::Succeeded => Self::Succeeded,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
            State::Scheduled | State::Queued | State::Running => Self::Open,
        }
    }
}

/// What is to be done with the jobs of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Nothing any more.
    Done,
    /// Nothing before this job has ended, or was sent round again and ended well.
    Wait(u32),
    /// They may run.
    LetGo,
    /// They never will.
    Cancel,
}

/// How far a flow has come, as far as this process knows: what may be let go, and what is to be cancelled.
///
/// Behind the rows of the plan stands one without jobs that waits for the end of all: [`last`](Self::last).
#[derive(Debug)]
pub(crate) struct Progress {
    plan: Plan,
    dependents: Dependents,
    known: Vec<Known>,
    rows: Vec<Reached>,
    counts: FlowCounts,
}

/// How far it is known that what a row waits for has ended.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    done: bool,
    /// Whether a job that is to succeed before did not.
    doomed: bool,
    link: usize,
    /// How many of the link's jobs.
    jobs: u32,
}

impl Progress {
    /// Nothing is known yet.
    pub(crate) fn new(plan: Plan) -> Self {
        let dependents = Dependents::of(&plan);
        let (known, rows) =
            (vec![Known::Open; plan.size() as usize], vec![Reached::default(); plan.rows().len() + 1]);
        let counts = FlowCounts::new(plan.size());
        Self { plan, dependents, known, rows, counts }
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many jobs have ended, and how.
    pub(crate) fn counts(&self) -> FlowCounts {
        self.counts
    }

    /// The row that waits for the end of all.
    pub(crate) fn last(&self) -> usize {
        self.rows.len() - 1
    }

    /// All rows that something is left to do with.
    pub(crate) fn undone(&self) -> BTreeSet<usize> {
        (0..self.rows.len()).filter(|row| !self.rows[*row].done).collect()
    }

    pub(crate) fn known(&self, job: u32) -> Known {
        self.known.get(job as usize).copied().unwrap_or_default()
    }

    /// The jobs that ended otherwise than well.
    pub(crate) fn unwell(&self) -> Vec<u32> {
        (0..self.plan.size()).filter(|job| is_unwell(self.known(*job))).collect()
    }

    /// Of the jobs of a row, those that are not known to have ended.
    pub(crate) fn open(&self, row: usize) -> Vec<u32> {
        self.plan.members(row).filter(|job| self.known(*job) == Known::Open).collect()
    }

    /// Notes that nothing is left to do with a row.
    pub(crate) fn done(&mut self, row: usize) {
        self.rows[row].done = true;
    }

    /// Notes what became of a job, and names the rows that are to be decided about.
    pub(crate) fn note(&mut self, job: u32, known: Known, touched: &mut BTreeSet<usize>) {
        let Some(was) = self.known.get_mut(job as usize) else { return };
        let was = std::mem::replace(was, known);
        if was == known {
            return;
        }
        self.counts.count(was, known);
        let (rows, plan, mut leads_on) = (&mut self.rows, &self.plan, false);
        self.dependents.each(job, &mut |row, succeeds| {
            let reached = &mut rows[row];
            if reached.done {
                return;
            }
            leads_on = true;
            touched.insert(row);
            if is_unwell(was) {
                // What was concluded from it is no longer so.
                *reached = Reached::default();
            }
            reached.doomed |= succeeds && is_unwell(known) && !plan.rows()[row].waits;
        });
        // While somebody waits for it the flow goes on anyway.
        if !leads_on {
            touched.insert(self.rows.len() - 1);
        }
    }

    /// What is to be done with the jobs of a row.
    pub(crate) fn decide(&mut self, row: usize) -> Decision {
        let mut reached = self.rows[row];
        if reached.done {
            return Decision::Done;
        }
        if reached.doomed {
            return Decision::Cancel;
        }
        let mut decision = Decision::LetGo;
        'links: while let Some(((from, to), succeeds)) = self.link(row, reached.link) {
            while from + reached.jobs < to {
                let job = from + reached.jobs;
                match self.known(job) {
                    Known::Succeeded => {}
                    Known::Failed | Known::Cancelled if !succeeds => {}
                    Known::Failed | Known::Cancelled if !self.waits(row) => {
                        reached.doomed = true;
                        decision = Decision::Cancel;
                        break 'links;
                    }
                    Known::Failed | Known::Cancelled | Known::Open => {
                        decision = Decision::Wait(job);
                        break 'links;
                    }
                }
                reached.jobs += 1;
            }
            (reached.link, reached.jobs) = (reached.link + 1, 0);
        }
        self.rows[row] = reached;
        decision
    }

    /// Up to so many jobs that a row waits for, from where it stands on, and that are not known to have ended well enough.
    pub(crate) fn ahead(&self, row: usize, most: usize) -> Vec<u32> {
        let reached = self.rows[row];
        let links = (reached.link..).map_while(|number| self.link(row, number));
        let jobs = links.enumerate().flat_map(|(nth, ((from, to), succeeds))| {
            let skip = if nth == 0 { reached.jobs } else { 0 };
            (from + skip..to).map(move |job| (job, succeeds))
        });
        let left = |(job, succeeds): &(u32, bool)| match self.known(*job) {
            Known::Open => true,
            Known::Succeeded => false,
            Known::Failed | Known::Cancelled => *succeeds,
        };
        jobs.filter(left).map(|(job, _)| job).take(most).collect()
    }

    /// Adds the rows that are doomed once these are cancelled.
    pub(crate) fn spread(&self, rows: &mut BTreeSet<usize>) {
        let mut new: Vec<usize> = rows.iter().copied().collect();
        while let Some(row) = new.pop() {
            for job in self.plan.members(row).filter(|job| self.known(*job) != Known::Succeeded) {
                self.dependents.each(job, &mut |row, succeeds| {
                    if succeeds && !self.rows[row].done && !self.waits(row) && rows.insert(row) {
                        new.push(row);
                    }
                });
            }
        }
    }

    fn waits(&self, row: usize) -> bool {
        self.plan.rows().get(row).is_some_and(|row| row.waits)
    }

    fn link(&self, row: usize, number: usize) -> Option<(Span, bool)> {
        match self.plan.rows().get(row) {
            Some(row) => row.link(number),
            None => (number == 0).then_some(((0, self.plan.size()), false)),
        }
    }
}

fn is_unwell(known: Known) -> bool {
    matches!(known, Known::Failed | Known::Cancelled)
}

/// What is to be looked at in order to learn how far a flow has come: jobs before those that depend on them, and none that
/// depends on one which was seen not to have ended.
#[derive(Debug)]
pub(crate) struct Survey {
    row: usize,
    job: u32,
    blocked: Vec<bool>,
}

impl Survey {
    pub(crate) fn of(progress: &Progress) -> Self {
        Self { row: 0, job: 0, blocked: vec![false; progress.plan.size() as usize] }
    }

    /// Notes that a job was seen and has not ended.
    pub(crate) fn blocks(&mut self, job: u32) {
        if let Some(blocked) = self.blocked.get_mut(job as usize) {
            *blocked = true;
        }
    }

    /// Up to so many jobs to look at next; none when there are no more.
    pub(crate) fn next(&mut self, progress: &mut Progress, most: usize) -> Vec<u32> {
        let mut found = Vec::new();
        while self.row < progress.last() {
            let members = progress.plan.members(self.row);
            let blocked = match progress.decide(self.row) {
                Decision::Wait(job) => self.blocked[job as usize] || progress.known(job) != Known::Open,
                _ => false,
            };
            for job in self.job.max(members.start)..members.end {
                if blocked {
                    self.blocked[job as usize] = true;
                } else if progress.known(job) == Known::Open {
                    if found.len() == most {
                        self.job = job;
                        return found;
                    }
                    found.push(job);
                }
            }
            self.row += 1;
        }
        found
    }
}
