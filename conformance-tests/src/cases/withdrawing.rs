//! P8: jobs that are to go on in another store.

use std::collections::BTreeMap;

use leasehold_core::backend::{Action, Amend, AmendAnswer, Prune, Select};
use leasehold_core::{Due, JobId, Keep, State, UniqueScope};

use super::moving::carried;
use crate::bench::{Bench, CANCEL, FAIL, SUCCEED, in_time, job, jobs, queue, secs, unique_key};
use crate::breach::{Breach, Kept, must, must_eq};
use crate::case::cases;

cases! {
    /// Withdrawing takes out what waits, as it is, and nothing else.
    [P8, S1, S2] withdraws_what_waits_and_nothing_else;
    /// A withdrawn job is left alone by whatever else is asked of it, and by age.
    [P8, F5, S5] leaves_a_withdrawn_job_alone;
    /// A restored job waits as it did, with its unique key or not at all.
    [P8, P4] restores_a_job_with_its_key_or_not_at_all;
    /// What ended is removed only if it has not been sent round again since it was looked at.
    [P8, S1] deletes_no_job_that_was_sent_round_again;
    /// Of those that withdraw jobs while others claim them, one gets each job, and all are told so.
    [P8, C1, S2] gives_each_job_to_a_worker_or_to_a_mover;
    /// A preview of these words answers the same and changes nothing.
    [P8, F4] changes_nothing_in_a_preview_of_a_move;
}

async fn withdraws_what_waits_and_nothing_else(t: Bench) -> Kept {
    let waiting = t.add_all([job(), job().delay(secs(60)), job().parked()]).await?;
    let mut others = Vec::new();
    for end in [SUCCEED, FAIL, CANCEL] {
        let lease = t.hold_this(job().priority(9)).await?;
        t.finish(&lease, end).await?;
        others.push(lease.job.id);
    }
    let running = t.hold_this(job().priority(9)).await?;
    others.push(running.job.id);
    for id in &waiting {
        let before = t.find(*id).await?;
        must_eq!(t.amend(*id, Action::Withdraw).await?, AmendAnswer::Applied);
        let after = t.find(*id).await?;
        must!(after.is_withdrawn(), "{after:?}");
        must_eq!((after.finished_at, after.expires_at), (Some(t.hour()), None));
        let mut back = carried(after, t.hour());
        back.reason = before.reason;
        must_eq!(back, before, "what else a withdrawal changed");
        must_eq!(t.amend(*id, Action::Withdraw).await?, AmendAnswer::AlreadyApplied);
    }
    for id in others {
        let before = t.find(id).await?;
        for action in [Action::Withdraw, Action::Restore] {
            must_eq!(t.amend(id, action).await?, AmendAnswer::Refused(before.state));
        }
        must_eq!(t.find(id).await?, before);
    }
    let counts = t.counts().await?;
    must_eq!((counts.of(State::Cancelled), counts.of(State::Queued), counts.of(State::Scheduled)), (4, 0, 0));
    must_eq!((counts.enqueued, counts.deleted), (7, 0));
    t.advance(secs(120));
    must_eq!(t.claim(9).await?.len(), 0);
    must_eq!(t.amend(JobId::generate(), Action::Withdraw).await?, AmendAnswer::NotFound);
    t.finish(&running, SUCCEED).await?;
    Ok(())
}

async fn leaves_a_withdrawn_job_alone(t: Bench) -> Kept {
    let id = t.add(job().keep(Keep::For(secs(1)))).await?;
    must_eq!(t.amend(id, Action::Withdraw).await?, AmendAnswer::Applied);
    let before = t.find(id).await?;
    let actions = [
        Action::Cancel,
        Action::CancelParked,
        Action::Requeue { due: Due::Now },
        Action::Postpone { due: Due::Now },
        Action::Unpark { due: Due::Now },
        Action::Reprioritise { priority: 3 },
        Action::Move { queue: queue("elsewhere") },
        Action::DeleteEnded { by: t.hour().minus(secs(1)) },
    ];
    for action in actions {
        must_eq!(t.amend(id, action.clone()).await?, AmendAnswer::Refused(State::Cancelled), "{action:?}");
    }
    must_eq!(t.find(id).await?, before);
    t.advance(secs(3_600));
    let prune = Prune { limit: 9, workers_after: secs(9_999) };
    must_eq!(t.backend().prune(in_time(0), prune).await?.jobs, 0);
    must_eq!(t.find(id).await?, before);
    must_eq!(t.amend(id, Action::DeleteEnded { by: t.hour() }).await?, AmendAnswer::Applied);
    must_eq!(t.find_all(&[id]).await?, [None]);
    must_eq!(t.counts().await?.deleted, 1);
    Ok(())
}

async fn restores_a_job_with_its_key_or_not_at_all(t: Bench) -> Kept {
    let keyed = |scope| job().unique(unique_key("k"), scope);
    for scope in [UniqueScope::UntilClaimed, UniqueScope::UntilFinished] {
        let id = t.add(keyed(scope)).await?;
        let before = t.find(id).await?;
        must_eq!(t.amend(id, Action::Restore).await?, AmendAnswer::AlreadyApplied);
        must_eq!(t.amend(id, Action::Withdraw).await?, AmendAnswer::Applied);
        let other = t.add(keyed(scope)).await?;
        must_eq!(t.amend(id, Action::Restore).await?, AmendAnswer::Held(other), "{scope:?}");
        must!(t.find(id).await?.is_withdrawn(), "it was refused, and is not withdrawn any more");
        must_eq!(t.amend(other, Action::Delete).await?, AmendAnswer::Applied);
        must_eq!(t.amend(id, Action::Restore).await?, AmendAnswer::Applied);
        must_eq!(t.find(id).await?, before);
        must_eq!(t.enqueue([keyed(scope)]).await?[0].job, id, "{scope:?}");
        let lease = t.take().await?;
        must_eq!(lease.job.id, id);
        t.finish(&lease, SUCCEED).await?;
    }
    Ok(())
}

async fn deletes_no_job_that_was_sent_round_again(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let id = lease.job.id;
    let by = |at| Action::DeleteEnded { by: at };
    must_eq!(t.amend(id, by(t.hour())).await?, AmendAnswer::Refused(State::Running));
    t.finish(&lease, SUCCEED).await?;
    let listed = t.hour();
    t.advance(secs(1));
    must_eq!(t.amend(id, Action::Requeue { due: Due::Now }).await?, AmendAnswer::Applied);
    must_eq!(t.amend(id, by(listed)).await?, AmendAnswer::Refused(State::Queued));
    let lease = t.take().await?;
    t.finish(&lease, SUCCEED).await?;
    must_eq!(t.amend(id, by(listed)).await?, AmendAnswer::Refused(State::Succeeded));
    must_eq!(t.amend(id, by(t.hour())).await?, AmendAnswer::Applied);
    must_eq!(t.amend(id, by(t.hour())).await?, AmendAnswer::NotFound);
    must_eq!((t.counts().await?.total(), t.counts().await?.deleted), (0, 1));
    Ok(())
}

async fn gives_each_job_to_a_worker_or_to_a_mover(t: Bench) -> Kept {
    let ids = t.add_all(jobs(200)).await?;
    let clients = t.several(4).await?;
    let mut working = Vec::new();
    for client in &clients[..2] {
        let client = client.clone();
        working.push(tokio::spawn(async move {
            let mut ran = Vec::new();
            loop {
                let leases = client.claim(3).await?;
                if leases.is_empty() {
                    return Ok::<_, Breach>(ran);
                }
                for lease in leases {
                    client.finish(&lease, SUCCEED).await?;
                    ran.push(lease.job.id);
                }
            }
        }));
    }
    let mut moving = Vec::new();
    for (client, ids) in clients[2..].iter().cloned().zip([ids.clone(), ids.iter().rev().copied().collect()])
    {
        moving.push(tokio::spawn(async move {
            let mut told = Vec::new();
            for some in ids.chunks(7) {
                told.extend(some.iter().copied().zip(client.amend_all(some, Action::Withdraw).await?));
            }
            Ok::<Vec<(JobId, AmendAnswer)>, Breach>(told)
        }));
    }
    let mut taken: BTreeMap<JobId, (usize, usize)> = BTreeMap::new();
    for task in working {
        for id in task.await?? {
            taken.entry(id).or_default().0 += 1;
        }
    }
    for task in moving {
        for (id, answer) in task.await?? {
            taken.entry(id).or_default().1 += usize::from(answer == AmendAnswer::Applied);
        }
    }
    for id in ids {
        let (ran, moved) = taken.get(&id).copied().unwrap_or_default();
        must_eq!(ran + moved, 1, "the job {id} ran {ran} times and was withdrawn {moved} times");
        must_eq!(t.find(id).await?.is_withdrawn(), moved == 1, "the job {id}");
    }
    Ok(())
}

async fn changes_nothing_in_a_preview_of_a_move(t: Bench) -> Kept {
    let lease = t.hold().await?;
    t.finish(&lease, SUCCEED).await?;
    let ids = [t.add(job()).await?, t.add(job()).await?, lease.job.id];
    must_eq!(t.amend(ids[1], Action::Withdraw).await?, AmendAnswer::Applied);
    let before = (t.find_all(&ids).await?, t.all_counts().await?);
    use AmendAnswer::{AlreadyApplied, Applied, Refused};
    let succeeded = Refused(State::Succeeded);
    let told = [
        (Action::Withdraw, [Applied, AlreadyApplied, succeeded]),
        (Action::Restore, [AlreadyApplied, Applied, succeeded]),
        (Action::DeleteEnded { by: t.hour() }, [Refused(State::Queued), Applied, Applied]),
    ];
    for (action, told) in told {
        let request = Amend { select: Select::Ids(ids.to_vec()), action: action.clone(), preview: true };
        let answers = t.backend().amend(in_time(3), request).await?.jobs;
        must_eq!(answers.into_iter().map(|(_, answer)| answer).collect::<Vec<_>>(), told, "{action:?}");
    }
    must_eq!((t.find_all(&ids).await?, t.all_counts().await?), before);
    Ok(())
}
