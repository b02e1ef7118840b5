use serde::Serialize;

use crate::id::JobId;

/// How many jobs whose unique keys others hold are named.
const NAMED: usize = 100;

/// What became of the jobs of a transfer. Of those that it met, each is counted once: as taken in, as there already, or as
/// held up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Account {
    /// Those that it met and that were to go.
    pub met: u64,
    /// Those that the other store took in.
    pub taken: u64,
    /// Those that the other store had already, as from an earlier run that was cut off.
    pub there: u64,
    /// Those that stay because another job holds their unique key at the other store, which is [named](Self::holders).
    pub held: u64,
    /// The first hundred of these: the job, and the job that holds its key.
    pub holders: Vec<(JobId, JobId)>,
    /// Those that were withdrawn by an earlier run which was cut off; they are counted as met, too.
    pub resumed: u64,
    /// Log lines that went along.
    pub lines: u64,
    /// Those that ran when it last looked, and stay until they have ended.
    pub running: u64,
    /// Those that wait in flows that go on, and stay until these have ended.
    pub in_flows: u64,
    /// Queues whose settings went along.
    pub queues: u64,
    /// Schedules that went along.
    pub schedules: u64,
    /// Flows that went along.
    pub flows: u64,
    /// Schedules that stay because the other store has one of the name.
    pub schedules_held: Vec<String>,
}

impl Account {
    /// Those that need not be looked at again.
    pub fn gone(&self) -> u64 {
        self.taken + self.there
    }

    /// Those that will go later.
    pub fn busy(&self) -> u64 {
        self.running + self.in_flows
    }

    /// Whether each job that it met is accounted for.
    pub fn adds_up(&self) -> bool {
        self.met == self.taken + self.there + self.held
    }

    /// Adds what a later run did, whose picture of what stays counts.
    pub fn add(&mut self, later: Self) {
        self.met += later.met;
        self.taken += later.taken;
        self.there += later.there;
        self.held = later.held;
        self.holders = later.holders;
        self.resumed += later.resumed;
        self.lines += later.lines;
        (self.running, self.in_flows) = (later.running, later.in_flows);
        self.queues += later.queues;
        self.schedules += later.schedules;
        self.flows += later.flows;
        self.schedules_held = later.schedules_held;
    }

    pub(super) fn hold(&mut self, job: JobId, holder: JobId) {
        self.held += 1;
        if self.holders.len() < NAMED {
            self.holders.push((job, holder));
        }
    }
}
