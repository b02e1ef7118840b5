//! I11: one job at a time holds a unique key, and who is refused is told of a job that does.

use std::collections::BTreeMap;

use leasehold_core::backend::Answer;
use leasehold_core::{JobId, Unique, UniqueKey, UniqueScope};

use super::World;
use super::hours::{Hour, nanos_of};
use super::model::{Enqueued, Kind, Model, Story};
use crate::history::event::{ChangeKind, Entry, Fate};
use crate::history::verdict::{About, Invariant};

/// The time in which a job certainly holds its key.
#[derive(Debug, Clone)]
struct Holding {
    job: JobId,
    ops: Vec<usize>,
    /// It took the key between these moments.
    i: u64,
    c: u64,
    /// It may have let go of it from here on.
    end: u64,
    /// It certainly holds it up to this hour, where it holds it for a period.
    until: Option<Hour>,
}

impl Holding {
    fn lasts(&self, model: &Model<'_>, t: u64) -> bool {
        let hours = &model.hours;
        t < self.end && self.until.is_none_or(|until| hours.surely_within(hours.latest(t), until))
    }
}

impl World<'_, '_> {
    pub(super) fn keys(&mut self) {
        let mut keys: BTreeMap<&UniqueKey, Vec<Holding>> = BTreeMap::new();
        for (job, story) in &self.model.stories {
            let Some(unique) = unique(story) else { continue };
            keys.entry(&unique.key).or_default().extend(holdings(self.model, *job, story, unique));
        }
        for (key, mut holdings) in keys {
            holdings.sort_by_key(|holding| holding.i);
            self.no_two_hold(key, &holdings);
        }
        self.nobody_is_refused_wrongly();
    }

    /// I11: while a job certainly holds a key, no other takes it.
    fn no_two_hold(&mut self, key: &UniqueKey, holdings: &[Holding]) {
        let model = self.model;
        for (at, first) in holdings.iter().enumerate() {
            let others = holdings[at + 1..].iter().take_while(|other| other.i < first.end);
            for second in others.filter(|second| second.job != first.job) {
                let after = first.c < second.i && first.lasts(model, second.c);
                let both = first.c.max(second.c);
                if after || first.lasts(model, both) && second.lasts(model, both) {
                    let why = format!("jobs {} and {} held it at once", first.job, second.job);
                    let ops = first.ops.iter().chain(&second.ops).copied();
                    self.find(Invariant::I11, About::UniqueKey(key.clone()), why, ops);
                }
            }
        }
    }

    /// I11: a producer is refused only for a job that may hold the key.
    fn nobody_is_refused_wrongly(&mut self) {
        let model = self.model;
        for story in model.stories.values() {
            let Some(unique) = unique(story) else { continue };
            for put in story.puts.iter().filter(|put| put.entry == Some(Entry::Held)) {
                let holder = put.there.and_then(|holder| model.stories.get(&holder));
                let why = match holder {
                    Some(holder) if may_hold(model, holder, unique, put) => continue,
                    _ => format!("a job was refused for {:?}, which did not hold it", put.there),
                };
                let others = holder.iter().flat_map(|holder| holder.puts.iter().map(|put| put.op));
                let ops: Vec<usize> = others.chain([put.op]).collect();
                self.find(Invariant::I11, About::UniqueKey(unique.key.clone()), why, ops);
            }
        }
    }
}

/// The key that a job was enqueued with, if it was always the same.
fn unique<'h>(story: &Story<'h>) -> Option<&'h Unique> {
    let mut uniques = story.puts.iter().map(|put| put.put.unique.as_ref());
    let first = uniques.next().flatten()?;
    uniques.all(|other| other == Some(first)).then_some(first)
}

fn holdings(model: &Model<'_>, job: JobId, story: &Story<'_>, unique: &Unique) -> Vec<Holding> {
    let until = |i: u64| match unique.scope {
        UniqueScope::For(span) => Some(model.hours.earliest(i).plus(nanos_of(span))),
        UniqueScope::UntilClaimed | UniqueScope::UntilFinished => None,
    };
    let holding = |ops: Vec<usize>, i: u64, c: u64| Holding {
        job,
        ops,
        i,
        c,
        end: first_end(model, story, unique.scope, i),
        until: until(i),
    };
    let taken = story.puts.iter().filter(|put| put.may_be_taken_in());
    let (i, ops) = (taken.clone().map(|put| put.i).min(), taken.clone().map(|put| put.op).collect());
    let c = taken.filter(|put| put.entry.is_some()).map(|put| put.c).min();
    let mut holdings = Vec::new();
    if let (Some(i), Some(c)) = (i, c) {
        holdings.push(holding(ops, i, c));
    }
    let requeued = story.changes.iter().filter(|change| {
        unique.scope == UniqueScope::UntilFinished
            && change.action == ChangeKind::Requeue
            && change.fate == Some(Fate::Applied)
    });
    holdings.extend(requeued.map(|change| holding(vec![change.op], change.i, change.c)));
    holdings
}

/// When a job that takes its key no sooner than this may first have let go of it.
fn first_end(model: &Model<'_>, story: &Story<'_>, scope: UniqueScope, from: u64) -> u64 {
    let cancelled = story.changes.iter().any(|change| change.action == ChangeKind::Cancel);
    let settled = story.writes.iter().filter(|write| {
        let tried_again = match write.write.verdict.as_str() {
            "release" => true,
            "retry" => !story.is_last_attempt(write.write.token),
            _ => false,
        };
        matches!(write.kind, Kind::Settle | Kind::Recover)
            && write.answer != Some(Answer::Lost)
            && (cancelled || !tried_again)
    });
    let settled = settled.map(|write| (write.i, write.c)).filter(|_| scope == UniqueScope::UntilFinished);
    let changed = story.changes.iter().filter(|change| {
        let cancels = change.action.cancels() && change.fate != Some(Fate::Requested);
        change.action == ChangeKind::Delete || cancels && !matches!(scope, UniqueScope::For(_))
    });
    let changed = changed.map(|change| (change.i, change.c));
    let claimed = (scope == UniqueScope::UntilClaimed).then(|| first_claim(model, story));
    let ends = settled.chain(changed).chain(claimed);
    ends.filter(|(_, c)| *c > from).map(|(i, _)| i).min().unwrap_or(u64::MAX)
}

/// When a job can first have been claimed: by the first grant, if that is of its first attempt.
fn first_claim(model: &Model<'_>, story: &Story<'_>) -> (u64, u64) {
    let first = story.grants.iter().find(|grant| grant.given.job.attempt == 1);
    let lost = model.lost_claims.iter().map(|lost| lost.i).min().unwrap_or(u64::MAX);
    first.map_or((lost, u64::MAX), |grant| (grant.i, u64::MAX))
}

/// Whether a job may hold the key at some moment of an enqueue that was refused for it.
fn may_hold(model: &Model<'_>, holder: &Story<'_>, key: &Unique, refused: &Enqueued<'_>) -> bool {
    let Some(own) = unique(holder).filter(|own| own.key == key.key) else { return false };
    let known = holder.puts.iter().any(|put| put.i < refused.c && !put.failed);
    let again = |action| matches!(action, ChangeKind::Requeue | ChangeKind::Delete);
    let again = holder.changes.iter().any(|change| again(change.action) && change.i < refused.c);
    let over = match own.scope {
        UniqueScope::UntilClaimed => holder.grants.iter().any(|grant| grant.c < refused.i),
        UniqueScope::UntilFinished => holder.writes.iter().any(|write| {
            let ends = !matches!(write.write.verdict.as_str(), "retry" | "release");
            let settled = matches!(write.kind, Kind::Settle | Kind::Recover) && ends;
            settled && write.answer == Some(Answer::Applied) && write.c < refused.i
        }),
        UniqueScope::For(span) => {
            let taken = holder.puts.iter().filter(|put| put.entry.is_some()).map(|put| put.c).min();
            let hours = &model.hours;
            taken.is_some_and(|c| {
                let until = hours.latest(c).plus(nanos_of(span));
                hours.surely_after(hours.earliest(refused.i), until)
            })
        }
    };
    known && (again || !over)
}
