//! S1 and S2 over whole lives: every state against every action, and random lives that are counted at each
//! step.

use std::collections::BTreeMap;

use leasehold_core::backend::{Action, AmendAnswer, Answer, Prune, QueueCounts, Renewed, Settlement};
use leasehold_core::job::Cause;
use leasehold_core::{ClaimId, Due, JobId, Keep, LeasedJob, NewJob, QueueName, State};

use crate::bench::{
    Bench, CANCEL, FAIL, LEASE, LOST_ATTEMPT, SUCCEED, in_time, job, queue, retry_in, secs, token_of,
    verdicts,
};
use crate::breach::{Done, Kept, Trouble, must, must_be, must_eq};
use crate::case::cases;

cases! {
    /// For every state and every action of an operator: what the table of transitions allows happens, and
    /// nothing else does.
    [S1] allows_operators_the_legal_transitions_only;
    /// For every state and every verdict: only a running job is settled, and lands where the table says.
    [S1, C2] allows_holders_the_legal_transitions_only;
    /// Jobs become queued by the passing of time, and counts and lists show it at once.
    [S1, S2] moves_jobs_from_scheduled_to_queued_by_time_alone;
    /// After every step of a random life of many jobs, each is in one state, and the counts say the same as
    /// the jobs.
    [S2] adds_up_after_every_step;
    /// Moved jobs are counted out of one queue and into the other.
    [S2] adds_up_when_jobs_move;
}

/// A job in this state. Running ones come with their lease.
async fn job_in(t: &Bench, state: State) -> Done<(JobId, Option<LeasedJob>)> {
    if state == State::Scheduled {
        return Ok((t.add(job().delay(secs(3_600))).await?, None));
    }
    if state == State::Queued {
        return Ok((t.add(job()).await?, None));
    }
    let lease = t.hold().await?;
    let verdict = match state {
        State::Succeeded => SUCCEED,
        State::Failed => FAIL,
        State::Cancelled => CANCEL,
        State::Scheduled | State::Queued | State::Running => return Ok((lease.job.id, Some(lease))),
    };
    t.finish(&lease, verdict).await?;
    Ok((lease.job.id, None))
}

/// Each action, and the cause by which the table knows it; none for one that is no transition.
fn actions() -> Vec<(Action, Option<(Cause, State)>)> {
    let later = Due::In(secs(7_200));
    vec![
        (Action::Cancel, Some((Cause::Cancel, State::Cancelled))),
        (Action::Requeue { due: Due::Now }, Some((Cause::Requeue, State::Queued))),
        (Action::Requeue { due: later }, Some((Cause::Requeue, State::Scheduled))),
        (Action::Postpone { due: later }, Some((Cause::Postpone, State::Scheduled))),
        (Action::Postpone { due: Due::In(secs(0)) }, Some((Cause::Postpone, State::Queued))),
        (Action::Postpone { due: Due::PARKED }, Some((Cause::Postpone, State::Scheduled))),
        (Action::Move { queue: queue("elsewhere") }, None),
        (Action::Reprioritise { priority: 7 }, None),
        (Action::Delete, None),
    ]
}

async fn allows_operators_the_legal_transitions_only(t: Bench) -> Kept {
    for state in State::ALL {
        for (action, transition) in actions() {
            let (id, lease) = job_in(&t, state).await?;
            let before = t.find(id).await?;
            must_eq!(before.state, state);
            t.advance(secs(1));
            let answer = t.amend(id, action.clone()).await?;
            let after = t.find_all(&[id]).await?.pop().flatten();
            let what = format!("{action:?} of a {state} job, answered {answer:?}");
            match (transition, &action) {
                (Some((cause, to)), _) if state.may_become(to, cause) => {
                    must_eq!(answer, AmendAnswer::Applied, "{what}");
                    must_eq!(after.map(|job| job.state), Some(to), "{what}");
                }
                (Some((Cause::Cancel, _)), _) if state == State::Running => {
                    must_eq!(answer, AmendAnswer::Requested, "{what}");
                    must_eq!(after.map(|job| job.state), Some(state), "{what}");
                }
                (Some((Cause::Cancel, _)), _) if state == State::Cancelled => {
                    must_eq!(answer, AmendAnswer::AlreadyApplied, "{what}");
                    must_eq!(after, Some(before), "{what}");
                }
                (None, Action::Reprioritise { .. }) => {
                    must_eq!(answer, AmendAnswer::Applied, "{what}");
                    must_eq!(after.map(|job| (job.state, job.options.priority)), Some((state, 7)), "{what}");
                }
                (None, Action::Move { queue }) if state != State::Running => {
                    must_eq!(answer, AmendAnswer::Applied, "{what}");
                    must_eq!(after.map(|job| (job.state, job.queue)), Some((state, queue.clone())), "{what}");
                }
                (None, Action::Delete) if state != State::Running => {
                    must_eq!(answer, AmendAnswer::Applied, "{what}");
                    must_eq!(after, None, "{what}");
                }
                _ => {
                    must_eq!(answer, AmendAnswer::Refused(state), "{what}");
                    must_eq!(after, Some(before), "{what}");
                }
            }
            if let Some(lease) = lease {
                t.finish(&lease, CANCEL).await?;
            }
            t.amend(id, Action::Delete).await?;
        }
    }
    Ok(())
}

async fn allows_holders_the_legal_transitions_only(t: Bench) -> Kept {
    for state in State::ALL {
        for (i, verdict) in verdicts().into_iter().chain([retry_in(secs(9))]).enumerate() {
            let (id, lease) = job_in(&t, state).await?;
            let before = t.find(id).await?;
            let what = format!("{verdict:?} of a {state} job");
            if let Some(lease) = lease {
                must_eq!(t.settle(&lease, verdict.clone()).await?, Answer::Applied, "{what}");
                let to = t.state(id).await?;
                let cause =
                    [Cause::Finish, Cause::Finish, Cause::Finish, Cause::Retry, Cause::Release, Cause::Retry]
                        [i];
                must!(state.may_become(to, cause), "{what} led to {to}");
            } else {
                let token = ClaimId::generate().token(id);
                let made_up = Settlement { job: id, token, verdict, failure: None };
                must_eq!(t.settle_this(made_up).await?, Answer::Lost, "{what}");
                must_eq!(t.find(id).await?, before, "{what}");
            }
            t.amend(id, Action::Delete).await?;
        }
    }
    Ok(())
}

async fn moves_jobs_from_scheduled_to_queued_by_time_alone(t: Bench) -> Kept {
    for wait in 1..=4 {
        t.add(job().delay(secs(10 * wait))).await?;
    }
    for due in 0..=4 {
        let counts = t.counts().await?;
        must_eq!((counts.of(State::Scheduled), counts.of(State::Queued)), (4 - due, due));
        let jobs = t.list(&Default::default(), Default::default(), 9).await?;
        let queued = jobs.iter().filter(|job| job.state == State::Queued).count();
        must_eq!(queued as u64, due, "queued jobs in the list");
        t.advance(secs(10));
    }
    Ok(())
}

/// What the jobs themselves say, which the kept counts must agree with.
async fn recount(t: &Bench) -> Done<BTreeMap<QueueName, BTreeMap<State, u64>>> {
    let mut counted: BTreeMap<QueueName, BTreeMap<State, u64>> = BTreeMap::new();
    for job in t.list(&Default::default(), Default::default(), 500).await? {
        *counted.entry(job.queue).or_default().entry(job.state).or_default() += 1;
    }
    Ok(counted)
}

/// Fails unless the counts of all queues are those of their jobs, and add up with the deleted ones.
async fn adds_up(t: &Bench, after: &str) -> Kept {
    let jobs = recount(t).await?;
    for QueueCounts { queue, states, enqueued, deleted, .. } in t.all_counts().await? {
        let wanted = jobs.get(&queue).cloned().unwrap_or_default();
        let states: BTreeMap<State, u64> = states.into_iter().filter(|(_, jobs)| *jobs > 0).collect();
        must_eq!(states, wanted, "the counts of {queue} after {after}");
        let total: u64 = states.values().sum();
        must_eq!(
            total + deleted,
            enqueued,
            "jobs and deleted ones, and enqueued ones, of {queue} after {after}"
        );
    }
    Ok(())
}

/// A random life of many jobs, and what is held at the moment.
struct Life {
    t: Bench,
    held: Vec<LeasedJob>,
    ids: Vec<JobId>,
}

impl Life {
    async fn step(&mut self) -> Done<&'static str> {
        match fastrand::u8(..12) {
            0..=2 => self.enqueue().await,
            3..=4 => self.claim().await,
            5..=7 => self.settle().await,
            8 => self.recover().await,
            9..=10 => self.amend().await,
            _ => self.pass().await,
        }
    }

    async fn enqueue(&mut self) -> Done<&'static str> {
        let jobs: Vec<NewJob> = (0..fastrand::usize(1..4))
            .map(|_| {
                job()
                    .queue(queue(["a", "b"][fastrand::usize(..2)]))
                    .delay(secs(fastrand::u64(..20)))
                    .keep(Keep::For(secs(fastrand::u64(10..100))))
            })
            .collect();
        self.ids.extend(jobs.iter().map(|job| job.id));
        self.t.add_all(jobs).await?;
        Ok("an enqueue")
    }

    async fn claim(&mut self) -> Done<&'static str> {
        let queues = vec![queue("a"), queue("b")];
        let claim = leasehold_core::backend::Claim { queues, ..self.t.asking(fastrand::usize(1..4)) };
        let leases = self.t.claim_as(claim).await?;
        self.held.extend(leases);
        Ok("a claim")
    }

    async fn settle(&mut self) -> Done<&'static str> {
        if self.held.is_empty() {
            return Ok("nothing");
        }
        let lease = self.held.swap_remove(fastrand::usize(..self.held.len()));
        let verdict = verdicts()[fastrand::usize(..5)].clone();
        let answer = self.t.settle(&lease, verdict.clone()).await?;
        if answer == Answer::Applied && self.t.settle(&lease, verdict).await? != Answer::AlreadyApplied {
            return Err(Trouble::Unmet("a repeated settlement was not recognised".into()));
        }
        Ok("a settlement")
    }

    async fn recover(&mut self) -> Done<&'static str> {
        for lost in self.t.expired(3).await? {
            let verdict = if fastrand::bool() { LOST_ATTEMPT } else { FAIL };
            self.t.recover((lost.job, lost.token), verdict).await?;
        }
        Ok("a recovery")
    }

    async fn amend(&mut self) -> Done<&'static str> {
        let due = Due::In(secs(fastrand::u64(..20)));
        let actions = [
            Action::Cancel,
            Action::Requeue { due },
            Action::Delete,
            Action::Move { queue: queue("b") },
            Action::Reprioritise { priority: 1 },
            Action::Postpone { due },
        ];
        let Some(&id) = self.ids.get(fastrand::usize(..self.ids.len().max(1))) else { return Ok("nothing") };
        self.t.amend(id, actions[fastrand::usize(..actions.len())].clone()).await?;
        Ok("an amendment")
    }

    async fn pass(&mut self) -> Done<&'static str> {
        self.t.advance(secs(fastrand::u64(1..30)));
        let request = Prune { limit: 2, workers_after: secs(60) };
        self.t.backend().prune(in_time(0), request).await?;
        Ok("time and a pruning")
    }
}

async fn adds_up_after_every_step(t: Bench) -> Kept {
    let mut life = Life { t: t.clone(), held: Vec::new(), ids: Vec::new() };
    for _ in 0..400 {
        let step = life.step().await?;
        adds_up(&t, step).await?;
    }
    let enqueued: u64 = t.all_counts().await?.iter().map(|counts| counts.enqueued).sum();
    must!(enqueued >= life.ids.len() as u64, "{} jobs were enqueued and {enqueued} counted", life.ids.len());
    Ok(())
}

async fn adds_up_when_jobs_move(t: Bench) -> Kept {
    let (a, b) = (queue("a"), queue("b"));
    let id = t.add(job().queue(a.clone())).await?;
    must_eq!(t.amend(id, Action::Move { queue: b.clone() }).await?, AmendAnswer::Applied);
    must_eq!(t.amend(id, Action::Move { queue: b.clone() }).await?, AmendAnswer::AlreadyApplied);
    let (from, to) = (t.counts_of(&a).await?, t.counts_of(&b).await?);
    must_eq!((from.total(), from.enqueued, from.deleted), (0, 1, 1));
    must_eq!((to.total(), to.enqueued, to.deleted), (1, 1, 0));
    must_eq!(t.claim_from(&a, 1).await?.len(), 0);
    let lease = t.claim_from(&b, 1).await?;
    must_eq!(lease.len(), 1);
    must_be!(t.renew(&lease[0], LEASE).await?, Renewed::Held { .. });
    must_eq!(t.recover(token_of(&lease[0]), FAIL).await?, Answer::Lost);
    adds_up(&t, "the move").await
}
