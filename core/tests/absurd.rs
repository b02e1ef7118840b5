//! Schedules that cannot work, or no longer do: they are refused, or harm no other.

use std::sync::Arc;
use std::time::Duration;

use leasehold_core::backend::{PutRegister, Register, Registers, Space};
use leasehold_core::schedule::{CatchUp, HEADER, Rule, Schedule};
use leasehold_core::testing::enqueued;
use leasehold_core::worker::Args;
use leasehold_core::{
    Deadline, ErrorKind, JobArgs, Limits, ManualClock, NewJob, Payload, Reason, State, Store, Timestamp,
    Worker,
};
use leasehold_memory::Memory;

use crate::schedules::{MINUTE, every, fire, jobs, name, ticks};
use crate::{Add, store};

/// What is kept of the schedule of this name.
async fn kept(store: &Store, schedule: &str) -> Register {
    let request = Registers::named(Space::Schedule, name(schedule));
    store.backend().registers(Deadline::default(), request).await.unwrap().registers.remove(0)
}

/// Rewrites what is kept of a schedule, which is due at this moment then.
async fn rewrite(store: &Store, schedule: &str, from: &str, to: &str, due: Timestamp) {
    let there = kept(store, schedule).await;
    let text = std::str::from_utf8(there.body.as_bytes()).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    let body = Payload::from(text.replace(from, to));
    let put = PutRegister::new(Space::Schedule, there.name, body, Some(there.version));
    let put = PutRegister { next: Some(due), ..put };
    store.backend().put_register(Deadline::default(), put).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_is_exhausted_unreadable_or_refused_harms_no_other() {
    let memory = Memory::new();
    let store = Store::new(memory.clone());
    let schedules = store.schedules();
    let now = store.now().await.unwrap();
    for n in 0..150 {
        let body = Payload::from("{}".to_owned());
        let bad = PutRegister::new(Space::Schedule, name(&format!("bad {n}")), body, None);
        let bad = PutRegister { next: Some(now), ..bad };
        store.backend().put_register(Deadline::default(), bad).await.unwrap();
    }
    let over = Rule::recurring("DTSTART:19700101T000000Z\nRRULE:FREQ=DAILY;COUNT=2").unwrap();
    let over = Schedule::new(over, NewJob::dynamic("tick", &0).unwrap()).unwrap();
    assert_eq!(schedules.put("over", over).await.unwrap().next, None);
    let mut large = every(&store, MINUTE).await;
    large.options.headers.insert("x".into(), "y".repeat(9_000));
    let error = schedules.put("large", large.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("headers"), "{error}");
    // Somebody else's limits were wider.
    let mut wider = Limits::default();
    wider.headers_bytes = 10_000;
    let theirs = Store::with_limits(Arc::new(memory), wider);
    theirs.schedules().put("large", large).await.unwrap();
    schedules.put("s", every(&store, MINUTE).await).await.unwrap();
    fire(&store, MINUTE * 3 + MINUTE / 2).await;
    let names: Vec<_> = jobs(&store).await.iter().map(|job| job.options.headers[HEADER].clone()).collect();
    assert_eq!(names, ["s", "s", "s"]);
    let runs = schedules.get("large").await.unwrap().unwrap().runs;
    assert!(runs.len() == 3 && runs.iter().all(|run| run.refused.is_some()), "{runs:?}");
}

#[tokio::test(start_paused = true)]
async fn one_whose_zone_is_gone_is_looked_at_again_later_and_harms_no_other() {
    let store = store();
    let schedules = store.schedules();
    let now = store.now().await.unwrap();
    let often = Rule::cron("* * * * *", "Europe/Berlin").unwrap();
    let often = Schedule::new(often, NewJob::dynamic("tick", &0).unwrap()).unwrap();
    schedules.put("gone", often.clone()).await.unwrap();
    schedules.put("s", every(&store, MINUTE).await).await.unwrap();
    rewrite(&store, "gone", "Europe/Berlin", "Europe/Atlantis", now).await;
    fire(&store, MINUTE * 3 + MINUTE / 2).await;
    let names: Vec<_> = jobs(&store).await.iter().map(|job| job.options.headers[HEADER].clone()).collect();
    assert_eq!(names, ["s", "s", "s"]);
    let error = schedules.get("gone").await.unwrap_err();
    assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("Atlantis"), "{error:?}");
    assert_eq!(schedules.list(None, 10).await.unwrap().len(), 1);
    // With a program that knows the zone it goes on by itself.
    let due = kept(&store, "gone").await.next.unwrap();
    rewrite(&store, "gone", "Europe/Atlantis", "Europe/Berlin", due).await;
    fire(&store, MINUTE * 2).await;
    assert!(schedules.get("gone").await.unwrap().unwrap().runs.len() >= 2);
}

#[tokio::test(start_paused = true)]
async fn one_whose_zone_changed_its_rules_fires_by_those_of_today() {
    for (told, expected) in [(30, [60, 120]), (90, [60, 120])] {
        let store = store();
        let from = store.now().await.unwrap();
        store.schedules().put("s", every(&store, MINUTE).await).await.unwrap();
        // What was told of the next tick is told otherwise today.
        let (first, told) = (from.plus(MINUTE), from.plus(Duration::from_secs(told)));
        let next = |at: Timestamp| format!("\"next\":{}", at.as_millis());
        rewrite(&store, "s", &next(first), &next(told), told).await;
        fire(&store, MINUTE * 2 + MINUTE / 2).await;
        assert_eq!(ticks(&store, from).await, expected);
        assert_eq!(jobs(&store).await.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_recurrence_without_end_does_nothing_while_the_clock_stands() {
    let clock = ManualClock::default();
    let store = Store::new(Memory::on_clock(clock.clone()));
    let endless = Rule::recurring("DTSTART:19700101T000000Z\nRRULE:FREQ=SECONDLY").unwrap();
    let endless = Schedule::new(endless, NewJob::dynamic("tick", &0).unwrap()).unwrap();
    store.schedules().put("s", endless.catch_up(CatchUp::All(u32::MAX))).await.unwrap();
    fire(&store, Duration::from_hours(1)).await;
    assert!(jobs(&store).await.is_empty());
    clock.advance(Duration::from_secs(2));
    fire(&store, Duration::from_hours(1)).await;
    assert_eq!(jobs(&store).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_time_ends_a_schedule_quietly() {
    let clock = ManualClock::at(Timestamp::MAX.minus(Duration::from_secs(90)));
    let store = Store::new(Memory::on_clock(clock.clone()));
    let now = store.now().await.unwrap();
    let rule = Rule::every(MINUTE, now).unwrap();
    store
        .schedules()
        .put("s", Schedule::new(rule, NewJob::dynamic("tick", &0).unwrap()).unwrap())
        .await
        .unwrap();
    clock.advance(Duration::from_secs(80));
    fire(&store, MINUTE).await;
    let record = store.schedules().get("s").await.unwrap().unwrap();
    assert_eq!((record.runs.len(), record.next), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_no_longer_fits_its_handler_fails_its_own_jobs_alone() {
    let store = store();
    let schedules = store.schedules();
    let rule = Rule::every(MINUTE, store.now().await.unwrap()).unwrap();
    let old = NewJob::dynamic(Add::KIND, &"one and two").unwrap();
    schedules.put("old", Schedule::new(rule.clone(), old).unwrap()).await.unwrap();
    schedules.put("new", Schedule::new(rule, Add { a: 1, b: 2 }).unwrap()).await.unwrap();
    let add = async |Args(_): Args<Add>| {};
    let worker = Worker::builder(&store).schedules().handle(Add::KIND, add).max_time(MINUTE * 3 + MINUTE / 2);
    worker.build().unwrap().run().await;
    let jobs = enqueued(&store, Add::KIND).await.unwrap();
    assert_eq!(jobs.len(), 6);
    for job in jobs {
        let expected = match job.options.headers[HEADER].as_str() {
            "old" => (State::Failed, Some(Reason::BadPayload), 1),
            _ => (State::Succeeded, None, 1),
        };
        assert_eq!((job.state, job.reason, job.attempt), expected);
    }
}
