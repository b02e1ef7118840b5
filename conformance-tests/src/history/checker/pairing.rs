//! Which answer belongs to which call.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Op, Outcome};
use crate::history::event::{Event, What};

/// Joins the beginnings of calls with their ends.
pub(super) fn pair<'h>(events: &'h [Event], harness: &mut Vec<String>) -> Vec<Op<'h>> {
    let mut ops: Vec<Op<'h>> = Vec::new();
    let mut open: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    let mut known: BTreeSet<(&str, u64)> = BTreeSet::new();
    let mut killed: BTreeSet<&str> = BTreeSet::new();
    for event in events {
        let key = (event.p.as_str(), event.op);
        if killed.contains(key.0) {
            harness.push(format!("{} goes on after it was killed", event.p));
        }
        let outcome = match &event.what {
            What::Invoke { call } => {
                if !known.insert(key) {
                    harness.push(format!("{} has two calls of the number {}", event.p, event.op));
                }
                open.insert(key, ops.len());
                let op = Op {
                    p: key.0,
                    number: event.op,
                    call,
                    i: event.t,
                    c: u64::MAX,
                    outcome: Outcome::Unknown,
                };
                ops.push(op);
                continue;
            }
            What::Ok { reply } => Outcome::Ok(reply),
            What::Fail { .. } => Outcome::Failed,
            What::Info { .. } => Outcome::Unknown,
            What::Fault(fault) => {
                killed.extend(fault.kills.as_deref());
                continue;
            }
            _ => continue,
        };
        match open.remove(&key) {
            Some(index) => {
                let known = !matches!(outcome, Outcome::Unknown);
                ops[index].c = if known { event.t } else { u64::MAX };
                ops[index].outcome = outcome;
            }
            None => harness.push(format!("{} has an answer to no call, number {}", event.p, event.op)),
        }
    }
    ops
}
