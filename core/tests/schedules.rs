//! Schedules on the store in memory, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leasehold_core::layer::Operation;
use leasehold_core::schedule::{CatchUp, HEADER, Origin, Overlap, Rule, Schedule, Weekday};
use leasehold_core::testing::{Chaos, Faults, enqueued};
use leasehold_core::{
    Attempt, ErrorKind, JobId, JobRecord, Keep, Limits, NewJob, Payload, QueueName, RegisterName, Retention,
    State, Store, Timestamp, Worker,
};
use leasehold_memory::Memory;
use tokio::time::{sleep, timeout};

use crate::probe::{Fate, Probe};
use crate::store;

pub(crate) const MINUTE: Duration = Duration::from_mins(1);

pub(crate) fn name(name: &str) -> RegisterName {
    RegisterName::new(name).unwrap()
}

pub(crate) async fn every(store: &Store, period: Duration) -> Schedule {
    let rule = Rule::every(period, store.now().await.unwrap()).unwrap();
    Schedule::new(rule, NewJob::dynamic("tick", &1).unwrap()).unwrap()
}

/// Fires schedules for so long.
pub(crate) async fn fire(store: &Store, time: Duration) {
    let _ = tokio::time::timeout(time, store.schedules().fire()).await;
}

pub(crate) async fn jobs(store: &Store) -> Vec<JobRecord> {
    enqueued(store, "tick").await.unwrap()
}

/// The ticks that fired, as the schedule remembers them, in seconds from a moment.
pub(crate) async fn ticks(store: &Store, from: Timestamp) -> Vec<i64> {
    let runs = store.schedules().get("s").await.unwrap().unwrap().runs;
    runs.iter().filter_map(|run| run.tick).map(|tick| (tick.as_millis() - from.as_millis()) / 1_000).collect()
}

#[tokio::test(start_paused = true)]
async fn each_tick_is_one_job_however_many_fire() {
    let store = store();
    let from = store.now().await.unwrap();
    store.schedules().put("s", every(&store, MINUTE).await).await.unwrap();
    let many = (0..200).map(|_| fire(&store, MINUTE * 10 + MINUTE / 2));
    futures::future::join_all(many).await;
    assert_eq!(ticks(&store, from).await, (1..=10).map(|n| n * 60).collect::<Vec<_>>());
    let jobs = jobs(&store).await;
    assert_eq!(jobs.len(), 10);
    assert!(jobs.iter().all(|job| job.options.headers[HEADER] == "s"));
    let runs = store.schedules().get("s").await.unwrap().unwrap().runs;
    for (run, job) in runs.iter().zip(&jobs) {
        let origin = Origin { schedule: name("s"), tick: run.tick };
        assert_eq!((run.job, Some(origin)), (job.id, Origin::of(job)));
    }
}

#[tokio::test(start_paused = true)]
async fn missed_ticks_are_made_up_for_as_was_said() {
    for (catch_up, expected) in [
        (CatchUp::Skip, vec![3_540, 3_600]),
        (CatchUp::Once, vec![60, 3_540, 3_600]),
        (CatchUp::All(3), vec![60, 120, 180, 3_540, 3_600]),
    ] {
        let store = store();
        let from = store.now().await.unwrap();
        store.schedules().put("s", every(&store, MINUTE).await.catch_up(catch_up)).await.unwrap();
        sleep(Duration::from_secs(3_600)).await;
        fire(&store, Duration::from_secs(5)).await;
        assert_eq!(ticks(&store, from).await, expected, "{catch_up:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_overlaps_is_left_out_waits_or_is_cancelled() {
    for (overlap, ran, cancelled) in [
        (Overlap::Allow, 10, 0),
        (Overlap::Skip, 4, 0),
        (Overlap::QueueOne, 4, 0),
        (Overlap::CancelRunning, 10, 9),
    ] {
        let store = store();
        store.schedules().put("s", every(&store, MINUTE).await.overlap(overlap)).await.unwrap();
        // Each takes two and a half minutes.
        let slow = async |_: Attempt| sleep(Duration::from_secs(150)).await;
        let worker = Worker::builder(&store).schedules().handle("tick", slow).build().unwrap().start();
        sleep(MINUTE * 10 + Duration::from_secs(30)).await;
        let jobs = jobs(&store).await;
        let count = |state: State| jobs.iter().filter(|job| job.state == state).count();
        assert_eq!(jobs.iter().filter(|job| job.attempt > 0).count(), ran, "{overlap:?}");
        assert_eq!(count(State::Cancelled), cancelled, "{overlap:?}");
        assert!(overlap == Overlap::Allow || count(State::Running) <= 1, "{overlap:?}");
        drop(worker);
    }
}

#[tokio::test(start_paused = true)]
async fn rests_while_it_is_paused_and_misses_nothing_then() {
    let store = store();
    let from = store.now().await.unwrap();
    let schedules = store.schedules();
    schedules.put("s", every(&store, MINUTE).await.catch_up(CatchUp::All(100))).await.unwrap();
    assert_eq!(schedules.pause("s", true).await.unwrap().next, None);
    fire(&store, MINUTE * 5 + MINUTE / 2).await;
    assert!(jobs(&store).await.is_empty());
    let by_hand = schedules.run_now("s").await.unwrap();
    let job = &jobs(&store).await[0];
    let origin = Origin { schedule: name("s"), tick: None };
    assert_eq!((job.id, Origin::of(job)), (by_hand, Some(origin)));
    let resumed = schedules.pause("s", false).await.unwrap();
    assert_eq!(resumed.next, Some(from.plus(MINUTE * 6)));
    assert_eq!((resumed.runs[0].job, resumed.runs[0].tick), (by_hand, None));
    fire(&store, MINUTE).await;
    assert_eq!(ticks(&store, from).await, [360]);
    assert_eq!(schedules.pause("none", true).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_change_keeps_what_was_and_counts_from_now() {
    let store = store();
    let schedules = store.schedules();
    let first = every(&store, MINUTE).await;
    schedules.put("s", first.clone()).await.unwrap();
    assert!(schedules.put("s", first.clone()).await.unwrap().edits.is_empty());
    sleep(Duration::from_secs(90)).await;
    let hour = store.now().await.unwrap();
    let rule = Rule::every(MINUTE * 10, hour.plus(MINUTE)).unwrap();
    let second = Schedule::new(rule, NewJob::dynamic("tick", &2).unwrap()).unwrap();
    let changed = schedules.put("s", second).await.unwrap();
    assert_eq!(changed.next, Some(hour.plus(MINUTE)));
    assert_eq!((changed.edits.len(), &changed.edits[0].was, changed.edits[0].at), (1, &first, hour));
}

#[tokio::test(start_paused = true)]
async fn moves_to_another_store_as_it_is_and_no_tick_is_missed_or_doubled() {
    let (here, there) = (store(), store());
    let from = here.now().await.unwrap();
    let (mine, others) = (here.schedules(), there.schedules());
    mine.put("s", every(&here, MINUTE * 2).await).await.unwrap();
    mine.put("s", every(&here, MINUTE).await.catch_up(CatchUp::All(10))).await.unwrap();
    fire(&here, MINUTE * 2 + MINUTE / 2).await;
    let before = mine.get("s").await.unwrap().unwrap();
    sleep(MINUTE).await;
    let moved = mine.move_to("s", &others).await.unwrap();
    assert_eq!(mine.get("s").await.unwrap(), None);
    assert_eq!(
        (&moved.schedule, &moved.runs, &moved.edits, moved.next),
        (&before.schedule, &before.runs, &before.edits, before.next)
    );
    assert_eq!((moved.runs.len(), moved.edits.len()), (2, 1));
    tokio::join!(fire(&here, MINUTE), fire(&there, MINUTE));
    assert_eq!(ticks(&there, from).await, [60, 120, 180, 240]);
    assert_eq!((jobs(&here).await.len(), jobs(&there).await.len()), (2, 2));

    // One of the same name is there: it stays, and goes on here.
    mine.put("s", every(&here, MINUTE).await).await.unwrap();
    let next = mine.get("s").await.unwrap().unwrap().next;
    assert_eq!(mine.move_to("s", &others).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(mine.get("s").await.unwrap().unwrap().next, next);
    assert_eq!(mine.move_to("none", &others).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_declared_set_is_what_was_declared() {
    let store = store();
    let schedules = store.schedules();
    let one = every(&store, MINUTE).await;
    schedules.put("mine", one.clone()).await.unwrap();
    let set = |names: &[&str]| names.iter().map(|n| (name(n), one.clone())).collect::<BTreeMap<_, _>>();
    let declared = schedules.declare("app", set(&["a", "b"])).await.unwrap();
    assert_eq!(declared.written, [name("a"), name("b")]);
    schedules.pause("a", true).await.unwrap();
    let declared = schedules.declare("app", set(&["a", "c"])).await.unwrap();
    assert_eq!((declared.written, declared.removed), (vec![name("c")], vec![name("b")]));
    assert!(schedules.get("a").await.unwrap().unwrap().schedule.paused);
    let error = schedules.declare("app", set(&["mine"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(schedules.list(None, 10).await.unwrap().len(), 3);
    schedules.declare("app", BTreeMap::new()).await.unwrap();
    assert_eq!(schedules.list(None, 10).await.unwrap()[0].name, name("mine"));
}

#[tokio::test(start_paused = true)]
async fn many_that_are_due_all_the_time_keep_no_other_from_firing() {
    let store = store();
    for n in 0..250 {
        let often = every(&store, Duration::from_secs(1)).await;
        store.schedules().put(format!("a{n:03}").as_str(), often).await.unwrap();
    }
    store.schedules().put("s", every(&store, MINUTE).await).await.unwrap();
    fire(&store, MINUTE + MINUTE / 12).await;
    let runs = store.schedules().get("s").await.unwrap().unwrap().runs;
    assert_eq!(runs.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_large_ticks_that_were_missed_are_made_up_for_in_parts() {
    let mut limits = Limits::default();
    limits.batch_bytes = 100_000;
    let store = Store::with_limits(Arc::new(Memory::new()), limits);
    let mut large = every(&store, MINUTE).await.catch_up(CatchUp::All(200));
    large.payload = Payload::from(vec![b'1'; 10_000]);
    store.schedules().put("s", large).await.unwrap();
    sleep(MINUTE * 100).await;
    fire(&store, Duration::from_secs(5)).await;
    assert_eq!(jobs(&store).await.len(), 100);
    let mut too_large = every(&store, MINUTE).await;
    too_large.payload = Payload::from(vec![b'1'; 1_040_000]);
    let error = store.schedules().put("s", too_large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn what_runs_by_hand_is_cancelled_by_a_tick_as_well() {
    let store = store();
    let schedule = every(&store, MINUTE).await.overlap(Overlap::CancelRunning);
    store.schedules().put("s", schedule).await.unwrap();
    let by_hand = [(); 2].map(|()| store.clone());
    let mut ids = Vec::new();
    for store in by_hand {
        ids.push(store.schedules().run_now("s").await.unwrap());
    }
    fire(&store, MINUTE + MINUTE / 2).await;
    for id in ids {
        assert_eq!(store.find(id).await.unwrap().unwrap().state, State::Cancelled);
    }
    assert_eq!(jobs(&store).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_are_not_to_be_kept_are_kept_long_enough_to_be_known() {
    let store = store();
    let mut schedule = every(&store, MINUTE).await.queue(QueueName::new("q").unwrap());
    schedule.options.retention.succeeded = Keep::For(Duration::ZERO);
    store.schedules().put("s", schedule).await.unwrap();
    fire(&store, MINUTE + MINUTE / 2).await;
    let job = &jobs(&store).await[0];
    assert_eq!(job.options.retention.succeeded, Keep::For(MINUTE * 10));
    assert_eq!(job.queue.as_str(), "q");
}

#[tokio::test(start_paused = true)]
async fn schedulers_that_are_cut_off_anywhere_lose_no_tick_and_double_none() {
    let memory = Memory::new();
    let store = Store::new(memory.clone());
    let from = store.now().await.unwrap();
    store.schedules().put("s", every(&store, MINUTE).await).await.unwrap();
    let faults = Faults {
        request_lost: 0.1,
        reply_lost: 0.1,
        repeated: 0.1,
        delayed: 0.2,
        hung: 0.05,
        ..Faults::default()
    };
    let mut dice = fastrand::Rng::with_seed(7);
    let mut lives = |seed: u64| {
        let store = Store::with_limits(
            Arc::new(Chaos::new(Arc::new(memory.clone()), faults, seed)),
            Limits::default(),
        );
        let spans: Vec<u64> = (0..600).map(|_| dice.u64(1..12_000)).collect();
        async move {
            for span in spans {
                fire(&store, Duration::from_millis(span)).await;
            }
        }
    };
    let many: Vec<_> = (0..8).map(&mut lives).collect();
    futures::future::join_all(many).await;
    fire(&store, MINUTE).await;
    let passed = store.now().await.unwrap().since(from).as_secs() / 60;
    let mut fired: Vec<_> = jobs(&store).await.into_iter().map(|job| job.id).collect();
    let mut expected: Vec<_> = (1..=passed)
        .map(|n| JobId::of_tick(&name("s"), from.plus(MINUTE * u32::try_from(n).unwrap())))
        .collect();
    fired.sort_unstable();
    expected.sort_unstable();
    assert_eq!(fired, expected);
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_was_frozen_fires_no_tick_that_has_come_and_gone() {
    let (probe, second) = (Probe::quiet(), Duration::from_secs(1));
    let (store, other) = (probe.store(), probe.undisturbed());
    let mut schedule = every(&store, MINUTE).await;
    schedule.options.retention = Retention { succeeded: Keep::For(second), ..Retention::default() };
    store.schedules().put("s", schedule).await.unwrap();
    sleep(MINUTE).await;
    let mut decisions = 1;
    probe.set(move |op| match op {
        Operation::PutRegister if decisions > 0 => {
            decisions -= 1;
            Fate::Slow(second)
        }
        _ => Fate::Pass,
    });
    let schedules = store.schedules();
    let mut frozen = Box::pin(schedules.fire_due());
    assert!(timeout(second / 2, &mut frozen).await.is_err(), "it has decided, and not enqueued yet");
    fire(&other, 15 * second).await;
    assert_eq!(jobs(&other).await.len(), 1);
    let worker = Worker::builder(&other).queue("default").handle("tick", async || Ok::<_, String>(()));
    let worker = worker.build().unwrap().start();
    sleep(20 * MINUTE).await;
    worker.stop().await.unwrap();
    assert!(jobs(&other).await.is_empty(), "the tick's job was kept long enough");
    let _ = frozen.await;
    assert!(jobs(&other).await.is_empty(), "a tick fired twice");
}

const ZONE: &str = "Europe/Berlin";

fn at(text: &str) -> Timestamp {
    Timestamp::from_millis(text.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_millis())
}

/// The rows of a table in the guide: the next ten runs of each of these rules after a moment.
fn rows<const N: usize>(columns: [(Rule, Timestamp); N], format: &str) -> String {
    let columns = columns.map(|(rule, from)| rule.preview(from, 10));
    let shown = |tick: &Timestamp| {
        chrono::DateTime::from_timestamp_millis(tick.as_millis()).unwrap().format(format).to_string()
    };
    let row = |n: usize| columns.each_ref().map(|ticks| shown(&ticks[n])).join(" | ");
    (0..10).map(|n| format!("| {} |\n", row(n))).collect()
}

/// What is told by the day: from noon of a day and from midnight of another.
fn days(day: &str, change: &str) -> String {
    let noon = at(&format!("{day}T11:00:00Z"));
    let midnight = at(&format!("{change}T00:00:00Z")).minus(MINUTE * 60);
    let recurring = format!("DTSTART;TZID={ZONE}:20260101T023000\nRRULE:FREQ=DAILY");
    let columns = [
        (Rule::daily("02:30", ZONE), noon),
        (Rule::cron("0 */6 * * *", ZONE), midnight),
        (Rule::cron("30 * * * *", ZONE), midnight),
        (Rule::every(MINUTE * 60 * 24, noon), noon),
        (Rule::recurring(&recurring), noon),
    ];
    rows(columns.map(|(rule, from)| (rule.unwrap(), from)), "%d %H:%M")
}

/// What is told by the week and the month, from the beginning of the year.
fn months(day: u32) -> String {
    let from = at("2026-01-01T00:00:00Z");
    let weekly = |rule: &str| format!("DTSTART;TZID={ZONE}:20260104T023000\nRRULE:FREQ={rule}");
    let columns = [
        Rule::weekly(Weekday::Sun, "02:30", ZONE),
        Rule::monthly(day, "02:30", ZONE),
        Rule::cron("30 2 * * SUN#L", ZONE),
        Rule::recurring(&weekly("WEEKLY;INTERVAL=2")),
        Rule::recurring(&weekly("MONTHLY;BYDAY=-1SU")),
    ];
    let week = from.plus(MINUTE * 60 * 24 * 7 * if day == 29 { 9 } else { 38 });
    let mut froms = [week, from, from, week, from].into_iter();
    rows(columns.map(|rule| (rule.unwrap(), froms.next().unwrap())), "%m-%d %H:%M")
}

#[test]
fn the_guide_shows_the_next_runs_over_changes_of_clocks() {
    let guide = include_str!("../../docs/guide/schedules.md");
    for (mark, rows) in [
        ("spring", days("2026-03-24", "2026-03-29")),
        ("autumn", days("2026-10-22", "2026-10-25")),
        ("spring by weeks and months", months(29)),
        ("autumn by weeks and months", months(25)),
    ] {
        let table = guide.split(&format!("<!-- {mark} -->")).nth(1).unwrap();
        let table = table.split("<!-- end -->").next().unwrap();
        let there = table.split_once("|---|---|---|---|---|\n").unwrap().1;
        assert_eq!(there, rows, "the table of {mark} should be:\n{rows}");
    }
}
