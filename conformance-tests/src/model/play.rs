//! One sequence, taken step by step on the backend and on the reference, which must answer the same and show the same
//! afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use leasehold_core::backend::{
    Amend, Answer, Claim, Enqueue, EnqueueAnswer, Enqueued, ExpiredLease, List, Order, Prune, Renewed,
    Select, Settle, Settlement,
};
use leasehold_core::{JobId, JobRecord, LeaseToken, LeasedJob, ManualClock, Timestamp, VersionId, WorkerId};

use super::names::Names;
use super::reference::{Entry, Reference};
use super::step::{self, Nth, Step};
use crate::bench::{Bench, in_time};
use crate::breach::{Breach, Kept, Trouble, must, must_eq};

/// A sequence under way.
pub(super) struct Play {
    pub(super) t: Bench,
    pub(super) clock: ManualClock,
    pub(super) names: Names,
    pub(super) reference: Reference,
    pub(super) workers: Vec<WorkerId>,
    pub(super) versions: BTreeMap<u8, Vec<VersionId>>,
    enqueues: Vec<Enqueue>,
    pub(super) jobs: Vec<JobId>,
    claims: Vec<Claim>,
    leases: Vec<LeasedJob>,
    settlements: Vec<Vec<Settlement>>,
    lost: Vec<ExpiredLease>,
}

/// Takes every step, and leaves the store empty for the next sequence.
pub(super) async fn play(t: &Bench, steps: &[Step]) -> Kept {
    let mut play = Play::new(t);
    for (number, step) in steps.iter().enumerate() {
        let taken = play.take(step).await;
        taken.map_err(|breach| Breach::new(format!("step {}: {breach}", number + 1)))?;
    }
    play.clear().await
}

impl Play {
    fn new(t: &Bench) -> Self {
        let names = Names::fresh();
        let reference = Reference::at(t.hour());
        let workers = (0..step::WORKERS).map(|_| WorkerId::generate()).collect();
        Self {
            t: t.clone(),
            clock: t.clock().clone(),
            names,
            reference,
            workers,
            versions: BTreeMap::new(),
            enqueues: Vec::new(),
            jobs: Vec::new(),
            claims: Vec::new(),
            leases: Vec::new(),
            settlements: Vec::new(),
            lost: Vec::new(),
        }
    }

    async fn take(&mut self, step: &Step) -> Kept {
        match step {
            Step::Enqueue(jobs) => {
                let jobs = self.names.jobs(jobs, self.reference.now);
                self.enqueue(Enqueue { jobs }).await?;
            }
            Step::EnqueueAgain(nth) => {
                if let Some(request) = latest(&self.enqueues, *nth).cloned() {
                    self.enqueue(request).await?;
                }
            }
            Step::Claim(claim) => self.claim(self.names.claim(claim, &self.workers)).await?,
            Step::ClaimAgain(nth) => {
                let claim = latest(&self.claims, *nth).filter(|claim| !self.reference.is_forgotten(claim));
                if let Some(claim) = claim.cloned() {
                    self.claim(claim).await?;
                }
            }
            Step::Renew(renewals) => self.renew(renewals).await?,
            Step::Settle(settlements) => self.settle(settlements).await?,
            Step::SettleAgain(nth) => {
                if let Some(settlements) = latest(&self.settlements, *nth).cloned() {
                    self.settle_these(settlements).await?;
                }
            }
            Step::ReadExpired { limit } => self.read_expired(*limit).await?,
            Step::Recover { leases, retry, delay } => self.recover(leases, *retry, *delay).await?,
            Step::Log { lease, again, lines } => self.log(*lease, *again, *lines).await?,
            Step::Amend { jobs, action, preview } => self.amend(jobs, action, *preview).await?,
            Step::AmendMatching { filter, action, preview, page } => {
                self.amend_matching(filter, action, *preview, *page).await?;
            }
            Step::Carry(nth) => self.carry(*nth).await?,
            Step::Prune => self.prune().await?,
            Step::List { filter, order, page } => self.list(filter, *order, *page).await?,
            Step::Pass(span) => self.pass_to(self.reference.now.plus(*span)),
            Step::PassTo { edge, off } => self.pass_to_edge(*edge, *off),
            Step::Restart => self.t = self.t.another().await?,
            other => self.manage(other).await?,
        }
        self.compare().await
    }

    async fn enqueue(&mut self, request: Enqueue) -> Kept {
        self.jobs.extend(request.jobs.iter().map(|job| job.id));
        let told = self.t.enqueue(request.jobs.clone()).await?;
        let told: Vec<_> = told.iter().map(entry).collect::<Result<_, _>>()?;
        must_eq!(told, self.reference.enqueue(&request), "the answers to {:?}", names_of(&request));
        self.enqueues.push(request);
        Ok(())
    }

    async fn claim(&mut self, claim: Claim) -> Kept {
        let given = self.t.claim_as(claim.clone()).await?;
        let mut wanted = self.reference.claim(&claim);
        let mut same = given.clone();
        if self.claims.iter().any(|earlier| earlier.id == claim.id) {
            // In which order a repeated claim names what it holds is not said.
            same.sort_by_key(|lease| lease.token);
            wanted.sort_by_key(|lease| lease.token);
        } else if !given.is_empty() {
            self.claims.push(claim.clone());
        }
        let leases = |leases: &[LeasedJob]| leases.iter().map(token_and_lease).collect::<Vec<_>>();
        must_eq!(leases(&same), leases(&wanted), "what {claim:?} was given");
        for (found, wanted) in same.iter().zip(&wanted) {
            same_job(Some(&found.job), Some(&wanted.job))?;
        }
        self.leases.extend(given);
        Ok(())
    }

    async fn renew(&mut self, renewals: &[step::Renewal]) -> Kept {
        let named = renewals.iter().filter_map(|renewal| {
            let lease = latest(&self.leases, renewal.lease)?;
            Some(self.names.renewal(renewal, lease))
        });
        // The layers see to it that no lease comes twice.
        let mut renewals: Vec<_> = named.collect();
        renewals.sort_by_key(|renewal| renewal.token);
        renewals.dedup_by_key(|renewal| renewal.token);
        let told = self.t.renew_all(renewals.clone()).await?;
        let wanted: Vec<Renewed> = renewals.iter().map(|renewal| self.reference.renew(renewal)).collect();
        must_eq!(told, wanted, "the answers to {renewals:?}");
        Ok(())
    }

    async fn settle(&mut self, settlements: &[step::Settlement]) -> Kept {
        let named = settlements.iter().filter_map(|settlement| {
            let lease = latest(&self.leases, settlement.lease)?;
            Some(self.names.settlement(settlement, lease))
        });
        self.settle_these(named.collect()).await
    }

    async fn settle_these(&mut self, settlements: Vec<Settlement>) -> Kept {
        let told = self.t.settle_all(settlements.clone()).await?;
        let wanted: Vec<Answer> = settlements.iter().map(|one| self.reference.settle(one)).collect();
        must_eq!(told, wanted, "the answers to {settlements:?}");
        self.settlements.push(settlements);
        Ok(())
    }

    async fn read_expired(&mut self, limit: usize) -> Kept {
        let told = self.t.expired(limit).await?;
        let all = self.reference.expired();
        must_eq!(told.len(), all.len().min(limit), "how many of the leases ran out");
        // Which comes first of those that ended at the same moment is not said.
        let end = |lease: &ExpiredLease| self.reference.lease_end(lease.job);
        let ends: Vec<Option<Timestamp>> = told.iter().map(end).collect();
        let wanted: Vec<Option<Timestamp>> = all.iter().take(limit).map(end).collect();
        must_eq!(ends, wanted, "when the leases ran out that were told, longest ago first");
        for lease in &told {
            must!(all.contains(lease), "this lease ran out otherwise: {lease:?}\n  there are {all:?}");
        }
        self.lost.extend(told);
        Ok(())
    }

    async fn recover(&mut self, leases: &[Nth], retry: bool, delay: Duration) -> Kept {
        let lost = leases.iter().filter_map(|nth| latest(&self.lost, *nth));
        let settlements: Vec<Settlement> =
            lost.map(|lease| self.names.recovery(lease, retry, delay)).collect();
        let told = self.t.recover_all(settlements.clone()).await?;
        let wanted: Vec<Answer> = settlements.iter().map(|one| self.reference.recover(one)).collect();
        must_eq!(told, wanted, "the answers to the recoveries {settlements:?}");
        Ok(())
    }

    async fn log(&mut self, lease: Nth, again: u64, lines: usize) -> Kept {
        let Some(lease) = latest(&self.leases, lease) else { return Ok(()) };
        let position = self.reference.logged(lease.job.id).saturating_sub(again);
        let append = self.names.append(lease, position, lines);
        let job = lease.job.id;
        must_eq!(
            self.t.log_as(append.clone()).await?,
            self.reference.log(&append),
            "the answer to {append:?}"
        );
        self.compare_log(job).await
    }

    async fn amend(&mut self, jobs: &[Nth], action: &step::Action, preview: bool) -> Kept {
        // The layers see to it that no id comes twice.
        let ids: BTreeSet<JobId> = jobs.iter().filter_map(|nth| latest(&self.jobs, *nth)).copied().collect();
        let ids: Vec<JobId> = ids.into_iter().collect();
        let action = self.names.action(action, self.reference.now);
        let request = Amend { select: Select::Ids(ids.clone()), action: action.clone(), preview };
        let told = self.t.backend().amend(in_time(0), request.clone()).await?;
        let wanted: Vec<_> =
            ids.iter().map(|id| (*id, self.reference.amend(*id, &action, preview))).collect();
        must_eq!(told.jobs, wanted, "the answers to {request:?}");
        Ok(())
    }

    async fn amend_matching(
        &mut self,
        filter: &step::Filter,
        action: &step::Action,
        preview: bool,
        page: usize,
    ) -> Kept {
        let (filter, action) = (self.names.filter(filter), self.names.action(action, self.reference.now));
        let meant = self.reference.list(&filter, Order::OldestFirst);
        let meant: Vec<JobId> = meant.into_iter().map(|job| job.id).collect();
        let (mut told, mut after) = (Vec::new(), None);
        loop {
            let as_of = self.reference.now;
            let select = Select::Matching { filter: filter.clone(), as_of, after, limit: page };
            let request = Amend { select, action: action.clone(), preview };
            let amended = self.t.backend().amend(in_time(0), request).await?;
            must!(amended.jobs.len() <= page, "{} jobs were amended, not {page}", amended.jobs.len());
            told.extend(amended.jobs);
            after = amended.next;
            if after.is_none() {
                break;
            }
        }
        let wanted: Vec<_> =
            meant.iter().map(|id| (*id, self.reference.amend(*id, &action, preview))).collect();
        must_eq!(told, wanted, "the answers to {action:?} of {filter:?}");
        Ok(())
    }

    async fn prune(&mut self) -> Kept {
        let request = Prune { limit: 1_000, workers_after: Duration::from_secs(2) };
        let told = self.t.backend().prune(in_time(0), request).await?;
        must_eq!(told, self.reference.prune(&request));
        Ok(())
    }

    async fn list(&mut self, filter: &step::Filter, order: Order, page: usize) -> Kept {
        let filter = self.names.filter(filter);
        let told = self.t.list(&filter, order, page).await?;
        must_eq!(told, self.reference.list(&filter, order), "the list of {filter:?}");
        Ok(())
    }

    fn pass_to_edge(&mut self, edge: u8, off: i8) {
        let edges = self.reference.edges();
        if let Some(edge) = edges.get(usize::from(edge) % edges.len().max(1)) {
            self.pass_to(Timestamp::from_millis(edge.as_millis() + i64::from(off)));
        }
    }

    fn pass_to(&mut self, hour: Timestamp) {
        let hour = hour.max(self.reference.now);
        self.clock.set(hour);
        self.reference.now = hour;
    }

    /// Every job and every count must be as the reference has them.
    async fn compare(&self) -> Kept {
        let ids: Vec<JobId> = self.names.all_ids(&self.jobs);
        for (id, found) in ids.iter().zip(self.t.find_all(&ids).await?) {
            same_job(found.as_ref(), self.reference.find(*id).as_ref())?;
        }
        let queues = self.names.queues();
        let told = self.t.counts_of_all(&queues).await?;
        for (queue, mut told) in queues.iter().zip(told) {
            told.states.retain(|_, count| *count > 0);
            must_eq!(told, self.reference.counts(queue));
        }
        Ok(())
    }

    pub(super) async fn compare_log(&self, job: JobId) -> Kept {
        let source = leasehold_core::backend::LogSource::Job(job);
        let page = self.t.read_log(source, 0, 1_000).await?;
        must!(page.lines.is_sorted_by(|a, b| a.sequence < b.sequence), "sequences: {:?}", page.lines);
        let told: Vec<_> = page.lines.into_iter().map(super::names::line).collect();
        must_eq!(told, self.reference.lines(job), "the log of {job}");
        Ok(())
    }

    /// Removes all that there is, so that the next sequence begins anew: nothing may be left of it.
    async fn clear(&mut self) -> Kept {
        self.pass_to(self.reference.now.plus(Duration::from_hours(1)));
        let held: Vec<Settlement> = self.leases.iter().map(|lease| self.names.end(lease)).collect();
        for settlements in held.chunks(50) {
            self.t.backend().settle(in_time(0), Settle { settlements: settlements.to_vec() }).await?;
        }
        let ids = self.names.all_ids(&self.jobs);
        self.t.amend_all(&ids, leasehold_core::backend::Action::Delete).await?;
        self.clear_rest().await?;
        for queue in self.names.queues() {
            let counts = self.t.counts_of(&queue).await?;
            must_eq!(counts.enqueued, counts.deleted, "when all jobs were deleted: {counts:?}");
        }
        let list = List { filter: self.names.any_queue(), order: Order::OldestFirst, after: None, limit: 10 };
        let left = self.t.backend().list(in_time(0), list).await?;
        must!(left.jobs.is_empty(), "all jobs were deleted, and these are there: {:?}", left.jobs);
        Ok(())
    }
}

/// The one that is so many before the latest; counts round.
pub(super) fn latest<T>(all: &[T], nth: Nth) -> Option<&T> {
    all.get(all.len().checked_sub(1 + usize::from(nth) % all.len().max(1))?)
}

fn token_and_lease(lease: &LeasedJob) -> (JobId, LeaseToken, Duration) {
    (lease.job.id, lease.token, lease.lease)
}

fn entry(told: &Enqueued) -> Result<(JobId, Entry), Trouble> {
    let entry = match &told.answer {
        EnqueueAnswer::Created => Entry::Created,
        EnqueueAnswer::Existing => Entry::Existing,
        EnqueueAnswer::Held => Entry::Held,
        EnqueueAnswer::Replaced => Entry::Replaced,
        EnqueueAnswer::Refused(why) => return Err(Trouble::Unmet(format!("it was refused: {why:?}"))),
    };
    Ok((told.job, entry))
}

fn names_of(request: &Enqueue) -> Vec<JobId> {
    request.jobs.iter().map(|job| job.id).collect()
}

/// Says which fields differ, since a whole record is more than one can read.
fn same_job(found: Option<&JobRecord>, wanted: Option<&JobRecord>) -> Kept {
    if found == wanted {
        return Ok(());
    }
    let lines = |job: Option<&JobRecord>| format!("{job:#?}").lines().map(str::to_owned).collect::<Vec<_>>();
    let (found, wanted) = (lines(found), lines(wanted));
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>().join("\n")
    };
    let id = wanted.get(2).or(found.get(2)).cloned().unwrap_or_default();
    Err(Breach::new(format!(
        "the job {id} is not as it should be\n found\n{}\n wanted\n{}",
        only(&found, &wanted),
        only(&wanted, &found)
    )))
}
