//! I19: the lines of a log are those that were written, each once, in an order that stays.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_core::LeaseToken;
use leasehold_core::backend::Answer;

use super::Judge;
use super::model::{Fenced, Kind, Model, Outcome};
use crate::history::event::{Call, ChangeKind, Line, Reading, Reply};
use crate::history::verdict::Invariant;

/// An answered reading of a log.
struct Read<'h> {
    op: usize,
    i: u64,
    c: u64,
    reading: Reading,
    lines: &'h [Line],
    gap: bool,
}

/// The place of a line: its lease, and its position under it.
type Place = (LeaseToken, u64);

/// By what lines say, at which places they may stand.
type Places = BTreeMap<u64, BTreeSet<Place>>;

impl Judge<'_, '_> {
    pub(super) fn logs(&mut self) {
        // The log of an earlier life may be gone with its job, or still be there.
        let (model, story) = (self.model, self.story);
        let removed = story.changes.iter().any(|change| change.action == ChangeKind::Delete);
        let reads: Vec<Read<'_>> = story.readings.iter().filter_map(|op| read(model, *op)).collect();
        if reads.is_empty() || removed || story.lives() > 1 {
            return;
        }
        self.sequences_stay(&reads);
        for read in &reads {
            self.only_what_was_written(read);
            self.all_that_was_written(read);
        }
    }

    /// Sequences rise within an answer, and name the same line in all of them.
    fn sequences_stay(&mut self, reads: &[Read<'_>]) {
        let mut known: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        for read in reads {
            let mut before = read.reading.after;
            for line in read.lines {
                if line.sequence <= before {
                    let why = format!("line {} of its log was told after line {before}", line.sequence);
                    self.find(Invariant::I19, why, [read.op]);
                    return;
                }
                before = line.sequence;
                let (says, first) = *known.entry(line.sequence).or_insert((line.says, read.op));
                if says != line.says {
                    let why = format!("line {} of its log was told to say two things", line.sequence);
                    self.find(Invariant::I19, why, [first, read.op]);
                    return;
                }
            }
        }
    }

    /// No line is told more often than it may have been written by then.
    fn only_what_was_written(&mut self, read: &Read<'_>) {
        // One that arrived twice may have been written, and answered when its lease was lost.
        let written = |answer| answer != Some(Answer::Lost) || self.rules.repeats_inside;
        let asked = |append: &&Fenced<'_>| written(append.answer) && append.i < read.c;
        let (places, ops) = self.places(asked);
        for (says, told) in told(read) {
            let written = places.get(&says).map_or(0, BTreeSet::len);
            if told > written {
                let why = format!("its log told a line {told} times that was written {written} times");
                self.find(Invariant::I19, why, ops.into_iter().chain([read.op]));
                return;
            }
        }
    }

    /// A reading from the beginning has every line that was acknowledged before it, or says that some are gone.
    fn all_that_was_written(&mut self, read: &Read<'_>) {
        if read.gap || read.reading.after > 0 || read.lines.len() >= read.reading.limit {
            return;
        }
        let acknowledged = |append: &&Fenced<'_>| {
            matches!(append.answer, Some(Answer::Applied | Answer::AlreadyApplied)) && append.c < read.i
        };
        let (places, ops) = self.places(acknowledged);
        let told = told(read);
        for (says, places) in places {
            let told = told.get(&says).copied().unwrap_or(0);
            if told < places.len() {
                let why = format!("its log told a line {told} times that was written {} times", places.len());
                self.find(Invariant::I19, why, ops.into_iter().chain([read.op]));
                return;
            }
        }
    }

    /// Where lines may stand by some of the appends; and these.
    fn places(&self, which: impl Fn(&&Fenced<'_>) -> bool) -> (Places, Vec<usize>) {
        let (mut places, mut ops) = (Places::new(), Vec::new());
        let appends = self.story.writes.iter().filter(|write| write.kind == Kind::Log).filter(which);
        for append in appends {
            ops.push(append.op);
            let Some(lines) = &append.write.append else { continue };
            for (says, position) in lines.lines.iter().zip(lines.position..) {
                places.entry(*says).or_default().insert((append.write.token, position));
            }
        }
        (places, ops)
    }
}

fn read<'h>(model: &Model<'h>, op: usize) -> Option<Read<'h>> {
    let call = &model.ops[op];
    match (call.call, call.outcome) {
        (Call::ReadLog(reading), Outcome::Ok(Reply::ReadLog { lines, gap })) => {
            Some(Read { op, i: call.i, c: call.c, reading: *reading, lines, gap: *gap })
        }
        _ => None,
    }
}

/// How often each line was told.
fn told(read: &Read<'_>) -> BTreeMap<u64, usize> {
    let mut told = BTreeMap::new();
    for line in read.lines {
        *told.entry(line.says).or_default() += 1;
    }
    told
}
