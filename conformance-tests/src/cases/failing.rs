//! E1, B3 and B6: answers that do not come, records that cannot be read, stores that are away.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_core::backend::{Answer, Claim, Counts, Enqueue, EnqueueAnswer, Filter, Order};
use leasehold_core::layer::Faults;
use leasehold_core::{Deadline, ErrorKind, JobId, State, Worker};
use tokio::sync::Notify;

use crate::bench::{Bench, LEASE, LOST_ATTEMPT, SUCCEED, in_time, job, jobs, millis, secs, token_of};
use crate::breach::{Kept, must, must_eq};
use crate::case::cases;

cases! {
    /// A call whose request or answer was lost is unknown and never failed, and made again it has the effect of one.
    [E1, E2] calls_a_lost_answer_unknown;
    /// A call that did not answer by its deadline is unknown if it writes, and unavailable if it only reads.
    [E1, E3] calls_a_call_without_an_answer_unknown of the client;
    /// However short its deadline, a call that is told to have had no effect has had none.
    [E1, E3] calls_nothing_unavailable_that_has_happened;
    /// A record that cannot be read is set aside as failed, reported, and stops no claim of the others.
    [B3] sets_an_unreadable_record_aside;
    /// One that is listed or asked for is named apart, and hides no other.
    [B3, F4] shows_the_others_beside_an_unreadable_record;
    /// A store that is away is a transient error, and is used again when it is back: nothing is lost by it.
    [B6, C2] answers_with_a_transient_error_while_it_is_away;
    /// A worker whose store was away goes on when it is back.
    [B6] lets_a_worker_go_on_when_it_is_back;
}

async fn calls_a_lost_answer_unknown(t: Bench) -> Kept {
    let sound = t.store();
    let lost = [
        (Faults { reply_lost: 1.0, ..Faults::default() }, true),
        (Faults { request_lost: 1.0, ..Faults::default() }, false),
    ];
    for (faults, happens) in lost {
        let bad = t.over_a_line(faults, &[], millis(500));
        let request = Enqueue { jobs: vec![job()] };
        let id = request.jobs[0].id;
        let answer = bad.queue("default")?.enqueue(request.jobs[0].clone()).await;
        must_eq!(answer.map_err(|error| error.kind()), Err(ErrorKind::Unknown));
        must_eq!(t.find_all(&[id]).await?[0].is_some(), happens, "whether it had happened");
        let again = sound.backend().enqueue(in_time(0), request).await?;
        let known = matches!(again[0].answer, EnqueueAnswer::Existing);
        must_eq!(known, happens, "whether the second call found the job of the first");
    }
    must_eq!(t.counts().await?.enqueued, 2);
    Ok(())
}

async fn calls_a_call_without_an_answer_unknown(t: Bench) -> Kept {
    let silent = t.over_a_line(Faults { hung: 1.0, ..Faults::default() }, &[], secs(5));
    let soon = || Deadline::after(millis(30));
    let backend = silent.backend();
    let enqueue = backend.enqueue(soon(), Enqueue { jobs: vec![job()] }).await.map(drop);
    must_eq!(enqueue.map_err(|error| error.kind()), Err(ErrorKind::Unknown));
    let claim = backend.claim(soon(), t.asking(1)).await.map(drop);
    must_eq!(claim.map_err(|error| error.kind()), Err(ErrorKind::Unknown));
    let counts = backend.counts(soon(), Counts::default()).await.map(drop);
    must_eq!(counts.map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
    must_eq!(t.counts().await?.enqueued, 0);
    Ok(())
}

async fn calls_nothing_unavailable_that_has_happened(t: Bench) -> Kept {
    let (mut there, mut not_there, mut unknown) = (Vec::new(), Vec::new(), 0);
    for micros in (0..4_000).step_by(100) {
        let deadline = Deadline::after(std::time::Duration::from_micros(micros));
        let new = job();
        let id = new.id;
        match t.backend().enqueue(deadline, Enqueue { jobs: vec![new] }).await {
            Ok(_) => there.push(id),
            Err(error) if error.kind() == ErrorKind::Unavailable => not_there.push(id),
            Err(error) => {
                must_eq!(error.kind(), ErrorKind::Unknown, "{error:?}");
                unknown += 1;
            }
        }
    }
    must!(not_there.len() + unknown > 0, "no call was too late, so nothing was tried");
    let other = t.another().await?;
    must!(other.find_all(&there).await?.iter().all(Option::is_some), "an acknowledged job is not there");
    let found: Vec<JobId> = other.find_all(&not_there).await?.into_iter().flatten().map(|j| j.id).collect();
    must_eq!(found, [], "jobs whose enqueue was told to have had no effect");
    Ok(())
}

async fn sets_an_unreadable_record_aside(t: Bench) -> Kept {
    let ids = t.add_all(jobs(5)).await?;
    t.damage(ids[2]).await?;
    let claimed = t.backend().claim(in_time(0), Claim { limit: 10, ..t.asking(10) }).await?;
    let given: Vec<JobId> = claimed.jobs.iter().map(|lease| lease.job.id).collect();
    must_eq!(given, [ids[0], ids[1], ids[3], ids[4]]);
    must_eq!(claimed.set_aside.len(), 1, "records that were reported");
    must!(claimed.set_aside[0].job.is_none_or(|job| job == ids[2]), "{:?}", claimed.set_aside);
    must_eq!(t.counts().await?.of(State::Failed), 1);
    let again = t.backend().claim(in_time(0), t.asking(10)).await?;
    must_eq!((again.jobs.len(), again.set_aside.len()), (0, 0), "what a second claim meets");
    for lease in &claimed.jobs {
        t.finish(lease, SUCCEED).await?;
    }
    let counts = t.counts().await?;
    must_eq!((counts.of(State::Succeeded), counts.total(), counts.enqueued), (4, 5, 5));
    Ok(())
}

async fn shows_the_others_beside_an_unreadable_record(t: Bench) -> Kept {
    let ids = t.add_all(jobs(5)).await?;
    t.damage(ids[1]).await?;
    let page = t.page(Filter::default(), Order::OldestFirst, None, 10).await?;
    let shown: BTreeSet<JobId> = page.jobs.iter().map(|job| job.id).collect();
    must_eq!(shown, BTreeSet::from([ids[0], ids[2], ids[3], ids[4]]));
    must_eq!(page.unreadable.len(), 1, "records that were named apart");
    let asked = t.backend().find(in_time(0), leasehold_core::backend::Find { ids: vec![ids[1]] });
    must_eq!(asked.await.map_err(|error| error.kind()), Err(ErrorKind::Corrupt));
    must_eq!(t.find(ids[4]).await?.state, State::Queued);
    Ok(())
}

async fn answers_with_a_transient_error_while_it_is_away(t: Bench) -> Kept {
    let (far, mut reach) = t.far().await?;
    let before = far.add(job()).await?;
    let lease = far.take().await?;
    reach.cut().await?;
    let lost = job();
    for _ in 0..2 {
        let request = Enqueue { jobs: vec![lost.clone()] };
        let answer = far.backend().enqueue(Deadline::after(millis(700)), request).await.map(drop);
        let transient = answer.as_ref().err().is_some_and(leasehold_core::Error::is_transient);
        must!(transient, "a store that is away answered {answer:?}");
    }
    reach.mend().await?;
    let store = far.store().patience(secs(30));
    store.queue("default")?.enqueue(lost.clone()).await?;
    far.finish(&lease, SUCCEED).await?;
    must_eq!((t.state(before).await?, t.state(lost.id).await?), (State::Succeeded, State::Queued));
    let next = far.take().await?;
    must_eq!(next.job.id, lost.id);
    t.advance(LEASE + millis(1));
    must_eq!(far.recover(token_of(&next), LOST_ATTEMPT).await?, Answer::Applied);
    Ok(())
}

async fn lets_a_worker_go_on_when_it_is_back(t: Bench) -> Kept {
    let (far, mut reach) = t.far().await?;
    let ran = Arc::new(Notify::new());
    let handler = {
        let ran = Arc::clone(&ran);
        move || {
            ran.notify_one();
            std::future::ready(())
        }
    };
    let store = far.store().patience(millis(700));
    let worker = Worker::builder(&store).poll(millis(20)).handle("work", handler).build()?;
    let worker = worker.start();
    t.add(job()).await?;
    ran.notified().await;
    reach.cut().await?;
    let meanwhile = Enqueue { jobs: vec![job()] };
    let refused = far.backend().enqueue(Deadline::after(millis(300)), meanwhile).await;
    must!(refused.is_err(), "the store was to be away");
    reach.mend().await?;
    store.clone().patience(secs(30)).queue("default")?.enqueue(job()).await?;
    ran.notified().await;
    worker.stop().await?;
    Ok(())
}
