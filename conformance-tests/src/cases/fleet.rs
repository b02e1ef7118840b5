//! F1: the workers that announce themselves.

use std::time::Duration;

use leasehold_core::backend::{
    CheckIn, CheckedIn, Level, Prune, StopWorkers, WorkerInfo, WorkerLine, WorkerRecord, Workers,
};
use leasehold_core::{WorkerId, limits};

use crate::bench::{Bench, in_time, kind, millis, queue, secs, tag, worker_name};
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
}

fn info(name: &str, host: &str) -> WorkerInfo {
    WorkerInfo::new(worker_name(name), host, 42)
}

async fn check_in(t: &Bench, worker: WorkerId, info: WorkerInfo, leaving: bool) -> Done<CheckedIn> {
    let request = CheckIn { worker, info, lost_after: secs(30), leaving };
    Ok(t.backend().check_in(in_time(0), request).await?)
}

async fn workers(t: &Bench, after: Option<WorkerId>, limit: usize) -> Done<Vec<WorkerRecord>> {
    Ok(t.backend().workers(in_time(0), Workers { after, limit }).await?)
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
        must_eq!(t.backend().stop_workers(in_time(0), order).await?, asked, "asked by {what}");
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
        t.backend().prune(in_time(0), Prune { limit: 10, workers_after: after }).await
    };
    must_eq!(prune(secs(100)).await?.workers, 0);
    must_eq!(prune(secs(99)).await?.workers, 1);
    must_eq!(the_worker(&t).await?.worker, here);
    Ok(())
}
