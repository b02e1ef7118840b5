use std::collections::HashMap;

use super::carry::{Fate, amend, as_it_was};
use super::{Account, Trip};
use crate::backend::{Action, AmendAnswer, Cursor, Filter, List, Order};
use crate::error::Result;
use crate::flow::Member;
use crate::id::JobId;
use crate::job::{JobRecord, Reason, State};

type Told<'a> = &'a mut (dyn FnMut(&Account) + Send);

impl Trip {
    /// Takes up what an earlier run withdrew and did not bring over.
    pub(super) async fn take_leftovers(&mut self, told: Told<'_>) -> Result<()> {
        let (states, reasons) = (Some(vec![State::Cancelled]), Some(vec![Reason::Moved]));
        // Whatever state was asked for, this is the one that they are left in.
        let filter = Filter { states, reasons, ..self.order.filter.clone() };
        let mut after = None;
        while !self.is_stopped()
            && let Some(jobs) = self.next_page(&filter, &mut after).await?
        {
            let goes = |job: &JobRecord| job.is_withdrawn() && !self.held.contains(&job.id);
            let jobs: Vec<JobRecord> = jobs.into_iter().filter(goes).collect();
            self.account.resumed += jobs.len() as u64;
            self.bring(jobs.into_iter().map(|job| as_it_was(job, None)).collect(), told).await?;
        }
        Ok(())
    }

    /// Takes what waits: each job is withdrawn first, so that no worker is given it here.
    pub(super) async fn take_waiting(&mut self, told: Told<'_>) -> Result<()> {
        let (filter, mut after) = (self.in_states(&[State::Queued, State::Scheduled]), None);
        while let Some(jobs) = self.page(&filter, &mut after).await? {
            let before: HashMap<JobId, JobRecord> = jobs.into_iter().map(|job| (job.id, job)).collect();
            self.check_lock()?;
            let answers = amend(&self.order.from, before.keys().copied().collect(), Action::Withdraw).await?;
            let ours =
                |answer: &AmendAnswer| matches!(answer, AmendAnswer::Applied | AmendAnswer::AlreadyApplied);
            let withdrawn =
                answers.into_iter().filter(|(_, answer)| ours(answer)).map(|(id, _)| id).collect();
            // As it was withdrawn: it may have been changed since it was listed.
            let found = self.order.from.find_all(withdrawn).await?.into_iter().flatten();
            let mut jobs: Vec<_> = found
                .filter(JobRecord::is_withdrawn)
                .map(|job| {
                    let before = before.get(&job.id);
                    as_it_was(job, before)
                })
                .collect();
            jobs.sort_by_key(|job| (job.enqueued_at, job.id));
            self.bring(jobs, told).await?;
        }
        Ok(())
    }

    /// Takes what has ended.
    pub(super) async fn take_ended(&mut self, told: Told<'_>) -> Result<()> {
        let filter = self.in_states(&[State::Succeeded, State::Failed, State::Cancelled]);
        let mut after = None;
        while let Some(jobs) = self.page(&filter, &mut after).await? {
            self.bring(jobs.into_iter().filter(|job| !job.is_withdrawn()).collect(), told).await?;
        }
        Ok(())
    }

    /// Counts what runs, and stays for now.
    pub(super) async fn count_what_runs(&mut self) -> Result<()> {
        self.account.running = 0;
        let (filter, mut after) = (self.in_states(&[State::Running]), None);
        while let Some(page) = self.next_page(&filter, &mut after).await? {
            self.account.running += page.len() as u64;
        }
        Ok(())
    }

    fn in_states(&self, states: &[State]) -> Filter {
        let wanted = self.order.filter.states.clone();
        let states =
            states.iter().copied().filter(|state| wanted.as_ref().is_none_or(|of| of.contains(state)));
        Filter { states: Some(states.collect()), ..self.order.filter.clone() }
    }

    /// The next jobs that match and may go; none when there are no more, or somebody said that it is enough.
    async fn page(
        &mut self,
        filter: &Filter,
        after: &mut Option<Option<Cursor>>,
    ) -> Result<Option<Vec<JobRecord>>> {
        if self.is_stopped() {
            return Ok(None);
        }
        let Some(mut page) = self.next_page(filter, after).await? else { return Ok(None) };
        self.look_at_flows_of(&page).await?;
        page.retain(|job| !self.held.contains(&job.id));
        let all = page.len();
        page.retain(|job| !self.is_in_a_flow(job));
        self.account.in_flows += (all - page.len()) as u64;
        Ok(Some(page))
    }

    /// The next jobs that match; none when there are no more. `after` is where they begin, and nothing at first.
    pub(super) async fn next_page(
        &self,
        filter: &Filter,
        after: &mut Option<Option<Cursor>>,
    ) -> Result<Option<Vec<JobRecord>>> {
        let from = match after {
            None => None,
            Some(None) => return Ok(None),
            Some(after) => after.clone(),
        };
        if filter.states.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let (filter, order, limit) = (filter.clone(), Order::OldestFirst, self.batch());
        let request = List { filter, order, after: from, limit };
        let store = &self.order.from;
        let page = store.backend().list(store.deadline(), request).await?;
        *after = Some(page.next);
        self.stride.saw(page.jobs.iter());
        Ok(Some(page.jobs))
    }

    fn is_in_a_flow(&self, job: &JobRecord) -> bool {
        Member::of(job).is_some_and(|member| self.flows.get(&member.flow) == Some(&true))
    }

    /// Brings jobs over that nobody is given here, and deletes them here.
    async fn bring(&mut self, jobs: Vec<JobRecord>, told: Told<'_>) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let fates = self.carry(jobs).await?;
        let (mut gone, mut held, mut there) = (Vec::new(), Vec::new(), Vec::new());
        for (job, fate) in &fates {
            match fate {
                Fate::Taken => gone.push(job),
                Fate::There => there.push(job),
                Fate::Held(holder) => held.push((job.id, *holder)),
            }
        }
        if !there.is_empty() {
            self.bring_up_to_date(&there).await?;
        }
        (self.account.taken, self.account.there) =
            (self.account.taken + gone.len() as u64, self.account.there + there.len() as u64);
        self.account.met += fates.len() as u64;
        self.delete_here(gone.into_iter().chain(there).collect()).await?;
        self.let_stay(held).await?;
        told(&self.account);
        Ok(())
    }

    /// Deletes jobs that are at the other store now. One that was sent round again meanwhile stays, and is met again.
    async fn delete_here(&self, jobs: Vec<&JobRecord>) -> Result<()> {
        let now = self.order.from.now().await?;
        // What waits was withdrawn before it was brought over; what ended did so when it was listed, or before.
        let waited = jobs.iter().filter(|job| job.finished_at.is_none()).map(|job| job.id).collect();
        amend(&self.order.from, waited, Action::DeleteEnded { by: now }).await?;
        let ended = jobs.iter().filter_map(|job| job.finished_at).max().unwrap_or(now);
        let over = jobs.iter().filter(|job| job.finished_at.is_some()).map(|job| job.id).collect();
        amend(&self.order.from, over, Action::DeleteEnded { by: ended }).await?;
        Ok(())
    }

    /// Lets jobs wait here again whose unique keys others hold at the other store.
    async fn let_stay(&mut self, held: Vec<(JobId, JobId)>) -> Result<()> {
        if held.is_empty() {
            return Ok(());
        }
        self.check_lock()?;
        let jobs = held.iter().map(|(job, _)| *job).collect();
        for ((job, answer), (_, holder)) in
            amend(&self.order.from, jobs, Action::Restore).await?.into_iter().zip(held)
        {
            if let AmendAnswer::Held(here) = answer {
                tracing::warn!(%job, %holder, %here, "a job stays withdrawn: its unique key is held in both stores");
            }
            self.account.hold(job, holder);
            self.held.insert(job);
        }
        Ok(())
    }
}
