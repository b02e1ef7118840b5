use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cache::Live;
use super::{Flows, Overtaken};
use crate::backend::{Action, Amend, AmendAnswer, Select};
use crate::error::{ErrorKind, Result};
use crate::flow::{Decision, FlowCounts, FlowRecord, FlowState, Known, Survey};
use crate::id::{FlowId, JobId};
use crate::job::JobRecord;

/// How many jobs one call looks at, or changes.
pub(super) const BATCH: usize = 1_000;

/// How many jobs that a row waits for are looked at first. Those before the first that has not ended are not looked at again.
const AHEAD: usize = 16;

/// Jobs that were looked at in one pass, and whether they were parked.
type Seen = HashMap<u32, bool>;

/// What is to be done now.
#[derive(Default)]
struct Todo {
    cancel: BTreeSet<usize>,
    let_go: Vec<usize>,
    wait: Vec<usize>,
    is_over: bool,
}

impl Flows {
    /// Does what is to be done once these jobs of a flow have ended. Whoever hears of an end may call this, any number at
    /// once.
    pub(crate) async fn settled(&self, flow: FlowId, ended: &[(u32, Known)]) -> Result<()> {
        let Some(live) = self.live(flow).await? else { return Ok(()) };
        let mut touched = BTreeSet::new();
        {
            let mut progress = live.progress();
            ended.iter().for_each(|(job, known)| progress.note(*job, *known, &mut touched));
        }
        self.advance(&live, touched).await
    }

    /// Decides about these rows, and about those that hang on what is done with them.
    pub(super) async fn advance(&self, live: &Live, touched: BTreeSet<usize>) -> Result<()> {
        self.advance_from(live, touched, &mut Seen::new()).await
    }

    /// The same for all rows, once all was looked at that may have changed.
    pub(super) async fn advance_all(&self, live: &Live) -> Result<()> {
        let mut seen = self.survey(live).await?;
        let undone = live.progress().undone();
        self.advance_from(live, undone, &mut seen).await
    }

    async fn advance_from(&self, live: &Live, mut touched: BTreeSet<usize>, seen: &mut Seen) -> Result<()> {
        let mut ahead = AHEAD;
        loop {
            let Todo { cancel, let_go, wait, is_over } = decide(live, &touched);
            touched.clear();
            if is_over {
                return self.finish(live, seen).await;
            }
            if !cancel.is_empty() {
                // What is let go next may wait for the end of these.
                self.cancel_parked(live, cancel, &mut touched).await?;
                touched.extend(let_go.into_iter().chain(wait));
                continue;
            }
            self.let_go(live, &let_go, seen, &mut touched).await?;
            if !touched.is_empty() {
                touched.extend(wait);
                continue;
            }
            let looks = ahead_of(live, &wait, ahead, seen);
            if looks.is_empty() {
                return Ok(());
            }
            self.look(live, &looks, seen, &mut touched).await?;
            touched.extend(wait);
            ahead = (ahead * 8).min(BATCH);
        }
    }

    /// Looks at these jobs, and notes those that have ended.
    async fn look(
        &self,
        live: &Live,
        jobs: &[u32],
        seen: &mut Seen,
        touched: &mut BTreeSet<usize>,
    ) -> Result<()> {
        let mut rest = jobs;
        while !rest.is_empty() {
            let jobs;
            (jobs, rest) = rest.split_at(live.stride.at_most(self.batch()).min(rest.len()));
            let ids = jobs.iter().map(|job| live.id.member(*job)).collect();
            let (found, unreadable) = match self.store.find_all(ids).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => self.find_each(live.id, jobs).await?,
                found => (found?, BTreeSet::new()),
            };
            live.stride.saw(found.iter().flatten());
            let mut progress = live.progress();
            for (job, found) in jobs.iter().zip(found) {
                let known = match &found {
                    Some(found) => Known::of(found.state),
                    None if unreadable.contains(job) => Known::Failed,
                    None => Known::Cancelled,
                };
                progress.note(*job, known, touched);
                let is_parked = found.is_some_and(|found| found.is_parked());
                if is_parked {
                    progress.parked(*job, touched);
                }
                seen.insert(*job, is_parked);
            }
        }
        Ok(())
    }

    /// Finds jobs one by one, and tells which cannot be read: such a one stops none of the others.
    async fn find_each(&self, flow: FlowId, jobs: &[u32]) -> Result<(Vec<Option<JobRecord>>, BTreeSet<u32>)> {
        let (mut found, mut unreadable) = (Vec::new(), BTreeSet::new());
        for job in jobs {
            let one = match self.store.find_all(vec![flow.member(*job)]).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::error!(%flow, job, %error, "a job of a flow cannot be read; it counts as failed");
                    unreadable.insert(*job);
                    None
                }
                one => one?.into_iter().next().flatten(),
            };
            found.push(one);
        }
        Ok((found, unreadable))
    }

    /// Looks at all jobs that may have ended without this process knowing.
    async fn survey(&self, live: &Live) -> Result<Seen> {
        let mut survey = Survey::of(&live.progress());
        let (mut seen, mut touched) = (Seen::new(), BTreeSet::new());
        loop {
            let jobs = survey.next(&mut live.progress(), self.batch());
            if jobs.is_empty() {
                return Ok(seen);
            }
            self.look(live, &jobs, &mut seen, &mut touched).await?;
            let progress = live.progress();
            let open = jobs.iter().filter(|job| progress.known(**job) == Known::Open);
            open.for_each(|job| survey.blocks(*job));
        }
    }

    /// Lets these rows go: what of them is parked becomes due.
    async fn let_go(
        &self,
        live: &Live,
        rows: &[usize],
        seen: &mut Seen,
        touched: &mut BTreeSet<usize>,
    ) -> Result<()> {
        let mut by_due = BTreeMap::new();
        {
            let progress = live.progress();
            for row in rows {
                let of = &progress.plan().rows()[*row];
                let (_, jobs) = by_due.entry((of.delay_ms, of.at)).or_insert_with(|| (of.due(), Vec::new()));
                jobs.extend(progress.open(*row).into_iter().filter(|job| seen.get(job) != Some(&false)));
            }
        }
        let (mut let_go, mut before) = (0, Vec::new());
        for (due, jobs) in by_due.into_values() {
            for jobs in jobs.chunks(self.batch()) {
                let answers = self.amend(live.id, jobs, Action::Unpark { due }).await?;
                let mut progress = live.progress();
                for (job, answer) in jobs.iter().zip(answers) {
                    match answer {
                        AmendAnswer::NotFound => progress.note(*job, Known::Cancelled, touched),
                        AmendAnswer::Applied => let_go += 1,
                        _ => before.push(*job),
                    }
                    seen.insert(*job, false);
                }
            }
        }
        metrics::counter!("leasehold_flow_jobs_let_go_total").increment(let_go);
        // Somebody let these go before, and they may have ended since.
        self.look(live, &before, seen, touched).await?;
        let mut progress = live.progress();
        rows.iter().for_each(|row| progress.done(*row));
        Ok(())
    }

    /// Cancels these rows, and all that fall with them, as far as they are parked.
    async fn cancel_parked(
        &self,
        live: &Live,
        rows: BTreeSet<usize>,
        touched: &mut BTreeSet<usize>,
    ) -> Result<()> {
        let fall = |freed: &BTreeSet<u32>| {
            let mut all = rows.clone();
            live.progress().spread(&mut all, freed);
            all.difference(&rows).copied().collect::<Vec<usize>>()
        };
        let falling = fall(&BTreeSet::new());
        // Somebody who knows better may have let one go: then nothing is said of those that wait for it.
        if self.cancel_rows(live, rows.iter().copied(), touched).await? && !falling.is_empty() {
            let freed = self.freed(live, &falling).await?;
            self.cancel_rows(live, fall(&freed).into_iter(), touched).await?;
        }
        Ok(())
    }

    /// Those jobs of these rows that are neither parked nor cancelled.
    async fn freed(&self, live: &Live, rows: &[usize]) -> Result<BTreeSet<u32>> {
        let jobs: Vec<u32> = {
            let progress = live.progress();
            rows.iter().flat_map(|row| progress.open(*row)).collect()
        };
        let mut freed = BTreeSet::new();
        for jobs in jobs.chunks(self.batch()) {
            let answers = self.amend_or_preview(live.id, jobs, Action::CancelParked, true).await?;
            let refused = |(job, answer)| matches!(answer, AmendAnswer::Refused(_)).then_some(job);
            freed.extend(jobs.iter().copied().zip(answers).filter_map(refused));
        }
        Ok(freed)
    }

    /// Tells whether all were parked, or cancelled before.
    async fn cancel_rows(
        &self,
        live: &Live,
        rows: impl Iterator<Item = usize>,
        touched: &mut BTreeSet<usize>,
    ) -> Result<bool> {
        let rows: Vec<usize> = rows.collect();
        let jobs: Vec<u32> = {
            let progress = live.progress();
            rows.iter().flat_map(|row| progress.open(*row)).collect()
        };
        let (mut all, mut cancelled) = (true, 0);
        for jobs in jobs.chunks(self.batch()) {
            let answers = self.amend(live.id, jobs, Action::CancelParked).await?;
            let mut progress = live.progress();
            for (job, answer) in jobs.iter().zip(answers) {
                let known = ended(answer);
                all &= known == Known::Cancelled;
                cancelled += u64::from(answer == AmendAnswer::Applied);
                progress.note(*job, known, touched);
            }
        }
        metrics::counter!("leasehold_flow_jobs_cancelled_total").increment(cancelled);
        let mut progress = live.progress();
        rows.iter().for_each(|row| progress.done(*row));
        Ok(all)
    }

    /// Cancels all jobs of a flow that have not ended, or asks for their end if they run.
    pub(super) async fn cancel_all(&self, live: &Live) -> Result<()> {
        let (open, last) = {
            let progress = live.progress();
            let open: Vec<u32> =
                (0..progress.plan().size()).filter(|job| progress.known(*job) == Known::Open).collect();
            (open, progress.last())
        };
        self.cancel_jobs(live, &open).await?;
        if live.progress().decide(last) == Decision::LetGo {
            self.finish(live, &open.into_iter().map(|job| (job, false)).collect()).await?;
        }
        Ok(())
    }

    async fn cancel_jobs(&self, live: &Live, jobs: &[u32]) -> Result<()> {
        let mut touched = BTreeSet::new();
        for jobs in jobs.chunks(self.batch()) {
            let answers = self.amend(live.id, jobs, Action::Cancel).await?;
            let mut progress = live.progress();
            for (job, answer) in jobs.iter().zip(answers) {
                progress.note(*job, ended(answer), &mut touched);
            }
        }
        Ok(())
    }

    /// Writes that a flow has ended, once all its jobs have.
    async fn finish(&self, live: &Live, seen: &Seen) -> Result<()> {
        // One that did not succeed may have been sent round again since.
        let mut unwell = live.progress().unwell();
        if live.is_cancelling() {
            unwell.retain(|job| !seen.contains_key(job));
            self.cancel_jobs(live, &unwell).await?;
        } else {
            self.look(live, &unwell, &mut Seen::new(), &mut BTreeSet::new()).await?;
        }
        if live.progress().counts().open > 0 {
            return Ok(());
        }
        let counts = live.progress().counts();
        let mut overtaken = Overtaken::by(self.store.deadline());
        loop {
            let (hour, there) = self.read(live.id).await?;
            let Some(mut record) = there.filter(FlowRecord::goes_on) else { break };
            let state = end(record.body.state, counts);
            record.body.end(state, counts, hour);
            let next = record.body.retention.of(state.as_job()).until(hour);
            match self.write(&mut record, next).await {
                Ok(()) => {
                    metrics::counter!("leasehold_flows_total", "outcome" => <&str>::from(state)).increment(1);
                    break;
                }
                Err(error) => overtaken.or(error).await?,
            }
        }
        self.store.flow_cache().remove(live.id);
        Ok(())
    }

    /// Changes these jobs of a flow; answers one item each.
    pub(super) async fn amend(&self, flow: FlowId, jobs: &[u32], action: Action) -> Result<Vec<AmendAnswer>> {
        self.amend_or_preview(flow, jobs, action, false).await
    }

    async fn amend_or_preview(
        &self,
        flow: FlowId,
        jobs: &[u32],
        action: Action,
        preview: bool,
    ) -> Result<Vec<AmendAnswer>> {
        let ids: Vec<JobId> = jobs.iter().map(|job| flow.member(*job)).collect();
        let request = Amend { select: Select::Ids(ids), action, preview };
        let amended = self.store.backend().amend(self.store.deadline(), request).await?;
        Ok(amended.jobs.into_iter().map(|(_, answer)| answer).collect())
    }

    pub(super) fn batch(&self) -> usize {
        BATCH.min(self.store.limits().batch).max(1)
    }
}

fn decide(live: &Live, rows: &BTreeSet<usize>) -> Todo {
    let (mut todo, mut progress) = (Todo::default(), live.progress());
    for row in rows {
        match progress.decide(*row) {
            Decision::Done => {}
            Decision::LetGo if *row == progress.last() => todo.is_over = true,
            Decision::Wait(_) if live.is_cancelling() && *row != progress.last() => {}
            Decision::Wait(_) => todo.wait.push(*row),
            Decision::LetGo | Decision::Cancel if live.is_cancelling() => {}
            Decision::LetGo => todo.let_go.push(*row),
            Decision::Cancel => drop(todo.cancel.insert(*row)),
        }
    }
    todo
}

/// What these rows wait for, unless it was seen in this pass: for each the first job, and as many behind it as is worth one look.
fn ahead_of(live: &Live, rows: &[usize], ahead: usize, seen: &Seen) -> Vec<u32> {
    let progress = live.progress();
    let ahead = ahead.min(1 + BATCH / rows.len().max(1));
    let mut looks = BTreeSet::new();
    for row in rows {
        let jobs = progress.ahead(*row, ahead);
        if jobs.first().is_some_and(|first| !seen.contains_key(first)) {
            looks.extend(jobs.into_iter().filter(|job| !seen.contains_key(job)));
        }
    }
    looks.into_iter().collect()
}

/// What an answer tells of a job.
fn ended(answer: AmendAnswer) -> Known {
    match answer {
        AmendAnswer::Applied | AmendAnswer::AlreadyApplied | AmendAnswer::NotFound => Known::Cancelled,
        AmendAnswer::Refused(state) => Known::of(state),
        AmendAnswer::Requested | AmendAnswer::Held(_) => Known::Open,
    }
}

fn end(state: FlowState, counts: FlowCounts) -> FlowState {
    match state {
        FlowState::Cancelling => FlowState::Cancelled,
        _ if counts.failed + counts.cancelled == 0 => FlowState::Succeeded,
        _ => FlowState::Failed,
    }
}
