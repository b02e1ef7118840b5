use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::job::{Due, Payload};
use crate::limits;
use crate::time::Timestamp;

/// Consecutive jobs of a flow: from the first one on, up to and without the second.
pub(crate) type Span = (u32, u32);

/// Which jobs of a flow depend on which. They are numbered in the order in which they were added, and each depends on lower
/// numbers alone: so there is no cycle.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    rows: Vec<Row>,
    /// The number of each row's first job.
    starts: Vec<u32>,
    size: u32,
    links: usize,
}

/// Consecutive jobs that depend on the same ones, and so are let go or cancelled together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    /// How many.
    #[serde(rename = "n")]
    pub(crate) jobs: u32,
    /// Jobs that are to succeed before.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) after: Vec<Span>,
    /// Jobs that are to end before.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) after_end: Vec<Span>,
    /// Whether they go on waiting when one that is to succeed did not.
    #[serde(rename = "w", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) waits: bool,
    /// How long after they were let go they are due, in milliseconds.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(crate) delay_ms: Option<u64>,
    /// When they are due, once they were let go.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Timestamp>,
}

impl Row {
    /// When they are due, if they are let go now.
    pub(crate) fn due(&self) -> Due {
        match (self.delay_ms, self.at) {
            (Some(millis), _) => Due::In(Duration::from_millis(millis)),
            (None, Some(at)) => Due::At(at),
            (None, None) => Due::Now,
        }
    }

    /// What they depend on, and whether it is to succeed.
    pub(crate) fn links(&self) -> impl Iterator<Item = (Span, bool)> + '_ {
        let after = self.after.iter().map(|span| (*span, true));
        after.chain(self.after_end.iter().map(|span| (*span, false)))
    }

    /// The same, by number.
    pub(crate) fn link(&self, number: usize) -> Option<(Span, bool)> {
        let end = || Some((*self.after_end.get(number - self.after.len())?, false));
        self.after.get(number).map(|span| (*span, true)).or_else(end)
    }

    fn is_like(&self, other: &Self) -> bool {
        let Self { jobs: _, after, after_end, waits, delay_ms, at } = self;
        (after, after_end, waits, delay_ms, at)
            == (&other.after, &other.after_end, &other.waits, &other.delay_ms, &other.at)
    }
}

impl Plan {
    /// How many jobs there are.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The jobs of a row; none of one that is not there.
    pub(crate) fn members(&self, row: usize) -> Range<u32> {
        let start = self.starts.get(row).copied().unwrap_or(self.size);
        start..start + self.rows.get(row).map_or(0, |row| row.jobs)
    }

    /// The row that a job is in.
    pub(crate) fn row_of(&self, job: u32) -> usize {
        self.starts.partition_point(|start| *start <= job).saturating_sub(1)
    }

    /// The jobs that a job depends on, from the lowest number on.
    pub(crate) fn parents(&self, job: u32) -> Vec<Span> {
        let row = self.rows.get(self.row_of(job));
        normal(row.into_iter().flat_map(Row::links).map(|(span, _)| span).collect())
    }

    /// Adds jobs that depend on others that are there.
    ///
    /// # Errors
    /// [`TooLarge`](crate::ErrorKind::TooLarge) beyond the [limits](crate::limits::FLOW_JOBS).
    pub(crate) fn push(&mut self, row: Row) -> Result<()> {
        let size = self.size.saturating_add(row.jobs);
        let most = limits::FLOW_JOBS as usize;
        if size as usize > most {
            return Err(Error::too_large("the flow", size as usize, most, "jobs"));
        }
        let last = self.rows.last_mut().filter(|last| last.is_like(&row));
        if let Some(last) = last {
            last.jobs += row.jobs;
        } else {
            self.links += row.after.len() + row.after_end.len();
            if self.links > limits::FLOW_LINKS {
                return Err(Error::too_large("the flow", self.links, limits::FLOW_LINKS, "links"));
            }
            self.starts.push(self.size);
            self.rows.push(row);
        }
        self.size = size;
        Ok(())
    }

    /// The rows, written down, in parts of at most so many bytes each: what one job depends on may take more than one.
    pub(crate) fn parts(&self, bytes: usize) -> Result<Vec<Payload>> {
        let rows = Payload::json(&self.rows)?;
        Ok(rows.as_bytes().chunks(bytes.max(1)).map(|part| Payload::from(part.to_vec())).collect())
    }

    /// What [`parts`](Self::parts) makes parts of, from all of them.
    pub(crate) fn rows_of(parts: &[Payload]) -> Result<Vec<Row>> {
        Payload::from(parts.iter().map(Payload::as_bytes).collect::<Vec<_>>().concat()).parse()
    }

    /// The plan of these rows.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if they are no plan of so many jobs.
    pub(crate) fn of(rows: impl IntoIterator<Item = Row>, size: u32) -> Result<Self> {
        let mut plan = Self::default();
        for row in rows {
            let start = plan.size;
            if row.links().any(|((from, to), _)| from >= to || to > start) {
                return Err(Error::corrupt("a job of a flow depends on one that is not before it"));
            }
            plan.push(row).map_err(Error::corrupt)?;
        }
        if plan.size != size {
            return Err(Error::corrupt(format!("a flow of {size} jobs has a plan of {}", plan.size)));
        }
        Ok(plan)
    }
}

/// The same jobs, each once, in as few spans as can be.
pub(crate) fn normal(mut spans: Vec<Span>) -> Vec<Span> {
    spans.retain(|(from, to)| from < to);
    spans.sort_unstable();
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for (from, to) in spans {
        match merged.last_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(jobs: u32, after: &[Span]) -> Row {
        Row { jobs, after: after.to_vec(), ..Row::default() }
    }

    #[test]
    fn like_jobs_share_a_row() {
        let mut plan = Plan::default();
        plan.push(after(1, &[])).unwrap();
        for _ in 0..100_000 {
            plan.push(after(1, &[(0, 1)])).unwrap();
        }
        plan.push(after(1, &[(1, 100_001)])).unwrap();
        assert_eq!((plan.rows.len(), plan.size()), (3, 100_002));
        assert_eq!(
            (plan.row_of(0), plan.row_of(1), plan.row_of(100_000), plan.row_of(100_001)),
            (0, 1, 1, 2)
        );
        assert_eq!((plan.members(1), plan.members(3)), (1..100_001, 100_002..100_002));
        assert_eq!(plan.parents(100_001), [(1, 100_001)]);
    }

    #[test]
    fn a_plan_comes_back_from_its_parts() {
        let mut plan = Plan::default();
        plan.push(after(2, &[])).unwrap();
        for job in 2..10_000 {
            plan.push(after(1, &[(job / 3, job / 3 + 1), (job / 2, job / 2 + 1)])).unwrap();
        }
        let parts = plan.parts(64 << 10).unwrap();
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= 64 << 10));
        assert_eq!(Plan::of(Plan::rows_of(&parts).unwrap(), 10_000).unwrap(), plan);
        let bytes: usize = parts.iter().map(Payload::len).sum();
        assert!(bytes < 400_000, "two parents for each of 10,000 jobs in {bytes} bytes");
    }

    #[test]
    fn what_one_job_depends_on_may_take_several_parts() {
        let mut plan = Plan::default();
        plan.push(after(200_000, &[])).unwrap();
        let others: Vec<Span> = (0..100_000).map(|job| (job * 2, job * 2 + 1)).collect();
        plan.push(after(1, &others)).unwrap();
        let parts = plan.parts(256 << 10).unwrap();
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= 256 << 10));
        assert_eq!(Plan::of(Plan::rows_of(&parts).unwrap(), 200_001).unwrap(), plan);
        assert!(Plan::rows_of(&parts[1..]).is_err());
    }

    #[test]
    fn rows_that_are_no_plan_are_not_taken_for_one() {
        for (rows, size) in [
            (vec![after(1, &[(0, 1)])], 1),
            (vec![after(1, &[])], 2),
            (vec![after(1, &[]), after(1, &[(1, 1)])], 2),
        ] {
            assert_eq!(Plan::of(rows, size).unwrap_err().kind(), crate::ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_flow_has_its_bounds() {
        let mut plan = Plan::default();
        plan.push(after(limits::FLOW_JOBS, &[])).unwrap();
        assert_eq!(plan.push(after(1, &[])).unwrap_err().kind(), crate::ErrorKind::TooLarge);
    }
}
