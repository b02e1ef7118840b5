//! F3: events make waiting short, and nothing rests on them.

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::BoxStream;
use leasehold_core::backend::{Action, Event, Watch};
use leasehold_core::{State, UniqueScope};

use crate::bench::{Bench, RETRY, SUCCEED, in_time, job, jobs, lines, queue, secs, unique_key};
use crate::breach::{Done, Kept, Trouble, must, must_eq};
use crate::case::cases;

cases! {
    /// Whoever watches is told that jobs wait.
    [F3] tells_that_jobs_wait needs [Events];
    /// Whoever watches is told of a job's states, or that something is missing.
    [F3] tells_how_a_job_goes_on needs [Events];
    /// A holder that watches need not wait for its renewal to learn that its job was cancelled.
    [F3, S5] tells_a_holder_of_a_cancellation needs [Events];
    /// Whoever follows a log is told of new lines, and whoever watches queues of their settings.
    [F3, L3] tells_of_new_lines_and_settings needs [Events];
    /// Who did not ask for new lines is not told of them.
    [F3] tells_of_new_lines_only_who_asked needs [Events];
    /// A job that is replaced wakes who waits: it may be due sooner than it was.
    [F3, P4] tells_that_a_replaced_job_waits needs [Events];
    /// Only events of the asked queues come.
    [F3] tells_of_the_asked_queues_only needs [Events];
    /// What another client does is told as well.
    [F3] tells_what_other_clients_do needs [SharedEvents];
    /// A reader that does not read holds up nobody, and is told that it missed something.
    [F3] lets_a_slow_reader_hold_up_nobody needs [Events];
    /// Losing every event loses no job.
    [F3] loses_no_job_with_its_events;
}

async fn watch(t: &Bench, request: Watch) -> Done<BoxStream<'static, Event>> {
    Ok(t.backend().watch(in_time(0), request).await?)
}

/// Reads until such an event comes, or one that says that it may have been missed.
async fn await_event(
    events: &mut BoxStream<'static, Event>,
    what: &str,
    wanted: impl Fn(&Event) -> bool,
) -> Done<Event> {
    let find = async {
        while let Some(event) = events.next().await {
            if event == Event::Gap || wanted(&event) {
                return Some(event);
            }
        }
        None
    };
    match tokio::time::timeout(secs(10), find).await {
        Ok(Some(event)) => Ok(event),
        Ok(None) => Err(Trouble::Unmet(format!("the events ended before it was told {what}"))),
        Err(_) => Err(Trouble::Unmet(format!("within 10 s it was not told {what}"))),
    }
}

fn waits(event: &Event) -> bool {
    matches!(event, Event::Waiting { .. })
}

async fn tells_that_jobs_wait(t: Bench) -> Kept {
    let mut events = watch(&t, Watch::default()).await?;
    t.add(job()).await?;
    await_event(&mut events, "that a job was enqueued", waits).await?;
    let lease = t.take().await?;
    t.finish(&lease, RETRY).await?;
    await_event(&mut events, "that a job was retried", waits).await?;
    Ok(())
}

async fn tells_how_a_job_goes_on(t: Bench) -> Kept {
    let mut events = watch(&t, Watch::default()).await?;
    let lease = t.hold().await?;
    t.finish(&lease, SUCCEED).await?;
    let id = lease.job.id;
    for wanted in [State::Running, State::Succeeded] {
        let changed = |event: &Event| match event {
            Event::Changed { job, state, .. } => *job == id && *state == wanted,
            _ => false,
        };
        if await_event(&mut events, &format!("that the job was {wanted}"), changed).await? == Event::Gap {
            return Ok(());
        }
    }
    Ok(())
}

async fn tells_a_holder_of_a_cancellation(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let mut events = watch(&t, Watch::default()).await?;
    t.amend(lease.job.id, Action::Cancel).await?;
    let asked = |event: &Event| matches!(event, Event::CancelRequested { job, .. } if *job == lease.job.id);
    await_event(&mut events, "that its job was cancelled", asked).await?;
    Ok(())
}

async fn tells_of_new_lines_and_settings(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let mut events = watch(&t, Watch { queues: None, logs: true }).await?;
    t.log(&lease, 0, lines(["x"])).await?;
    await_event(&mut events, "of a new line", |event| matches!(event, Event::Logged { .. })).await?;
    t.pause(&queue("a"), true).await?;
    await_event(&mut events, "of a paused queue", |event| matches!(event, Event::QueueSet { .. })).await?;
    t.pause(&queue("a"), false).await?;
    await_event(&mut events, "of a resumed queue", |event| matches!(event, Event::QueueSet { .. })).await?;
    Ok(())
}

async fn tells_that_a_replaced_job_waits(t: Bench) -> Kept {
    let job = || job().replace(unique_key("key"), UniqueScope::UntilFinished);
    t.add(job().delay(secs(60))).await?;
    let mut events = watch(&t, Watch::default()).await?;
    t.enqueue([job()]).await?;
    await_event(&mut events, "that a job was made due at once", waits).await?;
    Ok(())
}

async fn tells_of_new_lines_only_who_asked(t: Bench) -> Kept {
    let lease = t.hold().await?;
    let asked = Watch { queues: Some(vec![lease.job.queue.clone()]), logs: true };
    let (mut asked, mut others) = (watch(&t, asked).await?, watch(&t, Watch::default()).await?);
    t.log(&lease, 0, lines(["x"])).await?;
    await_event(&mut asked, "of a new line", |event| matches!(event, Event::Logged { .. })).await?;
    t.pause(&queue("the end"), true).await?;
    loop {
        let event = await_event(&mut others, "of a paused queue", |_| true).await?;
        must!(!matches!(event, Event::Logged { .. }), "it was told of a line that it had not asked for");
        if matches!(event, Event::QueueSet { .. } | Event::Gap) {
            return Ok(());
        }
    }
}

async fn tells_of_the_asked_queues_only(t: Bench) -> Kept {
    let mut events = watch(&t, Watch { queues: Some(vec![queue("a")]), logs: false }).await?;
    t.add(job().queue(queue("b"))).await?;
    t.add(job().queue(queue("a"))).await?;
    let first = await_event(&mut events, "of a job of the asked queue", |_| true).await?;
    must!(first.queue().is_none_or(|name| *name == queue("a")), "it was told of another queue: {first:?}");
    Ok(())
}

async fn tells_what_other_clients_do(t: Bench) -> Kept {
    let other = t.another().await?;
    let mut events = watch(&t, Watch::default()).await?;
    other.add(job()).await?;
    await_event(&mut events, "that another client enqueued a job", waits).await?;
    Ok(())
}

async fn lets_a_slow_reader_hold_up_nobody(t: Bench) -> Kept {
    const JOBS: usize = 20_000;
    // So few that each is told, and not only that many changed.
    const FEW: usize = 50;
    let mut events = watch(&t, Watch::default()).await?;
    let mut ended = BTreeSet::new();
    for _ in 0..JOBS / FEW {
        t.add_all(jobs(FEW)).await?;
        let lease = t.take().await?;
        t.finish(&lease, SUCCEED).await?;
        ended.insert(lease.job.id);
    }
    // The reader wakes up. Any may be missing, but most of them cannot be missing unsaid.
    let jobs = ended.len();
    while ended.len() >= jobs / 2 {
        match await_event(&mut events, "of what it had missed", |_| true).await? {
            Event::Changed { job, state: State::Succeeded, .. } => drop(ended.remove(&job)),
            Event::Gap | Event::Changes => return Ok(()),
            _ => {}
        }
    }
    Ok(())
}

async fn loses_no_job_with_its_events(t: Bench) -> Kept {
    // Nobody watches, and what would have been told is told to nobody.
    t.add_all(jobs(5)).await?;
    t.add(job().delay(secs(5))).await?;
    t.advance(secs(5));
    must_eq!(t.another().await?.claim(10).await?.len(), 6);
    Ok(())
}
