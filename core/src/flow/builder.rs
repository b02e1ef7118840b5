use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::plan::{Plan, Row, Span, normal};
use crate::error::{Error, Result};
use crate::id::FlowId;
use crate::job::{Due, IntoJob, Keep, NewJob, Retention};
use crate::layer::check;
use crate::name::RegisterName;

/// The header of a job that says which flow it is of.
pub const HEADER: &str = "leasehold-flow";

/// Jobs that wait for jobs, to be enqueued by [`Flows::enqueue`](crate::client::Flows::enqueue).
///
/// A job is added after those that it waits for, so no flow has a cycle.
///
/// ```
/// use leasehold_core::NewJob;
/// use leasehold_core::flow::Flow;
///
/// # fn main() -> leasehold_core::Result<()> {
/// let job = |kind: &str| NewJob::dynamic(kind, &());
/// let mut flow = Flow::new("report")?;
/// let fetch = flow.add(job("fetch")?)?;
/// let parts = flow.after(fetch).add_all((0..10).map(|_| job("part")).collect::<Result<Vec<_>, _>>()?)?;
/// flow.after(parts).add(job("merge")?)?;
/// flow.after_end(parts).add(job("tell")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Flow {
    id: FlowId,
    pub(crate) name: RegisterName,
    pub(crate) jobs: Vec<NewJob>,
    pub(crate) plan: Plan,
    pub(crate) retention: Retention,
    on_parent_failure: OnParentFailure,
}

/// What becomes of a job when one that it waits for to succeed failed, was cancelled, or is there no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnParentFailure {
    /// It is cancelled, for the reason [`Dependency`](crate::Reason::Dependency), as soon as that is known; and so are those
    /// that wait for it.
    #[default]
    Cancel,
    /// It goes on waiting, until somebody requeues the other one and that succeeds. Its flow does not end before.
    Wait,
    /// It runs anyway, once all that it waits for have ended.
    Run,
}

/// A job of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Step {
    flow: FlowId,
    index: u32,
}

impl Step {
    /// Its number in the flow, from 0.
    pub fn index(self) -> u32 {
        self.index
    }
}

/// Jobs of a flow that were added one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    flow: FlowId,
    span: Span,
}

impl Group {
    /// Its jobs, in the order in which they were added.
    pub fn steps(self) -> impl ExactSizeIterator<Item = Step> + DoubleEndedIterator {
        let flow = self.flow;
        // A range of `u32` has no exact size; this one is of a flow, and so has.
        (self.span.0 as usize..self.span.1 as usize).map(move |index| Step { flow, index: index as u32 })
    }
}

impl From<Step> for Group {
    fn from(Step { flow, index }: Step) -> Self {
        Self { flow, span: (index, index + 1) }
    }
}

/// Jobs of a flow that others wait for: a [`Step`], a [`Group`], or several of either.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parents(Vec<Group>);

impl<G: Into<Group>> From<G> for Parents {
    fn from(group: G) -> Self {
        Self(vec![group.into()])
    }
}

impl<G: Into<Group>> From<Vec<G>> for Parents {
    fn from(groups: Vec<G>) -> Self {
        groups.into_iter().collect()
    }
}

impl<G: Into<Group>, const N: usize> From<[G; N]> for Parents {
    fn from(groups: [G; N]) -> Self {
        groups.into_iter().collect()
    }
}

impl<G: Into<Group>> FromIterator<G> for Parents {
    fn from_iter<I: IntoIterator<Item = G>>(groups: I) -> Self {
        Self(groups.into_iter().map(Into::into).collect())
    }
}

impl Flow {
    /// A flow without jobs. Its name is for people; flows may share it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is no valid name.
    pub fn new<N>(name: N) -> Result<Self>
    where
        N: TryInto<RegisterName>,
        Error: From<N::Error>,
    {
        Ok(Self {
            id: FlowId::generate(),
            name: name.try_into()?,
            jobs: Vec::new(),
            plan: Plan::default(),
            retention: Retention::default(),
            on_parent_failure: OnParentFailure::default(),
        })
    }

    /// Its id for ever: enqueuing the same flow again leaves one.
    pub fn id(&self) -> FlowId {
        self.id
    }

    /// How many jobs it has.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Sets what becomes of jobs that are added from now on when one that they wait for did not succeed. Defaults to
    /// [`OnParentFailure::Cancel`].
    #[must_use]
    pub fn on_parent_failure(mut self, policy: OnParentFailure) -> Self {
        self.on_parent_failure = policy;
        self
    }

    /// Sets how long the flow is kept once it has ended, and all its jobs with it, by how it ended. Defaults to
    /// [`Retention::default`]. The retention of its jobs does not count.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Keeps the ended flow and its jobs for this long, however it ended.
    #[must_use]
    pub fn keep(self, keep: Keep) -> Self {
        self.retention(Retention { succeeded: keep, failed: keep, cancelled: keep })
    }

    /// Begins a job that runs once these have succeeded.
    pub fn after(&mut self, parents: impl Into<Parents>) -> Adding<'_> {
        self.adding().after(parents)
    }

    /// Begins a job that runs once these have ended, however they did: a callback.
    pub fn after_end(&mut self, parents: impl Into<Parents>) -> Adding<'_> {
        self.adding().after_end(parents)
    }

    /// Adds a job that waits for no other.
    ///
    /// # Errors
    /// Those of [`Adding::add`].
    pub fn add(&mut self, job: impl IntoJob) -> Result<Step> {
        self.adding().add(job)
    }

    /// Adds jobs that wait for no other.
    ///
    /// # Errors
    /// Those of [`Adding::add`].
    pub fn add_all<J: IntoJob>(&mut self, jobs: impl IntoIterator<Item = J>) -> Result<Group> {
        self.adding().add_all(jobs)
    }

    /// Adds jobs that run one after the other.
    ///
    /// # Errors
    /// Those of [`Adding::add`].
    pub fn chain<J: IntoJob>(&mut self, jobs: impl IntoIterator<Item = J>) -> Result<Group> {
        self.adding().chain(jobs)
    }

    fn adding(&mut self) -> Adding<'_> {
        let policy = self.on_parent_failure;
        Adding { flow: self, after: Vec::new(), after_end: Vec::new(), policy }
    }

    fn push(
        &mut self,
        job: NewJob,
        after: &[Span],
        after_end: &[Span],
        policy: OnParentFailure,
    ) -> Result<()> {
        let mut row = Row { jobs: 1, after: after.to_vec(), after_end: after_end.to_vec(), ..Row::default() };
        match policy {
            OnParentFailure::Cancel => {}
            OnParentFailure::Wait => row.waits = !row.after.is_empty(),
            OnParentFailure::Run => row.after_end.append(&mut row.after),
        }
        (row.after, row.after_end) = (normal(row.after), normal(row.after_end));
        let mut job = job;
        // What the store is told first is that it is parked: what it would refuse later would hold up the whole flow.
        check::due(job.due)?;
        match job.due {
            Due::Now => {}
            Due::In(delay) => {
                row.delay_ms = u64::try_from(delay.as_millis()).ok().filter(|millis| *millis > 0);
            }
            Due::PARKED => {
                return Err(Error::invalid(
                    "a job of a flow that is parked would never run; leave its due time to the flow",
                ));
            }
            Due::At(at) => row.at = Some(at),
        }
        if let Some(unique) = &job.options.unique {
            return Err(Error::invalid(format!(
                "a job of a flow has no unique key, since another job could be enqueued in its place; this one has {:?}",
                unique.key
            )));
        }
        job.due = Due::PARKED;
        self.plan.push(row)?;
        self.jobs.push(job);
        Ok(())
    }

    /// These of its jobs, by number.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if not all of them are there.
    pub fn group(&self, jobs: Range<u32>) -> Result<Group> {
        if jobs.start > jobs.end || jobs.end > self.plan.size() {
            let size = self.plan.size();
            return Err(Error::invalid(format!("the flow has {size} jobs, and so not those of {jobs:?}")));
        }
        Ok(Group { flow: self.id, span: (jobs.start, jobs.end) })
    }

    /// What each of its jobs waits for: the numbers of those that are to succeed before, and of those that are to end.
    pub fn conditions(&self) -> impl Iterator<Item = (Vec<Range<u32>>, Vec<Range<u32>>)> + '_ {
        let ranges = |spans: &[Span]| spans.iter().map(|(from, to)| *from..*to).collect::<Vec<_>>();
        let rows = self.plan.rows().iter();
        rows.flat_map(move |row| {
            let of = (ranges(&row.after), ranges(&row.after_end));
            std::iter::repeat_n(of, row.jobs as usize)
        })
    }

    /// These of its jobs, as they are enqueued.
    pub(crate) fn new_jobs(&self, from: usize, count: usize) -> impl Iterator<Item = NewJob> + '_ {
        let jobs = self.jobs.iter().zip(0..).skip(from).take(count);
        jobs.map(|(job, index)| {
            let mut job = job.clone().id(self.id.member(index)).header(HEADER, self.id.to_string());
            // As long as the flow lives, what became of it must be known.
            job.options.retention =
                Retention { succeeded: Keep::Forever, failed: Keep::Forever, cancelled: Keep::Forever };
            job
        })
    }

    fn spans(&self, parents: Parents) -> Result<Vec<Span>> {
        let span = |group: Group| {
            if group.flow == self.id {
                return Ok(group.span);
            }
            let (of, here) = (group.flow, self.id);
            Err(Error::invalid(format!("a job of the flow {of} cannot be waited for in the flow {here}")))
        };
        parents.0.into_iter().map(span).collect()
    }
}

/// What jobs of a flow wait for, before they are added.
#[derive(Debug)]
#[must_use = "it adds nothing by itself"]
pub struct Adding<'a> {
    flow: &'a mut Flow,
    after: Vec<Group>,
    after_end: Vec<Group>,
    policy: OnParentFailure,
}

impl Adding<'_> {
    /// Waits for these to succeed, too.
    pub fn after(mut self, parents: impl Into<Parents>) -> Self {
        self.after.append(&mut parents.into().0);
        self
    }

    /// Waits for the end of these, too, however they end.
    pub fn after_end(mut self, parents: impl Into<Parents>) -> Self {
        self.after_end.append(&mut parents.into().0);
        self
    }

    /// Sets what becomes of it when one that it waits for did not succeed. Defaults to the flow's.
    pub fn on_parent_failure(mut self, policy: OnParentFailure) -> Self {
        self.policy = policy;
        self
    }

    /// Adds a job. Its id, its retention and a [header](HEADER) are the flow's to say; a delay counts from when it is let go,
    /// and a due time is kept if that is later.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if what it waits for is of another flow, if it has a unique key, or if the
    /// arguments make no valid job; [`TooLarge`](crate::ErrorKind::TooLarge) beyond the [limits](crate::limits::FLOW_JOBS).
    #[expect(clippy::should_implement_trait, reason = "it adds to the flow, and is no sum")]
    pub fn add(self, job: impl IntoJob) -> Result<Step> {
        let (flow, index) = (self.flow.id, self.flow.plan.size());
        self.add_all([job.into_job()?])?;
        Ok(Step { flow, index })
    }

    /// Adds jobs that all wait for these, and not for each other.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    pub fn add_all<J: IntoJob>(self, jobs: impl IntoIterator<Item = J>) -> Result<Group> {
        let Self { flow, after, after_end, policy } = self;
        let (after, after_end) = (flow.spans(Parents(after))?, flow.spans(Parents(after_end))?);
        let from = flow.plan.size();
        for job in jobs {
            flow.push(job.into_job()?, &after, &after_end, policy)?;
        }
        Ok(Group { flow: flow.id, span: (from, flow.plan.size()) })
    }

    /// Adds jobs of which the first waits for these, and each other one for the success of that before it.
    ///
    /// # Errors
    /// Those of [`add`](Self::add).
    pub fn chain<J: IntoJob>(self, jobs: impl IntoIterator<Item = J>) -> Result<Group> {
        let Self { flow, after, after_end, policy } = self;
        let (mut after, mut after_end) = (flow.spans(Parents(after))?, flow.spans(Parents(after_end))?);
        let from = flow.plan.size();
        for job in jobs {
            let index = flow.plan.size();
            flow.push(job.into_job()?, &after, &after_end, policy)?;
            (after, after_end) = (vec![(index, index + 1)], Vec::new());
        }
        Ok(Group { flow: flow.id, span: (from, flow.plan.size()) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ErrorKind;
    use crate::job::UniqueScope;
    use crate::name::UniqueKey;
    use crate::time::Timestamp;

    fn job() -> NewJob {
        NewJob::dynamic("work", &()).unwrap()
    }

    #[test]
    fn jobs_wait_for_those_that_were_named() {
        let mut flow = Flow::new("f").unwrap();
        let root = flow.add(job()).unwrap();
        let parts = flow.after(root).add_all((0..3).map(|_| job())).unwrap();
        let last = flow.after([parts, root.into()]).after_end([root]).add(job()).unwrap();
        let chain = flow.after(last).chain([job(), job()]).unwrap();
        let plan = &flow.plan;
        let parents: Vec<_> = (0..plan.size()).map(|job| plan.parents(job)).collect();
        let one = |job| vec![(job, job + 1)];
        assert_eq!(parents, [vec![], one(0), one(0), one(0), vec![(0, 4)], one(4), one(5)]);
        assert_eq!(parts.steps().map(Step::index).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(chain.steps().next_back().map(Step::index), Some(6));
        let jobs: Vec<NewJob> = flow.new_jobs(1, 9).collect();
        assert!(jobs.len() == 6 && jobs.iter().zip(1..).all(|(job, index)| job.id == flow.id.member(index)));
        let id = flow.id.to_string();
        assert!(jobs.iter().all(|job| job.due == Due::PARKED && job.options.headers[HEADER] == id));
    }

    #[test]
    fn what_becomes_of_children_is_said_by_flow_and_by_job() {
        let mut flow = Flow::new("f").unwrap().on_parent_failure(OnParentFailure::Wait);
        let root = flow.add(job()).unwrap();
        flow.after(root).add(job()).unwrap();
        flow.after(root).on_parent_failure(OnParentFailure::Run).add(job()).unwrap();
        flow.after(root).on_parent_failure(OnParentFailure::Cancel).add(job()).unwrap();
        let rows: Vec<_> =
            flow.plan.rows().iter().map(|row| (row.waits, row.after.len(), row.after_end.len())).collect();
        assert_eq!(rows, [(false, 0, 0), (true, 1, 0), (false, 0, 1), (false, 1, 0)]);
    }

    #[test]
    fn a_due_time_counts_from_when_a_job_is_let_go() {
        let mut flow = Flow::new("f").unwrap();
        let (second, later) = (Duration::from_secs(1), Timestamp::from_millis(7));
        flow.add_all([job(), job().delay(second), job().run_at(later), job().delay(Duration::ZERO)]).unwrap();
        let dues: Vec<Due> = flow.plan.rows().iter().map(Row::due).collect();
        assert_eq!(dues, [Due::Now, Due::In(second), Due::At(later), Due::Now]);
    }

    #[test]
    fn what_makes_no_flow_is_refused() {
        let mut flow = Flow::new("f").unwrap();
        let elsewhere = Flow::new("g").unwrap().add(job()).unwrap();
        let unique = job().unique(UniqueKey::new("k").unwrap(), UniqueScope::UntilFinished);
        let (ages, before) = (Duration::from_hours(24 * 40_000), Timestamp::from_millis(-1));
        for refused in [
            flow.after(elsewhere).add(job()),
            flow.add(unique),
            flow.add(job().parked()),
            flow.add(job().delay(Duration::MAX)),
            flow.add(job().delay(ages)),
            flow.add(job().run_at(before)),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert!(flow.is_empty() && flow.plan.size() == 0);
        assert_eq!(Flow::new(" f").unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
