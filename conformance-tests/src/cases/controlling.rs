//! S1, F4 and F5: what operators change, by id and by filter, and what is removed in time.

use std::collections::BTreeSet;

use leasehold_core::backend::{Action, Amend, AmendAnswer, Amended, Filter, Prune, Pruned, Select};
use leasehold_core::{Due, JobId, Keep, QueueName, Reason, State};

use crate::bench::{
    Bench, CANCEL, FAIL, RETRY, SUCCEED, failure, in_time, job, jobs, millis, queue, secs, text, token_of,
};
use crate::breach::{Done, Kept, must, must_eq};
use crate::case::cases;

cases! {
    /// A batch of ids is answered one item per id, in order, and an unknown one spoils no other.
    [F4] amends_ids_in_the_order_asked;
    /// A requeued job begins anew but for its id, its payload and its history.
    [S1] starts_a_requeued_job_anew;
    /// A job that was requeued remembers the failures of its earlier life beside those of the present one.
    [S4, S1] keeps_its_history_over_a_requeue;
    /// Who sends round again what has failed reaches nothing else, and above all nothing that runs.
    [S1, F4] requeues_failed_jobs_and_no_others;
    /// The settlements of the life before a requeue are of no force after it.
    [S1, C2] refuses_the_settlements_of_an_earlier_life;
    /// A moved job runs from its new queue, and one that runs is not moved.
    [S1] moves_jobs_between_queues;
    /// A job that is in the queue already is told to be so in any state, as a repeated call must be told.
    [S1, E2] answers_a_move_to_where_a_job_is_as_done;
    /// A new priority counts at once in the order of claims.
    [C6] reorders_a_waiting_job;
    /// A postponed job is due at its new time, sooner or later than before.
    [C8, S1] postpones_a_waiting_job;
    /// A deleted job is gone for every reader, and counted as deleted.
    [S2] deletes_a_job_for_every_reader;
    /// A preview tells what would be done, and does none of it.
    [F4] changes_nothing_in_a_preview;
    /// A change by filter goes in bounded batches and touches each matching job once.
    [F4] amends_by_filter_in_bounded_batches;
    /// A change by filter touches no job that was enqueued after it was asked for.
    [F4] leaves_later_jobs_out_of_an_amendment;
    /// A change that makes its jobs match no more still ends, and has reached all of them.
    [F4] amends_all_jobs_that_leave_the_filter;
    /// An ended job is removed once its retention has passed, and not a moment before.
    [F5, C8] prunes_an_ended_job_after_its_retention;
    /// A job that has not ended is never pruned, nor one that is kept for ever.
    [F5] prunes_no_living_job;
    /// A pruning removes a bounded batch and tells whether there is more.
    [F5] prunes_in_bounded_batches;
    /// Of jobs that are requeued while others prune, none is removed that the requeue was told to have brought back.
    [F5, S2] prunes_no_job_that_is_requeued_meanwhile;
    /// A requeued job is not pruned by the retention of its earlier end.
    [F5, S1] forgets_the_retention_of_a_requeued_job;
}

async fn amend_matching(t: &Bench, filter: Filter, action: Action, limit: usize) -> Done<Vec<Amended>> {
    let (as_of, mut after, mut batches) = (t.hour(), None, Vec::new());
    loop {
        let select = Select::Matching { filter: filter.clone(), as_of, after, limit };
        let request = Amend { select, action: action.clone(), preview: false };
        let amended = t.backend().amend(in_time(0), request).await?;
        after = amended.next.clone();
        batches.push(amended);
        if after.is_none() {
            return Ok(batches);
        }
    }
}

fn of_state(state: State) -> Filter {
    let mut filter = Filter::default();
    filter.states = Some(vec![state]);
    filter
}

async fn amends_ids_in_the_order_asked(t: Bench) -> Kept {
    let mut asked = t.add_all(jobs(3)).await?;
    let running = t.take().await?.job.id;
    asked.reverse();
    asked.insert(1, JobId::generate());
    let answers = t.amend_all(&asked, Action::Delete).await?;
    let wanted = [
        AmendAnswer::Applied,
        AmendAnswer::NotFound,
        AmendAnswer::Applied,
        AmendAnswer::Refused(State::Running),
    ];
    must_eq!(answers, wanted);
    must_eq!(t.find(running).await?.state, State::Running);
    must_eq!(t.amend_all(&[], Action::Cancel).await?, []);
    Ok(())
}

async fn starts_a_requeued_job_anew(t: Bench) -> Kept {
    let mut lease = t.hold_this(job().max_attempts(3)).await?;
    t.lose(&lease, crate::bench::LOST_ATTEMPT).await?;
    lease = t.take().await?;
    t.settle_failing(&lease, FAIL, failure("io", "broken")).await?;
    let ended = t.find(lease.job.id).await?;
    t.advance(secs(5));
    let requeue = Action::Requeue { due: Due::In(secs(10)) };
    must_eq!(t.amend(ended.id, requeue).await?, AmendAnswer::Applied);
    let job = t.find(ended.id).await?;
    must_eq!((job.state, job.reason), (State::Scheduled, Some(Reason::Requeued)));
    must_eq!((job.attempt, job.crashes, job.generation), (0, 0, ended.generation + 1));
    must_eq!((job.progress.clone(), job.result.clone()), (None, None));
    must_eq!((job.finished_at, job.expires_at), (None, None));
    must_eq!((job.due, job.enqueued_at), (t.hour().plus(secs(10)), ended.enqueued_at));
    must_eq!((job.history, job.payload, job.options), (ended.history, ended.payload, ended.options));
    t.advance(secs(10));
    must_eq!(t.take().await?.job.attempt, 1);
    Ok(())
}

async fn keeps_its_history_over_a_requeue(t: Bench) -> Kept {
    let first = t.hold().await?;
    let id = first.job.id;
    t.settle_failing(&first, FAIL, failure("io", "in the first life")).await?;
    must_eq!(t.amend(id, Action::Requeue { due: Due::Now }).await?, AmendAnswer::Applied);
    let second = t.take().await?;
    must_eq!(second.job.history.len(), 1, "failures that a handler of the second life is shown");
    t.settle_failing(&second, FAIL, failure("io", "in the second life")).await?;
    let kept: Vec<String> = t.find(id).await?.history.into_iter().map(|failure| failure.message).collect();
    must_eq!(kept, ["in the first life", "in the second life"]);
    Ok(())
}

async fn requeues_failed_jobs_and_no_others(t: Bench) -> Kept {
    let mut ended = Vec::new();
    for verdict in [FAIL, SUCCEED, CANCEL, FAIL] {
        let lease = t.hold().await?;
        t.finish(&lease, verdict).await?;
        ended.push(lease.job.id);
    }
    let running = t.hold().await?;
    let later = t.add(job().delay(secs(60))).await?;
    let others = [running.job.id, later, ended[1], ended[2]];
    let before = t.find_all(&others).await?;
    let batches = amend_matching(&t, of_state(State::Failed), Action::Requeue { due: Due::Now }, 10).await?;
    let touched: BTreeSet<JobId> =
        batches.iter().flat_map(|batch| &batch.jobs).map(|(job, _)| *job).collect();
    must_eq!(touched, BTreeSet::from([ended[0], ended[3]]));
    must_eq!(t.find_all(&others).await?, before);
    let given: Vec<JobId> = t.claim_all(1).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [ended[0], ended[3]]);
    t.finish(&running, SUCCEED).await?;
    Ok(())
}

async fn refuses_the_settlements_of_an_earlier_life(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let result = leasehold_core::backend::Verdict::Succeed { result: Some(text("old")) };
    t.finish(&lease, result.clone()).await?;
    t.amend(lease.job.id, Action::Requeue { due: Due::Now }).await?;
    let again = t.take().await?;
    let before = t.find(again.job.id).await?;
    must_eq!(t.settle(&lease, RETRY).await?, leasehold_core::backend::Answer::Lost);
    must!(t.settle(&lease, result).await? != leasehold_core::backend::Answer::Applied, "applied twice");
    must_eq!(t.recover(token_of(&lease), FAIL).await?, leasehold_core::backend::Answer::Lost);
    must_eq!(t.find(again.job.id).await?, before);
    t.finish(&again, SUCCEED).await?;
    must_eq!(t.find(again.job.id).await?.result, None);
    Ok(())
}

async fn moves_jobs_between_queues(t: Bench) -> Kept {
    let to = queue("elsewhere");
    let ids = t.add_all([job(), job().delay(secs(5))]).await?;
    let running = t.take().await?;
    must_eq!(
        t.amend(running.job.id, Action::Move { queue: to.clone() }).await?,
        AmendAnswer::Refused(State::Running)
    );
    must_eq!(t.amend(ids[1], Action::Move { queue: to.clone() }).await?, AmendAnswer::Applied);
    t.advance(secs(5));
    must_eq!(t.claim(5).await?.len(), 0);
    must_eq!(t.claim_from(&to, 5).await?.iter().map(|lease| lease.job.id).collect::<Vec<_>>(), [ids[1]]);
    t.finish(&running, SUCCEED).await?;
    Ok(())
}

async fn answers_a_move_to_where_a_job_is_as_done(t: Bench) -> Kept {
    let here = Action::Move { queue: QueueName::default() };
    let id = t.add(job()).await?;
    must_eq!(t.amend(id, here.clone()).await?, AmendAnswer::AlreadyApplied, "of a waiting job");
    let lease = t.take().await?;
    must_eq!(t.amend(id, here.clone()).await?, AmendAnswer::AlreadyApplied, "of a running job");
    t.finish(&lease, SUCCEED).await?;
    must_eq!(t.amend(id, here).await?, AmendAnswer::AlreadyApplied, "of an ended job");
    must_eq!(t.counts().await?.enqueued, 1, "a move to where it is was counted");
    Ok(())
}

async fn reorders_a_waiting_job(t: Bench) -> Kept {
    let ids = t.add_all(jobs(4)).await?;
    let up = Action::Reprioritise { priority: 5 };
    must_eq!(t.amend(ids[2], up.clone()).await?, AmendAnswer::Applied);
    must_eq!(t.amend(ids[2], up).await?, AmendAnswer::AlreadyApplied);
    must_eq!(t.amend(ids[0], Action::Reprioritise { priority: -1 }).await?, AmendAnswer::Applied);
    let given: Vec<JobId> = t.claim_all(1).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [ids[2], ids[1], ids[3], ids[0]]);
    Ok(())
}

async fn postpones_a_waiting_job(t: Bench) -> Kept {
    let ids = t.add_all([job().delay(secs(100)), job(), job()]).await?;
    must_eq!(t.amend(ids[0], Action::Postpone { due: Due::Now }).await?, AmendAnswer::Applied);
    must_eq!(t.amend(ids[1], Action::Postpone { due: Due::In(secs(10)) }).await?, AmendAnswer::Applied);
    let early = Due::At(t.hour().minus(secs(1)));
    must_eq!(t.amend(ids[2], Action::Postpone { due: early }).await?, AmendAnswer::Applied);
    let given: Vec<JobId> = t.claim_all(1).await?.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [ids[2], ids[0]]);
    t.advance(secs(10));
    must_eq!(t.take().await?.job.id, ids[1]);
    Ok(())
}

async fn deletes_a_job_for_every_reader(t: Bench) -> Kept {
    let (kept, gone) = (t.add(job()).await?, t.add(job()).await?);
    must_eq!(t.amend(gone, Action::Delete).await?, AmendAnswer::Applied);
    must_eq!(t.amend(gone, Action::Delete).await?, AmendAnswer::NotFound);
    let other = t.another().await?;
    must_eq!(other.find_all(&[gone]).await?, [None]);
    let listed = other.list(&Filter::default(), Default::default(), 9).await?;
    must_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), [kept]);
    let counts = other.counts().await?;
    must_eq!((counts.total(), counts.enqueued, counts.deleted), (1, 2, 1));
    must_eq!(other.claim(9).await?.len(), 1);
    Ok(())
}

async fn changes_nothing_in_a_preview(t: Bench) -> Kept {
    let running = t.hold().await?.job.id;
    let id = t.add(job()).await?;
    let before = (t.find(id).await?, t.find(running).await?, t.all_counts().await?);
    let actions = [
        (Action::Cancel, AmendAnswer::Applied, AmendAnswer::Requested),
        (Action::Delete, AmendAnswer::Applied, AmendAnswer::Refused(State::Running)),
        (
            Action::Requeue { due: Due::Now },
            AmendAnswer::Refused(State::Queued),
            AmendAnswer::Refused(State::Running),
        ),
        (Action::Reprioritise { priority: 3 }, AmendAnswer::Applied, AmendAnswer::Applied),
    ];
    for (action, of_waiting, of_running) in actions {
        for select in [
            Select::Ids(vec![id, running]),
            Select::Matching { filter: Filter::default(), as_of: t.hour(), after: None, limit: 9 },
        ] {
            let request = Amend { select, action: action.clone(), preview: true };
            let told: BTreeSet<JobId> = BTreeSet::from([id, running]);
            let answer = t.backend().amend(in_time(0), request).await?.jobs;
            must_eq!(answer.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), told);
            must!(answer.contains(&(id, of_waiting)), "{action:?} of a waiting job: {answer:?}");
            must!(answer.contains(&(running, of_running)), "{action:?} of a running job: {answer:?}");
        }
    }
    must_eq!((t.find(id).await?, t.find(running).await?, t.all_counts().await?), before);
    Ok(())
}

async fn amends_by_filter_in_bounded_batches(t: Bench) -> Kept {
    let mine: BTreeSet<JobId> =
        t.add_all((0..25).map(|_| job().queue(queue("a")))).await?.into_iter().collect();
    t.add_all(jobs(10)).await?;
    let mut filter = Filter::default();
    filter.queues = Some(vec![queue("a")]);
    let batches = amend_matching(&t, filter, Action::Reprioritise { priority: 9 }, 10).await?;
    let mut touched = Vec::new();
    for batch in batches {
        must!(batch.jobs.len() <= 10, "a batch of 10 had {} jobs", batch.jobs.len());
        must!(batch.jobs.iter().all(|(_, answer)| *answer == AmendAnswer::Applied), "{:?}", batch.jobs);
        touched.extend(batch.jobs.into_iter().map(|(id, _)| id));
    }
    must_eq!(touched.len(), 25);
    must_eq!(touched.into_iter().collect::<BTreeSet<_>>(), mine);
    for id in mine {
        must_eq!(t.find(id).await?.options.priority, 9);
    }
    Ok(())
}

async fn leaves_later_jobs_out_of_an_amendment(t: Bench) -> Kept {
    let early = t.add_all(jobs(4)).await?;
    let as_of = t.hour();
    t.advance(millis(1));
    let late = t.add_all(jobs(4)).await?;
    let select = Select::Matching { filter: Filter::default(), as_of, after: None, limit: 100 };
    let request = Amend { select, action: Action::Cancel, preview: false };
    let amended = t.backend().amend(in_time(0), request).await?;
    must_eq!(amended.jobs.iter().map(|(id, _)| *id).collect::<Vec<_>>(), early);
    for id in late {
        must_eq!(t.state(id).await?, State::Queued);
    }
    Ok(())
}

async fn amends_all_jobs_that_leave_the_filter(t: Bench) -> Kept {
    t.add_all(jobs(23)).await?;
    amend_matching(&t, of_state(State::Queued), Action::Cancel, 5).await?;
    must_eq!(t.counts().await?.of(State::Cancelled), 23);
    amend_matching(&t, of_state(State::Cancelled), Action::Requeue { due: Due::Now }, 5).await?;
    must_eq!(t.counts().await?.of(State::Queued), 23);
    amend_matching(&t, Filter::default(), Action::Delete, 5).await?;
    let counts = t.counts().await?;
    must_eq!((counts.total(), counts.deleted), (0, 23));
    Ok(())
}

async fn prune(t: &Bench, limit: usize) -> Done<Pruned> {
    let request = Prune { limit, workers_after: secs(3_600) };
    Ok(t.backend().prune(in_time(0), request).await?)
}

async fn prunes_an_ended_job_after_its_retention(t: Bench) -> Kept {
    let lease = t.hold_this(job().keep(Keep::For(secs(60)))).await?;
    t.finish(&lease, SUCCEED).await?;
    t.advance(secs(60));
    must_eq!(prune(&t, 10).await?.jobs, 0, "jobs pruned at the end of their retention");
    t.advance(millis(1));
    must_eq!(prune(&t, 10).await?.jobs, 1, "jobs pruned after their retention");
    must_eq!(t.find_all(&[lease.job.id]).await?, [None]);
    let counts = t.counts().await?;
    must_eq!((counts.total(), counts.enqueued, counts.deleted), (0, 1, 1));
    Ok(())
}

async fn prunes_no_job_that_is_requeued_meanwhile(t: Bench) -> Kept {
    const JOBS: usize = 20;
    let other = t.another().await?;
    for _ in 0..10 {
        let ids = t.add_all((0..JOBS).map(|_| job().keep(Keep::For(secs(10))))).await?;
        for lease in t.claim(JOBS).await? {
            t.finish(&lease, SUCCEED).await?;
        }
        t.advance(secs(11));
        let action = Action::Requeue { due: Due::Now };
        let requeue = async {
            let mut requeued = Vec::new();
            for id in &ids {
                if other.amend(*id, action.clone()).await? == AmendAnswer::Applied {
                    requeued.push(*id);
                }
                tokio::task::yield_now().await;
            }
            Ok::<_, crate::breach::Trouble>(requeued)
        };
        let (pruned, requeued) = futures::join!(prune(&t, JOBS), requeue);
        let (pruned, requeued) = (pruned?.jobs as usize, requeued?);
        let there = t.find_all(&requeued).await?.into_iter().flatten().count();
        must_eq!(there, requeued.len(), "requeued jobs that are there");
        must_eq!(pruned + requeued.len(), JOBS, "jobs pruned and jobs requeued");
        t.amend_all(&requeued, Action::Delete).await?;
    }
    Ok(())
}

async fn prunes_no_living_job(t: Bench) -> Kept {
    let short = || job().keep(Keep::For(secs(0)));
    let ids = t.add_all([short(), short().delay(secs(9_999)), short()]).await?;
    t.take().await?;
    let kept = t.hold_this(job().queue(queue("b")).keep(Keep::Forever)).await?;
    t.finish(&kept, FAIL).await?;
    t.advance(secs(100 * 24 * 3_600));
    must_eq!(prune(&t, 100).await?.jobs, 0);
    must!(t.find_all(&ids).await?.iter().all(Option::is_some), "a living job was pruned");
    must_eq!(t.state(kept.job.id).await?, State::Failed);
    Ok(())
}

async fn prunes_in_bounded_batches(t: Bench) -> Kept {
    t.add_all((0..25).map(|_| job().keep(Keep::For(secs(1))))).await?;
    for lease in t.claim(25).await? {
        t.finish(&lease, SUCCEED).await?;
    }
    t.advance(secs(2));
    let mut removed = Vec::new();
    loop {
        let pruned = prune(&t, 10).await?;
        removed.push(pruned.jobs);
        if !pruned.more {
            break;
        }
        must!(removed.len() < 10, "it tells for ever that there is more to prune");
    }
    must!(removed.iter().all(|jobs| *jobs <= 10), "batches of 10 removed {removed:?}");
    must_eq!(removed.iter().sum::<u64>(), 25);
    must_eq!(prune(&t, 10).await?, Pruned::default());
    Ok(())
}

async fn forgets_the_retention_of_a_requeued_job(t: Bench) -> Kept {
    let lease = t.hold_this(job().keep(Keep::For(secs(1)))).await?;
    t.finish(&lease, SUCCEED).await?;
    must_eq!(t.amend(lease.job.id, Action::Requeue { due: Due::Now }).await?, AmendAnswer::Applied);
    t.advance(secs(60));
    must_eq!(prune(&t, 10).await?.jobs, 0);
    must_eq!(t.take().await?.job.id, lease.job.id);
    Ok(())
}
