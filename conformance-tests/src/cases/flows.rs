//! F9: jobs that wait for jobs, which are made of ordinary operations: parked jobs, and registers.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use leasehold_core::backend::{Action, Filter, Registers, Space};
use leasehold_core::flow::{Flow, FlowRecord, FlowState, OnParentFailure};
use leasehold_core::policy::BoxError;
use leasehold_core::{
    Attempt, Consumer, Due, ErrorKind, FlowId, JobRecord, Keep, LeasedJob, NewJob, Payload, Reason, State,
    Worker,
};
use tokio::sync::mpsc;

use crate::bench::{Bench, SUCCEED, in_time, job, secs, text};
use crate::breach::{Breach, Done, Kept, must, must_eq};
use crate::case::cases;
use crate::history::Rules;
use crate::options::options;
use crate::processes::{Crew, Hour, Order, Said, bound};

cases! {
    /// A job of a flow is given out once all that it waits for have succeeded, and none before all are there.
    [F9, P7] runs_a_job_after_those_it_waits_for;
    /// What waits for a job that did not succeed is cancelled, goes on waiting, or runs anyway, as its producer said.
    [F9, P7] does_to_children_of_a_failure_what_was_said;
    /// One job fans out to many, and a callback runs once when all have ended, and sees how.
    [F9] calls_back_once_when_all_have_ended;
    /// A flow goes on though everybody who heard of an end is gone.
    [F9, F3] leads_a_flow_on_though_nobody_heard_of_an_end;
    /// A job of a flow that cannot be read counts as failed, and stops no other.
    [F9, B3] goes_on_beside_a_job_that_cannot_be_read;
    /// A flow that is enqueued again is there once; one whose enqueue was broken off leaves nothing.
    [F9, E2, E4] keeps_all_of_a_flow_or_nothing;
    /// A flow is cancelled with all its jobs, and kept with them as long as it was to be.
    [F9, F5, S5] ends_and_removes_a_flow_as_a_whole;
    /// What did not succeed of a flow goes round again when it is retried, though a retry was cut off and others remember how it
    /// had ended.
    [F9, S1] sends_a_flow_round_again;
    /// A flow that was cancelled goes on when it is retried.
    [F9, S1, S5] goes_on_with_a_cancelled_flow;
    /// Workers that run a flow are killed at any moment, and jobs of it fail: each job runs if and only if it may, and
    /// the callback once.
    [F9, C3, S2] runs_a_flow_though_workers_die needs [Processes] within bound;
}

/// The payload of a job that fails.
pub(crate) const FAIL: &[u8] = b"fail";
/// The payload of a job that looks at all that it waited for.
pub(crate) const LOOK: &[u8] = b"look";

fn flow(name: &str) -> Done<Flow> {
    Ok(Flow::new(name)?)
}

fn failing() -> NewJob {
    let mut job = job().max_attempts(1);
    job.payload = Payload::from(FAIL.to_vec());
    job
}

fn indices(leases: &[LeasedJob]) -> Vec<u32> {
    leases.iter().filter_map(|lease| Some(leasehold_core::flow::Member::of(&lease.job)?.index)).collect()
}

async fn members(t: &Bench, flow: FlowId) -> Done<Vec<JobRecord>> {
    let (flows, mut all) = (t.store().flows(), Vec::new());
    loop {
        let page = flows.members(flow, all.len() as u32, 500).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page.into_iter().filter_map(|member| member.job));
    }
}

/// Runs a worker until the flow has ended.
async fn run(t: &Bench, id: FlowId) -> Done<FlowRecord> {
    async fn handle(attempt: Attempt) -> Result<(), BoxError> {
        if attempt.job().payload.as_bytes() == FAIL { Err("as it was told".into()) } else { Ok(()) }
    }
    let store = t.store();
    let worker = Worker::builder(&store).handle("work", handle).build()?.start();
    let ended = store.flows().wait(id, secs(60)).await?;
    worker.stop().await?;
    Ok(ended)
}

async fn goes_on_beside_a_job_that_cannot_be_read(t: Bench) -> Kept {
    let mut flow = flow("damaged")?;
    let first = flow.add(job())?;
    let damaged = flow.after(first).add(job())?;
    let beside = flow.after(first).add(job())?;
    flow.after_end(damaged).after(beside).add(job())?;
    t.store().flows().enqueue(&flow).await?;
    t.damage(flow.id().member(1)).await?;
    let record = run(&t, flow.id()).await?;
    let counts = record.counts;
    must_eq!((record.state, counts.succeeded, counts.failed), (FlowState::Failed, 3, 1));
    Ok(())
}

async fn runs_a_job_after_those_it_waits_for(t: Bench) -> Kept {
    let mut flow = flow("diamond")?;
    let top = flow.add(job())?;
    let sides = flow.after(top).add_all([job(), job()])?;
    let bottom = flow.after(sides).add(job())?;
    flow.after(bottom).chain([job(), job().delay(secs(10))])?;
    t.store().flows().enqueue(&flow).await?;
    let mut consumer = t.store().queue("default")?.consumer();
    for expected in [vec![0], vec![1, 2], vec![3], vec![4]] {
        let mut held = Vec::new();
        while let Some(next) = consumer.next().await? {
            held.push(next);
        }
        let given: Vec<u32> = held
            .iter()
            .filter_map(|held| Some(leasehold_core::flow::Member::of(held.job())?.index))
            .collect();
        must_eq!(given, expected, "what is given out, once what it waits for has succeeded");
        for held in held {
            held.complete(None).await?;
        }
    }
    must!(consumer.next().await?.is_none(), "a job was given out before its delay was over");
    t.advance(secs(10));
    let last =
        consumer.next().await?.ok_or_else(|| Breach::new("a job was not given out after its delay"))?;
    last.complete(None).await?;
    let record = t.store().flows().get(flow.id()).await?;
    let shown = record.map(|record| (record.name, record.state, record.size, record.counts.succeeded));
    must_eq!(shown, Some(("diamond".to_owned(), FlowState::Succeeded, 6, 6)));
    Ok(())
}

async fn does_to_children_of_a_failure_what_was_said(t: Bench) -> Kept {
    let mut flow = flow("failing")?;
    let bad = flow.add(failing())?;
    let cancelled = flow.after(bad).add(job())?;
    flow.after(cancelled).chain([job(), job()])?;
    flow.after(bad).on_parent_failure(OnParentFailure::Run).add(job())?;
    flow.after_end(cancelled).add(job())?;
    let waits = flow.after(bad).on_parent_failure(OnParentFailure::Wait).add(job())?;
    let id = t.store().flows().enqueue(&flow).await?;
    let store = t.store();
    let summary = Worker::builder(&store)
        .handle("work", async |attempt: Attempt| match attempt.job().payload.as_bytes() {
            FAIL => Err(BoxError::from("as it was told")),
            _ => Ok(()),
        })
        .until_idle()
        .build()?
        .run()
        .await;
    must_eq!((summary.succeeded, summary.failed), (2, 1));
    let states = |jobs: &[JobRecord]| jobs.iter().map(|job| job.state).collect::<Vec<_>>();
    use State::{Cancelled, Failed, Scheduled, Succeeded};
    let jobs = members(&t, id).await?;
    must_eq!(states(&jobs), [Failed, Cancelled, Cancelled, Cancelled, Succeeded, Succeeded, Scheduled]);
    for job in jobs.iter().filter(|job| job.state == Cancelled) {
        must_eq!((job.reason, job.attempt), (Some(Reason::Dependency), 0));
    }
    must!(jobs[waits.index() as usize].is_parked(), "what goes on waiting is not parked");
    // An operator sends it round again, and this time it succeeds.
    must_eq!(store.requeue(jobs[0].id).await?, leasehold_core::backend::AmendAnswer::Applied);
    let lease = t.take().await?;
    t.finish(&lease, SUCCEED).await?;
    t.advance(secs(120));
    must_eq!(run(&t, id).await?.state, FlowState::Failed, "three of its jobs were cancelled");
    must_eq!(members(&t, id).await?[waits.index() as usize].state, Succeeded);
    Ok(())
}

async fn calls_back_once_when_all_have_ended(t: Bench) -> Kept {
    const JOBS: usize = 300;
    let mut flow = flow("callback")?;
    let first = flow.add(job())?;
    let bad = |n: &usize| n % 100 == 7;
    let parts = flow.after(first).add_all((0..JOBS).map(|n| if bad(&n) { failing() } else { job() }))?;
    let callback = NewJob::new(leasehold_core::Kind::new("callback")?, text("")).max_attempts(1);
    flow.after_end(parts).add(callback)?;
    let (says, mut said) = mpsc::channel(10);
    let see = move |attempt: Attempt| {
        let says = says.clone();
        async move {
            let states = attempt.parents().map_ok(|job| job.state).try_collect::<Vec<State>>().await?;
            says.send(states).await.map_err(BoxError::from)
        }
    };
    let act = async |attempt: Attempt| match attempt.job().payload.as_bytes() {
        FAIL => Err(BoxError::from("as it was told")),
        _ => Ok(()),
    };
    let store = t.store();
    let worker = Worker::builder(&store).handle("work", act).handle("callback", see).build()?.start();
    let id = store.flows().enqueue(&flow).await?;
    let ended = store.flows().wait(id, secs(60)).await?;
    worker.stop().await?;
    let counts = (ended.counts.succeeded as usize, ended.counts.failed as usize);
    must_eq!((ended.state, counts), (FlowState::Failed, (JOBS - 1, 3)));
    let states = said.recv().await.unwrap_or_default();
    let failed = states.iter().filter(|state| **state == State::Failed).count();
    must_eq!((states.len(), failed), (JOBS, 3), "what the callback saw");
    must!(said.recv().await.is_none(), "the callback ran twice");
    Ok(())
}

async fn leads_a_flow_on_though_nobody_heard_of_an_end(t: Bench) -> Kept {
    let mut flow = flow("unheard")?;
    let roots = flow.add_all([job(), job()])?;
    let middle = flow.after(roots).add_all([job(), job(), job()])?;
    flow.after_end(middle).add(job())?;
    let flows = t.store().flows();
    flows.enqueue(&flow).await?;
    for expected in [vec![0, 1], vec![2, 3, 4], vec![5]] {
        let given = t.claim_all(10).await?;
        must_eq!(indices(&given), expected);
        for lease in &given {
            t.finish(lease, SUCCEED).await?;
        }
        must_eq!(t.claim(10).await?.len(), 0, "jobs that were given out though nobody let them go");
        // Somebody else looks after it.
        t.advance(secs(120));
        t.another().await?.store().flows().drive_due().await?;
    }
    let ended = flows.get(flow.id()).await?.map(|flow| (flow.state, flow.counts.succeeded));
    must_eq!(ended, Some((FlowState::Succeeded, 6)));
    Ok(())
}

/// Takes the one job that is due, and ends it.
async fn end_next(consumer: &mut Consumer, expected: u32, well: bool) -> Kept {
    let held = consumer.next().await?;
    let found = held.as_ref().and_then(|held| leasehold_core::flow::Member::of(held.job()));
    must_eq!(found.map(|member| member.index), Some(expected), "the next job");
    let Some(held) = held else { return Ok(()) };
    if well {
        held.complete(None).await?;
    } else {
        held.fail("not yet").await?;
    }
    Ok(())
}

async fn sends_a_flow_round_again(t: Bench) -> Kept {
    for was_cut_off in [false, true] {
        let mut flow = flow("retried")?;
        let first = flow.add(job())?;
        let fails = flow.after(first).add(job().max_attempts(1))?;
        let after = flow.after(fails).add(job())?;
        flow.after_end(after).add(job())?;
        t.store().flows().enqueue(&flow).await?;
        let (one, other) = (t.another().await?.store(), t.another().await?.store());
        let (mut ones, mut others) = (one.queue("default")?.consumer(), other.queue("default")?.consumer());
        end_next(&mut ones, 0, true).await?;
        end_next(&mut others, 1, false).await?;
        end_next(&mut ones, 3, true).await?;
        let ended = t.store().flows().wait(flow.id(), secs(0)).await?;
        must_eq!((ended.state, ended.counts.failed, ended.counts.cancelled), (FlowState::Failed, 1, 1));
        if was_cut_off {
            for job in [1, 2] {
                t.amend(flow.id().member(job), Action::Requeue { due: Due::PARKED }).await?;
            }
        }
        let retried = t.store().flows().retry(flow.id()).await?;
        must_eq!((retried.state, retried.counts.succeeded), (FlowState::Running, 2));
        // Both remember that it failed.
        end_next(&mut others, 1, true).await?;
        end_next(&mut ones, 2, true).await?;
        must!(ones.next().await?.is_none(), "a job that had succeeded was given out again");
        let ended = t.store().flows().wait(flow.id(), secs(0)).await?;
        must_eq!((ended.state, ended.counts.succeeded), (FlowState::Succeeded, 4), "cut off: {was_cut_off}");
        must_eq!(t.store().flows().retry(flow.id()).await?.state, FlowState::Succeeded, "one that succeeded");
    }
    Ok(())
}

async fn goes_on_with_a_cancelled_flow(t: Bench) -> Kept {
    let mut flow = flow("cancelled")?;
    let first = flow.add(job())?;
    flow.after(first).chain([job(), job()])?;
    let flows = t.store().flows();
    flows.enqueue(&flow).await?;
    let store = t.another().await?.store();
    let mut consumer = store.queue("default")?.consumer();
    end_next(&mut consumer, 0, true).await?;
    must_eq!(flows.cancel(flow.id()).await?.state, FlowState::Cancelled);
    must!(consumer.next().await?.is_none(), "a job of a cancelled flow was given out");
    must_eq!(flows.retry(flow.id()).await?.state, FlowState::Running);
    end_next(&mut consumer, 1, true).await?;
    end_next(&mut consumer, 2, true).await?;
    let ended = flows.wait(flow.id(), secs(0)).await?;
    must_eq!((ended.state, ended.counts.succeeded), (FlowState::Succeeded, 3));
    let missing = flows.retry(FlowId::generate()).await.map(|flow| flow.state).map_err(|error| error.kind());
    must_eq!(missing, Err(ErrorKind::NotFound));
    Ok(())
}

async fn keeps_all_of_a_flow_or_nothing(t: Bench) -> Kept {
    let mut whole = flow("whole")?;
    let mut steps: Vec<_> = whole.add_all([job(), job()])?.steps().collect();
    // Too large a plan for the flow's own register.
    for n in 2..600_usize {
        steps.push(whole.after([steps[n / 3], steps[n - 1]]).add(job())?);
    }
    let flows = t.store().flows();
    for _ in 0..2 {
        must_eq!(flows.enqueue(&whole).await?, whole.id());
    }
    let other = t.another().await?.store().flows();
    let again = futures::future::join_all([flows.enqueue(&whole), other.enqueue(&whole)]).await;
    must!(again.iter().all(Result::is_ok), "a flow that is there could not be enqueued again: {again:?}");
    must_eq!(t.counts().await?.total(), 600);
    must_eq!(indices(&t.claim_all(100).await?), [0, 1]);
    // One that is broken off, at each of its calls.
    let mut half = flow("half")?;
    half.chain((0..30).map(|_| job()))?;
    let mut broken_off = 0;
    for polls in [1, 2, 3, 5, 8, 13, 21, 34] {
        broken_off += usize::from(crate::bench::drop_after(polls, flows.enqueue(&half)).await.is_none());
    }
    t.advance(secs(600));
    flows.drive_due().await?;
    t.advance(secs(1_200));
    flows.drive_due().await?;
    let jobs = t.list(&Filter::default(), leasehold_core::backend::Order::OldestFirst, 1_000).await?.len();
    match flows.get(half.id()).await? {
        Some(there) => must_eq!((there.state, jobs), (FlowState::Running, 630)),
        None => must_eq!(jobs, 600, "after it was broken off {broken_off} times"),
    }
    Ok(())
}

async fn ends_and_removes_a_flow_as_a_whole(t: Bench) -> Kept {
    let mut flow = flow("cancelled")?.keep(Keep::For(secs(3_600)));
    let first = flow.add_all([job(), job()])?;
    flow.after(first).chain([job(), job()])?;
    let flows = t.store().flows();
    flows.enqueue(&flow).await?;
    let lease = t.take().await?;
    must_eq!(flows.cancel(flow.id()).await?.state, FlowState::Cancelling);
    let states: Vec<State> = members(&t, flow.id()).await?.iter().map(|job| job.state).collect();
    must_eq!(states, [State::Running, State::Cancelled, State::Cancelled, State::Cancelled]);
    t.finish(&lease, crate::bench::retry_in(secs(1))).await?;
    t.advance(secs(120));
    flows.drive_due().await?;
    let ended = flows.get(flow.id()).await?.map(|flow| (flow.state, flow.counts.cancelled));
    must_eq!(ended, Some((FlowState::Cancelled, 4)));
    t.advance(secs(3_590));
    flows.drive_due().await?;
    must_eq!(members(&t, flow.id()).await?.len(), 4);
    t.advance(secs(20));
    flows.drive_due().await?;
    must_eq!(flows.get(flow.id()).await?, None);
    must_eq!(t.counts().await?.total(), 0);
    for space in [Space::Flow, Space::FlowPlan] {
        let left = t.backend().registers(in_time(0), Registers::all(space, 10)).await?;
        must_eq!(left.registers, []);
    }
    Ok(())
}

const WIDTH: usize = 30;

/// Layers of jobs of which each waits for some of the layer before, and a callback when all have ended.
fn layered(size: usize) -> Done<Flow> {
    let mut flow = flow("layered")?;
    let mut layer: Vec<_> = flow.add_all((0..WIDTH).map(|_| job().max_attempts(1)))?.steps().collect();
    while flow.len() + WIDTH < size {
        let mut next = Vec::new();
        for _ in 0..WIDTH {
            let does = if fastrand::u8(..20) == 0 { failing() } else { job().max_attempts(1) };
            let some = || fastrand::choice(&layer).copied().into_iter().collect::<Vec<_>>();
            let (one, other) = (some(), some());
            let adding = match fastrand::u8(..4) {
                0 => flow.after(one).after(other),
                1 => flow.after(one).after_end(other),
                2 => flow.after_end(one).after_end(other),
                _ => flow.after(one).on_parent_failure(OnParentFailure::Run),
            };
            next.push(adding.add(does)?);
        }
        layer = next;
    }
    let mut look = job();
    look.payload = Payload::from(LOOK.to_vec());
    let all = flow.group(0..flow.len() as u32)?;
    flow.after_end(all).add(look)?;
    Ok(flow)
}

/// Hears two children out, and kills whichever of them begins so many jobs later with another one. Answers whether one was.
async fn work(crew: &mut Crew, pair: [usize; 2], mut dies_after: Option<usize>) -> Kept<bool> {
    let (mut busy, mut killed) = (BTreeSet::from(pair), None);
    while !busy.is_empty() {
        let (who, said) = crew.hear().await?;
        match said {
            Said::Count(_) if dies_after == Some(0) && pair.contains(&who) => {
                crew.kill(who)?;
                (dies_after, killed) = (None, Some(who));
            }
            Said::Count(_) => dies_after = dies_after.map(|left| left - 1),
            Said::Done if killed != Some(who) => drop(busy.remove(&who)),
            Said::Gone if killed == Some(who) => drop(busy.remove(&who)),
            // It may have been done before the signal came; and those of earlier rounds are sent home now and then.
            Said::Done | Said::Gone => {}
            other => return Err(Breach::new(format!("child {who} said {other:?}"))),
        }
    }
    Ok(killed.is_some())
}

async fn runs_a_flow_though_workers_die(t: Bench) -> Kept {
    let size = options().flow as usize;
    let mut crew = Crew::gather(&t, Hour::Manual).await?;
    let flow = layered(size)?;
    let flows = crew.t.store().flows();
    flows.enqueue(&flow).await?;
    let mut kills = 0;
    let (most_kills, rounds) = (8 + size / 100, 40 + size / 20);
    for _ in 0..rounds {
        let pair = [crew.start(&[]).await?, crew.start(&[]).await?];
        for child in pair {
            crew.tell(child, &Order::WorkFlows)?;
        }
        let dies_after = (kills < most_kills).then(|| fastrand::usize(1..20));
        kills += usize::from(work(&mut crew, pair, dies_after).await?);
        crew.pass(120).await?;
        if flows.get(flow.id()).await?.is_none_or(|flow| flow.state.is_terminal()) {
            break;
        }
    }
    must!(kills > 0, "nobody was killed");
    let ended = flows.get(flow.id()).await?.ok_or_else(|| Breach::new("the flow is gone"))?;
    must!(ended.state.is_terminal(), "the flow has not ended after {rounds} rounds: {ended:?}");
    let jobs = members(&crew.t, flow.id()).await?;
    must_eq!(jobs.len(), flow.len());
    for (job, (after, after_end)) in jobs.iter().zip(flow.conditions()) {
        let of = |all: &[std::ops::Range<u32>]| {
            all.iter().cloned().flatten().map(|index| jobs[index as usize].state).collect::<Vec<_>>()
        };
        let may_run = of(&after).iter().all(|state| *state == State::Succeeded);
        let is_over = of(&after_end).iter().all(|state| state.is_terminal());
        must!(is_over, "a job ran before one that it waited for had ended: {job:?}");
        let ran = job.attempt > 0 && job.state != State::Cancelled;
        must_eq!(ran, may_run, "whether a job ran, after {kills} kills: {job:?}");
        must!(
            may_run || job.reason == Some(Reason::Dependency),
            "it was cancelled for another reason: {job:?}"
        );
    }
    let callback = jobs.last().ok_or_else(|| Breach::new("there is no callback"))?;
    must_eq!(
        (callback.state, callback.attempt - callback.crashes, callback.generation),
        (State::Succeeded, 1, 0)
    );
    let failed = jobs.iter().filter(|job| job.state == State::Failed).count();
    if size as u64 > crate::options::FLOW {
        eprintln!("{size} jobs, {kills} kills, {failed} failed, {} cancelled", ended.counts.cancelled);
    }
    let ran = jobs.iter().filter(|job| job.attempt > 0).count();
    // What was granted to who died then is not known to have been.
    crew.verdict(&Rules::drained(ran / 2)).await?;
    Ok(())
}
