use std::collections::BTreeMap;
use std::fmt;

use leasehold_core::{JobId, LeaseToken};

use super::checker::{Op, Outcome};
use super::event::{Call, Reply};

/// What a history may never show.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumIter,
    strum::VariantArray,
)]
pub enum Invariant {
    /// An acknowledged job is lost, or one whose enqueue failed is there.
    I1,
    /// A job is invented or altered.
    I2,
    /// A job is given out, or taken back, while somebody certainly holds it; an attempt is granted twice.
    I3,
    /// A write is accepted from somebody who is no longer the holder, or the holder is refused.
    I4,
    /// A job that has ended lives on, or ends twice.
    I5,
    /// Attempts go back, skip or exceed their number.
    I6,
    /// A handler runs without a lease, or more often than can be explained.
    I7,
    /// A retry comes too soon or never.
    I8,
    /// A job is given out before its time.
    I9,
}

/// One invariant that one job broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which.
    pub invariant: Invariant,
    /// The job.
    pub job: JobId,
    /// How.
    pub why: String,
    pub(crate) ops: Vec<usize>,
}

/// How much happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Tally {
    /// Lines.
    pub events: usize,
    /// Calls.
    pub calls: usize,
    /// Calls of which nothing is known.
    pub unknown: usize,
    /// Calls that failed for certain.
    pub failed: usize,
    /// Jobs.
    pub jobs: usize,
    /// Enqueues that were acknowledged.
    pub enqueued: usize,
    /// Leases given out.
    pub grants: usize,
    /// Leases taken back.
    pub losses: usize,
    /// Settlements that were refused because the lease was lost.
    pub refused: usize,
    /// Handlers started.
    pub starts: usize,
    /// Jobs that have ended.
    pub ended: usize,
    /// Faults injected.
    pub faults: usize,
}

/// What a checker says of a history.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The broken invariants.
    pub findings: Vec<Finding>,
    /// What is wrong with the history itself: the harness is at fault, and not the store.
    pub harness: Vec<String>,
    /// Why the history proves nothing, if it does not.
    pub vacuous: Vec<String>,
    /// How much happened.
    pub tally: Tally,
    story: String,
}

impl Verdict {
    pub(crate) fn new(
        findings: Vec<Finding>,
        harness: Vec<String>,
        vacuous: Vec<String>,
        tally: Tally,
        ops: &[Op<'_>],
    ) -> Self {
        // The shortest story is the one that is understood first.
        let shortest = findings.iter().min_by_key(|finding| (finding.ops.len(), finding.invariant));
        let story = shortest.map(|finding| tell(finding, ops)).unwrap_or_default();
        Self { findings, harness, vacuous, tally, story }
    }

    /// Whether the history is whole, shows something, and breaks nothing.
    pub fn is_valid(&self) -> bool {
        self.findings.is_empty() && self.harness.is_empty() && self.vacuous.is_empty()
    }

    /// How often each invariant was broken.
    pub fn broken(&self) -> BTreeMap<Invariant, usize> {
        let mut broken = BTreeMap::new();
        for finding in &self.findings {
            *broken.entry(finding.invariant).or_default() += 1;
        }
        broken
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { calls, jobs, grants, losses, unknown, ended, starts, .. } = self.tally;
        writeln!(
            f,
            "{calls} calls ({unknown} unknown), {jobs} jobs, {grants} grants, {losses} leases lost, \
             {starts} runs, {ended} jobs ended"
        )?;
        for wrong in &self.harness {
            writeln!(f, "harness: {wrong}")?;
        }
        for why in &self.vacuous {
            writeln!(f, "proves nothing: {why}")?;
        }
        for (invariant, times) in self.broken() {
            writeln!(f, "{invariant} broken {times} times")?;
        }
        f.write_str(&self.story)
    }
}

/// Tells how an invariant came to be broken: all calls that concern the job, the offending ones marked.
fn tell(finding: &Finding, ops: &[Op<'_>]) -> String {
    const LINES: usize = 60;
    let first = ops.iter().map(|op| op.i).min().unwrap_or(0);
    let mut lines: Vec<String> = Vec::new();
    for (index, op) in ops.iter().enumerate() {
        let Some(part) = part(op, finding.job) else { continue };
        let mark = if finding.ops.contains(&index) { '>' } else { ' ' };
        let at = |t: u64| match t {
            u64::MAX => "?".to_owned(),
            t => format!("{:.3}", (t.saturating_sub(first)) as f64 / 1e6),
        };
        lines.push(format!("{mark} {:>10} .. {:<10} {:8} {part}\n", at(op.i), at(op.c), op.p));
    }
    let dropped = lines.len().saturating_sub(LINES);
    let marked: Vec<String> = if dropped > 0 {
        lines.into_iter().filter(|line| line.starts_with('>')).take(LINES).collect()
    } else {
        lines
    };
    let rest = if dropped > 0 { "  (only the offending calls are shown)\n" } else { "" };
    format!(
        "{} of job {}: {}\n  times in ms: begun .. answered\n{}{rest}",
        finding.invariant,
        finding.job,
        finding.why,
        marked.concat()
    )
}

/// What a call has to do with a job; none if nothing.
fn part(op: &Op<'_>, job: JobId) -> Option<String> {
    let reply = match op.outcome {
        Outcome::Ok(reply) => Some(reply),
        Outcome::Failed | Outcome::Unknown => None,
    };
    let otherwise = match op.outcome {
        Outcome::Failed => "failed",
        Outcome::Ok(_) | Outcome::Unknown => "unknown",
    };
    let name = op.call.name();
    match (op.call, reply) {
        (Call::Enqueue(puts), reply) => {
            let at = puts.iter().position(|put| put.job == job)?;
            let entry = match reply {
                Some(Reply::Enqueue(answers)) => answers.get(at).map(|(_, entry)| format!("{entry:?}")),
                _ => None,
            };
            Some(format!("{name} = {}", entry.unwrap_or_else(|| otherwise.into())))
        }
        (Call::Claim(_), Some(Reply::Claim(jobs))) => {
            let given = jobs.iter().find(|given| given.job.job == job)?;
            let (attempt, lease) = (given.job.attempt, given.lease);
            Some(format!("{name} = attempt {attempt}, token {}, lease {lease} ms", short(given.token)))
        }
        (Call::Renew(writes) | Call::Settle(writes) | Call::Recover(writes) | Call::Log(writes), reply) => {
            let at = writes.iter().position(|write| write.job == job)?;
            let write = &writes[at];
            let answer = match reply {
                Some(Reply::Renew(a) | Reply::Settle(a) | Reply::Recover(a) | Reply::Log(a)) => a.get(at),
                _ => None,
            };
            let answer = answer.map_or_else(|| otherwise.to_owned(), ToString::to_string);
            let (token, span) = (short(write.token), write.span);
            Some(format!("{name} {} {span} ms, token {token} = {answer}", write.verdict))
        }
        (Call::Amend(change), reply) => {
            let changed = match reply {
                Some(Reply::Amend(jobs)) => jobs.contains(&job).then_some("applied")?,
                _ if change.jobs.as_ref().is_none_or(|jobs| jobs.contains(&job)) => otherwise,
                _ => return None,
            };
            Some(format!("{name} {:?} = {changed}", change.action))
        }
        (Call::Look, Some(Reply::Look(jobs))) => {
            let seen = jobs.iter().find(|seen| seen.job == job)?;
            Some(format!("look = {}, attempt {}", seen.state, seen.attempt))
        }
        _ => None,
    }
}

/// Enough of a token to tell it from others.
fn short(token: LeaseToken) -> String {
    token.to_string().chars().take(8).collect()
}
