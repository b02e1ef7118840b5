//! Defects of what operators see and do.

use std::time::Duration;

use leasehold_core::backend::*;
use leasehold_core::{Backend, Deadline, ErrorKind, JobId, JobRecord, Reason, Result, State, Timestamp};

use super::{Broken, Defect};

impl Broken {
    pub(super) async fn find_badly(
        &self,
        deadline: Deadline,
        mut request: Find,
    ) -> Result<Vec<Option<JobRecord>>> {
        if self.has(Defect::AnswersInTheOrderOfIds) {
            request.ids.sort_unstable();
        }
        let mut found = self.inner.find(deadline, request).await?;
        for job in found.iter_mut().flatten() {
            match self.defect {
                Defect::ForgetsTheFirstFailure => drop(job.history.drain(..job.history.len().min(1))),
                Defect::ForgetsWhoFailed => job.history.iter_mut().for_each(|failure| failure.worker = None),
                Defect::LosesHistoryOnRequeue if job.generation > 0 => job.history.clear(),
                Defect::LosesProgressWithTheLease if job.crashes > 0 => job.progress = None,
                Defect::RequeuesWithOldAttempts if job.generation > 0 => job.attempt += 2,
                _ => {}
            }
        }
        Ok(found)
    }

    pub(super) async fn list_badly(&self, deadline: Deadline, mut request: List) -> Result<Page> {
        let later = request.after.is_some();
        let mut wanted = None;
        match self.defect {
            Defect::IgnoresAFieldOfAFilter => request.filter.worker = None,
            Defect::IgnoresTheOrderOfAList => request.order = Order::OldestFirst,
            Defect::MatchesTextInAnyCase => wanted = request.filter.payload_contains.take(),
            _ => {}
        }
        let mut page = match self.inner.list(deadline, request.clone()).await {
            Err(error) if self.has(Defect::TakesAnyCursor) && error.kind() == ErrorKind::InvalidInput => {
                self.inner.list(deadline, List { after: None, ..request }).await?
            }
            answer => answer?,
        };
        match self.defect {
            Defect::SkipsAJobBetweenPages if later && !page.jobs.is_empty() => drop(page.jobs.remove(0)),
            Defect::SkipsEqualKeys => self.skip_equals(later, &mut page),
            Defect::ShowsStatesAsWritten => page.jobs.iter_mut().for_each(show_as_written),
            Defect::MatchesTextInAnyCase => {
                let wanted = wanted.unwrap_or_default().to_lowercase();
                let text = |job: &JobRecord| String::from_utf8_lossy(job.payload.as_bytes()).to_lowercase();
                page.jobs.retain(|job| text(job).contains(&wanted));
            }
            _ => {}
        }
        Ok(page)
    }

    /// Goes on after the moment of the last job that was shown, and not after that job.
    fn skip_equals(&self, later: bool, page: &mut Page) {
        let mut shadow = self.shadow();
        let last = shadow.shown.filter(|_| later);
        shadow.shown = page.jobs.last().map(|job| job.enqueued_at);
        page.jobs.retain(|job| Some(job.enqueued_at) != last);
    }

    pub(super) async fn counts_badly(
        &self,
        deadline: Deadline,
        mut request: Counts,
    ) -> Result<Vec<QueueCounts>> {
        if self.has(Defect::CountsEveryQueue) {
            request.queues = None;
        }
        let mut counts = self.inner.counts(deadline, request).await?;
        let miscounted = self.shadow().miscounted;
        for queue in &mut counts {
            match self.defect {
                Defect::ForgetsDeletedJobs => queue.deleted = 0,
                Defect::HidesTheOldestDue => queue.oldest_due = None,
                Defect::CountsARepeatedEnqueue => queue.enqueued += miscounted,
                Defect::CountsBelowZero => {
                    let running = queue.states.entry(State::Running).or_default();
                    *running = running.wrapping_sub(miscounted);
                }
                Defect::CountsTheScheduledAsQueued => {
                    let scheduled = queue.states.remove(&State::Scheduled).unwrap_or(0);
                    *queue.states.entry(State::Queued).or_default() += scheduled;
                }
                _ => {}
            }
        }
        Ok(counts)
    }

    pub(super) async fn amend_badly(&self, deadline: Deadline, mut request: Amend) -> Result<Amended> {
        self.ask_for_too_much(&mut request);
        self.move_badly(deadline, &mut request).await?;
        match (self.defect, &request.action) {
            (Defect::PreviewsForReal, _) => request.preview = false,
            (Defect::IgnoresANewPriority, Action::Reprioritise { .. }) => request.preview = true,
            (Defect::PostponesOnlyToLater, Action::Postpone { due }) => {
                let now = self.inner.now(deadline).await?;
                request.preview |= due.by(now) <= now;
            }
            (Defect::ForgetsACancellationOnRetry, Action::Cancel) => {
                request.preview = true;
                let amended = self.inner.amend(deadline, request).await?;
                self.shadow().cancelled.extend(amended.jobs.iter().map(|(job, _)| *job));
                return Ok(amended);
            }
            (Defect::PagesByOffset, _) => self.skip_a_page(deadline, &mut request).await?,
            (Defect::RequeuesRunningJobsAsFailed, Action::Requeue { .. }) => {
                self.fail_what_runs(deadline).await?;
            }
            (Defect::LetsAllOfAFlowGo, Action::Unpark { .. }) => {
                let (as_of, after, limit) = (Timestamp::MAX, None, 100);
                let select = Select::Matching { filter: Filter::default(), as_of, after, limit };
                self.inner.amend(deadline, Amend { select, ..request.clone() }).await?;
            }
            _ => {}
        }
        let mut amended = self.inner.amend(deadline, request.clone()).await?;
        for (job, answer) in &mut amended.jobs {
            *answer = self.amend_anyhow(*job, *answer, &request.action).await?;
        }
        Ok(amended)
    }

    fn ask_for_too_much(&self, request: &mut Amend) {
        let Select::Matching { as_of, limit, .. } = &mut request.select else { return };
        match self.defect {
            Defect::AmendsLaterJobs => *as_of = Timestamp::MAX,
            Defect::AmendsWithoutABound => *limit = usize::MAX,
            _ => {}
        }
    }

    /// Skips as many of the jobs that match as the batch before had, all of which match no more.
    async fn skip_a_page(&self, deadline: Deadline, request: &mut Amend) -> Result<()> {
        if matches!(&request.select, Select::Matching { after: Some(_), .. }) {
            let skipped = self.inner.amend(deadline, Amend { preview: true, ..request.clone() }).await?;
            if let Select::Matching { after, .. } = &mut request.select {
                *after = skipped.next.or(after.take());
            }
        }
        Ok(())
    }

    async fn fail_what_runs(&self, deadline: Deadline) -> Result<()> {
        let running: Vec<_> = self.shadow().tokens.iter().map(|(job, token)| (*job, *token)).collect();
        let verdict = Verdict::Fail { reason: Reason::Error };
        let fail = |(job, token)| Settlement { job, token, verdict: verdict.clone(), failure: None };
        let settlements = running.into_iter().map(fail).collect();
        self.inner.settle(deadline, Settle { settlements }).await.map(drop)
    }

    async fn amend_anyhow(&self, job: JobId, answer: AmendAnswer, action: &Action) -> Result<AmendAnswer> {
        match (self.defect, answer, action) {
            (Defect::DeletesRunningJobs, AmendAnswer::Refused(State::Running), Action::Delete) => {
                self.end_anyhow(job, Verdict::Fail { reason: Reason::Error }).await?;
                self.amend_one(job, Action::Delete).await
            }
            (Defect::CancelsARunningJobAtOnce, AmendAnswer::Requested, Action::Cancel) => {
                self.end_anyhow(job, Verdict::Cancel { reason: Reason::Cancelled }).await?;
                Ok(answer)
            }
            (Defect::CancelsWhatWasUnparked, AmendAnswer::Refused(state), Action::CancelParked)
                if state.is_waiting() =>
            {
                self.amend_one(job, Action::Cancel).await
            }
            (Defect::UnparksWhatWaitsForItsRetry, AmendAnswer::AlreadyApplied, Action::Unpark { due }) => {
                match self.amend_one(job, Action::Postpone { due: *due }).await? {
                    AmendAnswer::Applied => Ok(AmendAnswer::Applied),
                    _ => Ok(answer),
                }
            }
            _ => Ok(answer),
        }
    }

    /// Ends a job that runs, behind its holder's back.
    async fn end_anyhow(&self, job: JobId, verdict: Verdict) -> Result<()> {
        if let Some(token) = self.present(job) {
            let settlement = Settlement { job, token, verdict, failure: None };
            self.settle_inside(Deadline::default(), settlement).await?;
        }
        Ok(())
    }

    pub(super) async fn prune_badly(&self, deadline: Deadline, mut request: Prune) -> Result<Pruned> {
        if self.has(Defect::PrunesByIdWhatItRead) {
            return self.prune_what_it_read(deadline, request).await;
        }
        if self.has(Defect::PrunesWithoutABound) {
            request.limit = usize::MAX;
        }
        let mut pruned = self.inner.prune(deadline, request).await?;
        let select = match self.defect {
            Defect::PrunesTooEarly => Select::Ids(std::mem::take(&mut self.shadow().ended)),
            Defect::PrunesRequeuedJobs => {
                let ended = std::mem::take(&mut self.shadow().ended);
                let found = self.inner.find(deadline, Find { ids: ended }).await?.into_iter().flatten();
                Select::Ids(found.filter(|job| job.generation > 0).map(|job| job.id).collect())
            }
            Defect::PrunesByAgeAlone => {
                let as_of = self.inner.now(deadline).await?.minus(Duration::from_hours(24 * 50));
                Select::Matching { filter: Filter::default(), as_of, after: None, limit: 100 }
            }
            _ => return Ok(pruned),
        };
        pruned.jobs += self.delete(deadline, select).await?;
        Ok(pruned)
    }

    async fn prune_what_it_read(&self, deadline: Deadline, request: Prune) -> Result<Pruned> {
        let now = self.inner.now(deadline).await?;
        let (filter, order) = (Filter::default(), Order::OldestFirst);
        let list = List { filter, order, after: None, limit: 500 };
        let all = self.inner.list(deadline, list).await?.jobs.into_iter();
        let over = all.filter(|job| job.expires_at.is_some_and(|at| at < now)).map(|job| job.id);
        let over = over.take(request.limit).collect();
        tokio::task::yield_now().await;
        let jobs = self.delete(deadline, Select::Ids(over)).await?;
        Ok(Pruned { jobs, ..self.inner.prune(deadline, Prune { limit: 0, ..request }).await? })
    }

    async fn delete(&self, deadline: Deadline, select: Select) -> Result<u64> {
        let delete = Amend { select, action: Action::Delete, preview: false };
        let deleted = self.inner.amend(deadline, delete).await?.jobs;
        Ok(deleted.iter().filter(|(_, answer)| *answer == AmendAnswer::Applied).count() as u64)
    }
}

/// The state that was true when the job was taken in.
fn show_as_written(job: &mut JobRecord) {
    if job.state == State::Queued && job.due > job.enqueued_at {
        job.state = State::Scheduled;
    }
}
