//! F1 and F2: the workers that announce themselves, and the schedules that they share.

use std::time::Duration;

use leasehold_core::backend::{
    CheckIn, CheckedIn, DeleteSchedule, Level, Prune, PutSchedule, Schedule, Schedules, StopWorkers,
    WorkerInfo, WorkerLine, WorkerRecord, Workers,
};
use leasehold_core::{
    Deadline, ErrorKind, JobId, Payload, ScheduleName, State, Timestamp, UniqueScope, VersionId, WorkerId,
    limits,
};

use super::producing::corpus;
use crate::bench::{
    Bench, SUCCEED, job, kind, millis, queue, schedule_name, secs, tag, text, unique_key, worker_name,
};
use crate::breach::{Done, Kept, Trouble, must, must_eq};
use crate::case::cases;

cases! {
    /// A worker is shown with all that it said of itself, when it came and when it was last heard of.
    [F1] shows_what_workers_say_of_themselves;
    /// What a worker says anew replaces what it said before.
    [F1] shows_the_latest_that_a_worker_said;
    /// A worker's own log is shown as it last told it, byte for byte, also when it is lost or gone.
    [F1, L3] keeps_what_a_worker_said;
    /// A worker that stopped checking in is shown lost, and not a moment before; one that comes back is not.
    [F1, C8] shows_a_silent_worker_lost;
    /// A worker that said that it was going is not lost.
    [F1] shows_a_worker_that_left;
    /// Workers are shown newest first, page by page.
    [F1, F4] shows_the_newest_workers_first;
    /// A worker that is asked to stop learns it at its next check-in, and so do those of a host, and all.
    [F1] tells_workers_to_stop;
    /// Two starts of a worker of the same name are two workers.
    [F1, C3] tells_two_starts_of_a_worker_apart;
    /// Workers that are long gone are forgotten; those that check in are not.
    [F1, F5] forgets_workers_long_gone;
    /// A schedule is written only by who has read its latest version.
    [F2] writes_a_schedule_only_by_its_version;
    /// The same write of a schedule again changes nothing, and is no conflict.
    [F2, E2] writes_a_repeated_schedule_once;
    /// A schedule comes back byte for byte.
    [F2, P6] returns_schedules_byte_for_byte;
    /// Schedules are shown by name, page by page.
    [F2, F4] shows_schedules_by_name;
    /// Only schedules are due whose next tick has come, by the store's clock.
    [F2, C8] shows_the_schedules_that_are_due;
    /// A schedule that was deleted is gone, and one made anew under its name has a version of its own.
    [F2] deletes_a_schedule;
    /// Whatever number of schedulers fire a tick, it is one job.
    [F2, P2] makes_one_job_of_a_tick;
    /// Of schedulers that race to move a schedule on, one does so at each tick.
    [F2] lets_one_of_racing_schedulers_move_a_schedule;
}

fn info(name: &str, host: &str) -> WorkerInfo {
    WorkerInfo::new(worker_name(name), host, 42)
}

async fn check_in(t: &Bench, worker: WorkerId, info: WorkerInfo, leaving: bool) -> Done<CheckedIn> {
    let request = CheckIn { worker, info, lost_after: secs(30), leaving };
    Ok(t.backend().check_in(Deadline::default(), request).await?)
}

async fn workers(t: &Bench, after: Option<WorkerId>, limit: usize) -> Done<Vec<WorkerRecord>> {
    Ok(t.backend().workers(Deadline::default(), Workers { after, limit }).await?)
}

/// The only worker there is.
async fn the_worker(t: &Bench) -> Done<WorkerRecord> {
    let mut all = workers(t, None, 10).await?;
    match (all.pop(), all.pop()) {
        (Some(worker), None) => Ok(worker),
        other => Err(Trouble::Unmet(format!("one worker checked in and these are shown: {other:?}"))),
    }
}

async fn shows_what_workers_say_of_themselves(t: Bench) -> Kept {
    let mut told = info("mailer $where", "host-1.example");
    told.queues = vec![queue("a"), queue("b")];
    told.kinds = vec![kind("mail")];
    told.tags = vec![tag("eu")];
    (told.concurrency, told.running, told.processed) = (8, 3, 1 << 40);
    must_eq!(check_in(&t, t.worker, told.clone(), false).await?, CheckedIn { stop: false });
    let shown = the_worker(&t.another().await?).await?;
    must_eq!((shown.worker, shown.info), (t.worker, told));
    must_eq!((shown.started_at, shown.seen_at), (t.hour(), t.hour()));
    must_eq!((shown.lost, shown.left, shown.stop_requested), (false, false, false));
    Ok(())
}

async fn shows_the_latest_that_a_worker_said(t: Bench) -> Kept {
    let begun = t.hour();
    check_in(&t, t.worker, info("w", "h"), false).await?;
    t.advance(secs(10));
    let mut later = info("w", "h");
    (later.running, later.processed) = (5, 99);
    check_in(&t, t.worker, later.clone(), false).await?;
    let shown = the_worker(&t).await?;
    must_eq!((shown.info, shown.started_at, shown.seen_at), (later, begun, t.hour()));
    Ok(())
}

async fn keeps_what_a_worker_said(t: Bench) -> Kept {
    let levels = [Level::Debug, Level::Info, Level::Warn, Level::Error].into_iter().cycle();
    let texts =
        ["", "$a {\"$set\":1} '; --", "\u{1b}[31mred\r\n\ttab \u{0}", "ä漢\u{1f600}"].into_iter().cycle();
    let line = |(sequence, (level, text)): (u64, (Level, &str))| WorkerLine {
        sequence,
        age: millis(7 * sequence),
        level,
        message: text.repeat(5),
    };
    let lines: Vec<WorkerLine> =
        (1..=limits::WORKER_LINES as u64 + 20).zip(levels.zip(texts)).map(line).collect();
    let mut told = info("w", "h");
    for (lines, leaving) in [(&lines[..1], false), (&lines[..100], false), (&lines[20..], true)] {
        told.log = lines.to_vec();
        check_in(&t, t.worker, told.clone(), leaving).await?;
        must_eq!(the_worker(&t.another().await?).await?.info, told);
    }
    t.advance(secs(60));
    must_eq!(the_worker(&t).await?.info.log, lines[20..]);
    Ok(())
}

async fn shows_a_silent_worker_lost(t: Bench) -> Kept {
    check_in(&t, t.worker, info("w", "h"), false).await?;
    t.advance(secs(30));
    must!(!the_worker(&t).await?.lost, "a worker is shown lost at the last moment that it had");
    t.advance(millis(1));
    must!(the_worker(&t).await?.lost, "a worker is not shown lost that has been silent for too long");
    check_in(&t, t.worker, info("w", "h"), false).await?;
    must!(!the_worker(&t).await?.lost, "a worker is shown lost that came back");
    Ok(())
}

async fn shows_a_worker_that_left(t: Bench) -> Kept {
    check_in(&t, t.worker, info("w", "h"), false).await?;
    check_in(&t, t.worker, info("w", "h"), true).await?;
    t.advance(secs(300));
    let shown = the_worker(&t).await?;
    must_eq!((shown.left, shown.lost), (true, false));
    Ok(())
}

async fn shows_the_newest_workers_first(t: Bench) -> Kept {
    let mut ids: Vec<WorkerId> = (0..7).map(|_| WorkerId::generate()).collect();
    for id in &ids {
        check_in(&t, *id, info("w", "h"), false).await?;
    }
    ids.reverse();
    let (mut shown, mut after) = (Vec::new(), None);
    while let Some(last) =
        workers(&t, after, 3).await?.iter().map(|w| w.worker).inspect(|id| shown.push(*id)).last()
    {
        after = Some(last);
        must!(shown.len() <= 7, "workers are shown again and again: {shown:?}");
    }
    must_eq!(shown, ids);
    Ok(())
}

async fn tells_workers_to_stop(t: Bench) -> Kept {
    let fleet = [("a", "x"), ("b", "x"), ("c", "y"), ("d", "z")];
    let ids: Vec<WorkerId> = fleet.iter().map(|_| WorkerId::generate()).collect();
    let announce = async || -> Done<Vec<bool>> {
        let mut told = Vec::new();
        for (id, (name, host)) in ids.iter().zip(fleet) {
            told.push(check_in(&t, *id, info(name, host), false).await?.stop);
        }
        Ok(told)
    };
    must_eq!(announce().await?, [false; 4]);
    let orders = [
        (StopWorkers::One(ids[3]), 1, [false, false, false, true]),
        (StopWorkers::Host("x".into()), 2, [true, true, false, true]),
        (StopWorkers::One(WorkerId::generate()), 0, [true, true, false, true]),
        (StopWorkers::All, 4, [true; 4]),
    ];
    for (order, asked, told) in orders {
        let what = format!("{order:?}");
        must_eq!(t.backend().stop_workers(Deadline::default(), order).await?, asked, "asked by {what}");
        must_eq!(announce().await?, told, "who is told to stop after {what}");
    }
    must!(workers(&t, None, 9).await?.iter().all(|w| w.stop_requested), "the request to stop is not shown");
    Ok(())
}

async fn tells_two_starts_of_a_worker_apart(t: Bench) -> Kept {
    let (first, second) = (WorkerId::generate(), WorkerId::generate());
    check_in(&t, first, info("same", "h"), false).await?;
    t.advance(secs(31));
    check_in(&t, second, info("same", "h"), false).await?;
    let shown: Vec<_> = workers(&t, None, 9).await?.iter().map(|w| (w.worker, w.lost)).collect();
    must_eq!(shown, [(second, false), (first, true)]);
    Ok(())
}

async fn forgets_workers_long_gone(t: Bench) -> Kept {
    let (gone, here) = (WorkerId::generate(), WorkerId::generate());
    check_in(&t, gone, info("gone", "h"), true).await?;
    check_in(&t, here, info("here", "h"), false).await?;
    t.advance(secs(100));
    check_in(&t, here, info("here", "h"), false).await?;
    let prune = async |after: Duration| {
        t.backend().prune(Deadline::default(), Prune { limit: 10, workers_after: after }).await
    };
    must_eq!(prune(secs(100)).await?.workers, 0);
    must_eq!(prune(secs(99)).await?.workers, 1);
    must_eq!(the_worker(&t).await?.worker, here);
    Ok(())
}

async fn put(
    t: &Bench,
    name: &ScheduleName,
    body: Payload,
    next: Option<Timestamp>,
    expected: Option<VersionId>,
) -> leasehold_core::Result<VersionId> {
    let version = VersionId::generate();
    let request = PutSchedule { name: name.clone(), body, next, version, expected };
    t.backend().put_schedule(Deadline::default(), request).await?;
    Ok(version)
}

async fn schedules(t: &Bench, due: bool, after: Option<ScheduleName>, limit: usize) -> Done<Vec<Schedule>> {
    Ok(t.backend().schedules(Deadline::default(), Schedules { due, after, limit }).await?)
}

async fn names(t: &Bench, due: bool) -> Done<Vec<String>> {
    Ok(schedules(t, due, None, 100).await?.into_iter().map(|s| s.name.to_string()).collect())
}

async fn writes_a_schedule_only_by_its_version(t: Bench) -> Kept {
    let name = schedule_name("nightly");
    let first = put(&t, &name, text("1"), None, None).await?;
    let next = Some(t.hour().plus(secs(9)));
    let second = put(&t, &name, text("2"), next, Some(first)).await?;
    for stale in [None, Some(first), Some(VersionId::generate())] {
        let refused = put(&t, &name, text("3"), None, stale).await.map_err(|error| error.kind());
        must_eq!(refused, Err(ErrorKind::Conflict), "writing with the version {stale:?}");
    }
    let wanted = Schedule { name, body: text("2"), next, version: second };
    must_eq!(schedules(&t.another().await?, false, None, 9).await?, [wanted]);
    let unknown =
        put(&t, &schedule_name("other"), text(""), None, Some(first)).await.map_err(|error| error.kind());
    must_eq!(unknown, Err(ErrorKind::Conflict));
    Ok(())
}

async fn writes_a_repeated_schedule_once(t: Bench) -> Kept {
    let (name, version) = (schedule_name("nightly"), VersionId::generate());
    let request = PutSchedule { name: name.clone(), body: text("1"), next: None, version, expected: None };
    for client in t.several(3).await? {
        client.backend().put_schedule(Deadline::default(), request.clone()).await?;
    }
    must_eq!(schedules(&t, false, None, 9).await?.first().map(|there| there.version), Some(version));
    let second = put(&t, &name, text("2"), None, Some(version)).await?;
    let late = t.backend().put_schedule(Deadline::default(), request).await.map_err(|error| error.kind());
    must_eq!(late, Err(ErrorKind::Conflict), "repeating a write that was written over");
    must_eq!(schedules(&t, false, None, 9).await?.first().map(|there| there.version), Some(second));
    Ok(())
}

async fn returns_schedules_byte_for_byte(t: Bench) -> Kept {
    let name = schedule_name("$odd {name}");
    let mut version = None;
    for body in corpus() {
        version = Some(put(&t, &name, body.clone(), Some(t.hour()), version).await?);
        let found = schedules(&t, true, None, 9).await?;
        must_eq!(found.len(), 1);
        must!(found[0].body == body, "a schedule's body of {} bytes was altered", body.len());
        must_eq!((&found[0].name, Some(found[0].version)), (&name, version));
    }
    Ok(())
}

async fn shows_schedules_by_name(t: Bench) -> Kept {
    for name in ["m", "B", "a", "ä", "z"] {
        put(&t, &schedule_name(name), text(""), None, None).await?;
    }
    must_eq!(names(&t, false).await?, ["B", "a", "m", "z", "ä"]);
    let page = schedules(&t, false, Some(schedule_name("a")), 2).await?;
    must_eq!(page.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["m", "z"]);
    must_eq!(schedules(&t, false, Some(schedule_name("ä")), 2).await?, []);
    Ok(())
}

async fn shows_the_schedules_that_are_due(t: Bench) -> Kept {
    let soon = t.hour().plus(secs(10));
    put(&t, &schedule_name("past"), text(""), Some(t.hour().minus(secs(1))), None).await?;
    put(&t, &schedule_name("soon"), text(""), Some(soon), None).await?;
    put(&t, &schedule_name("paused"), text(""), None, None).await?;
    must_eq!(names(&t, true).await?, ["past"]);
    t.advance(millis(9_999));
    must_eq!(names(&t, true).await?, ["past"]);
    t.advance(millis(1));
    must_eq!(names(&t, true).await?, ["past", "soon"]);
    Ok(())
}

async fn deletes_a_schedule(t: Bench) -> Kept {
    let name = schedule_name("nightly");
    let delete = async || {
        t.backend().delete_schedule(Deadline::default(), DeleteSchedule { name: name.clone() }).await
    };
    must_eq!(delete().await?, false);
    let first = put(&t, &name, text("1"), None, None).await?;
    must_eq!(delete().await?, true);
    must_eq!(delete().await?, false);
    must_eq!(names(&t, false).await?.len(), 0);
    put(&t, &name, text("2"), None, None).await?;
    let stale = put(&t, &name, text("3"), None, Some(first)).await.map_err(|error| error.kind());
    must_eq!(stale, Err(ErrorKind::Conflict), "writing with the version of a deleted schedule");
    Ok(())
}

async fn makes_one_job_of_a_tick(t: Bench) -> Kept {
    let (name, tick) = (schedule_name("nightly"), t.hour());
    let id = JobId::of_tick(&name, tick);
    let mut created = 0;
    for client in t.several(4).await? {
        let tick = job().id(id).run_at(tick).unique(unique_key("tick"), UniqueScope::UntilFinished);
        created += usize::from(client.enqueue([tick]).await?[0].is_created());
    }
    must_eq!(created, 1);
    t.finish(&t.take().await?, SUCCEED).await?;
    t.enqueue([job().id(id)]).await?;
    must_eq!(t.state(id).await?, State::Succeeded);
    must_eq!(t.counts().await?.enqueued, 1);
    Ok(())
}

async fn lets_one_of_racing_schedulers_move_a_schedule(t: Bench) -> Kept {
    const TICKS: u64 = 20;
    let name = schedule_name("every second");
    put(&t, &name, text(""), Some(t.hour()), None).await?;
    let mut schedulers = Vec::new();
    for client in t.several(5).await? {
        let name = name.clone();
        schedulers.push(tokio::spawn(async move {
            let mut moved = 0;
            loop {
                let gone = || Trouble::Unmet("the schedule or its next tick is gone".into());
                let found = schedules(&client, false, None, 1).await?.pop().ok_or_else(gone)?;
                let tick = found.next.ok_or_else(gone)?;
                if tick >= client.hour().plus(secs(TICKS)) {
                    return Ok::<u64, Trouble>(moved);
                }
                client.enqueue([job().id(JobId::of_tick(&name, tick))]).await?;
                let next = Some(tick.plus(secs(1)));
                match put(&client, &name, found.body, next, Some(found.version)).await {
                    Ok(_) => moved += 1,
                    Err(error) if error.kind() == ErrorKind::Conflict => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }));
    }
    let mut moved = 0;
    for scheduler in schedulers {
        moved += scheduler.await??;
    }
    must_eq!(moved, TICKS);
    must_eq!(t.counts().await?.enqueued, TICKS);
    Ok(())
}
