use leasehold_core::Store;
use leasehold_mongo::LogCaps;

use super::*;

const LOGS: &str = "leasehold_logs";
const INDEXES: [&str; 3] = ["_id_", "of_job", "of_worker"];

/// As little as a store may keep.
fn small() -> LogCaps {
    LogCaps { store_bytes: 64 << 10, ..LogCaps::default() }
}

fn texts(page: &LogPage) -> Vec<&str> {
    page.lines.iter().map(|line| line.message.as_str()).collect()
}

/// Writes lines until the first of another source are gone.
async fn flood(place: &Place, lease: &LeasedJob, source: LogSource) {
    let line = "x".repeat(1_000);
    for part in 0..20 {
        place.log(lease, part * 10, &[line.as_str(); 10]).await.expect("written");
    }
    assert!(texts(&place.read(source, 0).await).iter().all(|text| *text != "first"));
}

#[tokio::test]
async fn the_collection_has_the_configured_size_and_setup_changes_it() {
    let place = Place::with(|config| config.log_caps(small())).await;
    let larger = LogCaps { store_bytes: 1 << 20, ..small() };
    for caps in [small(), larger, small()] {
        place.again(|config| config.log_caps(caps)).await;
        let (options, indexes) = place.look(LOGS).await;
        assert!(options.get_bool("capped").unwrap_or(false), "{options}");
        let size = options.get("size").and_then(|size| size.as_i64().or(size.as_i32().map(i64::from)));
        assert_eq!(size, i64::try_from(caps.store_bytes).ok(), "{options}");
        assert_eq!(indexes, INDEXES);
    }
    let refused = Mongo::with(place.config.clone().log_caps(LogCaps { store_bytes: 1, ..small() })).await;
    assert_eq!(refused.expect_err("too small").kind(), leasehold_core::ErrorKind::Config);
}

#[tokio::test]
async fn readers_are_told_of_lines_that_the_server_took() {
    let place = Place::with(|config| config.log_caps(small())).await;
    let (quiet, loud) = (place.hold().await, place.hold().await);
    place.log(&quiet, 0, &["first", "second"]).await.expect("written");
    let of_quiet = LogSource::Job(quiet.job.id);
    let before = place.read(of_quiet, 0).await;
    assert_eq!((texts(&before), before.gap), (vec!["first", "second"], false));
    flood(&place, &loud, of_quiet).await;
    // All lines of one job are gone, and the first ones of the other.
    let page = place.read(of_quiet, 0).await;
    assert!(page.gap && page.lines.is_empty(), "{page:?}");
    let page = place.read(of_quiet, before.lines[1].sequence).await;
    assert!(!page.gap && page.lines.is_empty(), "a reader that has seen all is told {page:?}");
    for source in [LogSource::Job(loud.job.id), LogSource::Worker(place.worker)] {
        let page = place.read(source, 0).await;
        assert!(page.gap && !page.lines.is_empty(), "{source:?}");
        let rest = place.read(source, page.lines[0].sequence).await;
        assert!(!rest.gap && rest.lines == page.lines[1..], "{source:?}");
    }
    // New lines stand after a gap for who has seen none, and after none for who has seen all.
    place.log(&quiet, 2, &["third"]).await.expect("written");
    for (after, gap) in [(0, true), (before.lines[0].sequence, true), (before.lines[1].sequence, false)] {
        let page = place.read(of_quiet, after).await;
        assert_eq!((texts(&page), page.gap), (vec!["third"], gap), "after {after}");
    }
}

#[tokio::test]
async fn an_append_that_broke_between_its_steps_is_made_whole_by_its_repetition() {
    let place = Place::new().await;
    let lease = place.hold().await;
    place.log(&lease, 0, &["a", "b"]).await.expect("written");
    let shutdown = doc! {"errorCode": 91, "namespace": format!("{}.{LOGS}", place.database.name())};
    place.fail_next("insert", shutdown.clone()).await;
    let error = place.log(&lease, 2, &["c", "d"]).await.expect_err("no answer");
    assert_eq!(error.kind(), leasehold_core::ErrorKind::Unknown, "{error:?}");
    let source = LogSource::Job(lease.job.id);
    assert_eq!(texts(&place.read(source, 0).await), ["a", "b"]);
    for _ in 0..2 {
        assert_eq!(place.log(&lease, 2, &["c", "d"]).await.expect("written"), Answer::AlreadyApplied);
        assert_eq!(texts(&place.read(source, 0).await), ["a", "b", "c", "d"]);
    }
    // If it is never repeated, the next line tells of the gap.
    let seen = place.read(source, 0).await.lines[3].sequence;
    place.fail_next("insert", shutdown).await;
    place.log(&lease, 4, &["e"]).await.expect_err("no answer");
    assert_eq!(place.log(&lease, 5, &["f"]).await.expect("written"), Answer::Applied);
    for source in [source, LogSource::Worker(place.worker)] {
        let page = place.read(source, seen).await;
        assert_eq!(texts(&page), ["f"]);
        assert!(page.gap || matches!(source, LogSource::Worker(_)), "{source:?}");
    }
}

#[tokio::test]
async fn a_damaged_collection_is_mended_and_followed_on() {
    for how in DAMAGES {
        let place = Place::new().await;
        let lease = place.hold().await;
        let mut events = watch(&place.store, true).await;
        let mut position = 0;
        let told = |event: &Event| matches!(event, Event::Logged { job, .. } if *job == lease.job.id);
        let mut write = async || {
            let text = position.to_string();
            place.log(&lease, position, &[text.as_str()]).await.expect("written");
            position += 1;
        };
        provoke(&mut events, &format!("before it is {how}"), &mut write, told).await;
        place.damage(how, LOGS).await;
        provoke(&mut events, how, &mut write, told).await;
        eventually(&format!("{how}: it is capped and indexed again"), async || {
            write().await;
            let (options, indexes) = place.look(LOGS).await;
            options.get_bool("capped").unwrap_or(false) && indexes == INDEXES
        })
        .await;
        provoke(&mut events, &format!("mended after {how}"), &mut write, told).await;
        let page = place.read(LogSource::Job(lease.job.id), 0).await;
        let last = (position - 1).to_string();
        assert_eq!(page.lines.last().map(|line| &line.message), Some(&last), "{how}");
        assert_eq!(page.gap, page.lines[0].message != "0", "{how}");
    }
}

#[tokio::test]
async fn a_reader_who_follows_gets_all_lines_and_is_told_of_the_gap() {
    let place = Place::new().await;
    let lease = place.hold().await;
    let store = Store::new(place.store.clone());
    let mut pages = Box::pin(store.follow(LogSource::Job(lease.job.id), 0));
    let mut page = async || timeout(PATIENCE, pages.next()).await.expect("a page").expect("a page");
    place.log(&lease, 0, &["a"]).await.expect("written");
    let first = page().await.expect("a page");
    assert_eq!((texts(&first), first.gap), (vec!["a"], false));
    place.log(&lease, 1, &["b"]).await.expect("written");
    assert_eq!(texts(&page().await.expect("a page")), ["b"]);
    // What a reader has not seen yet goes, and the next line tells of it.
    place
        .fail_next("insert", doc! {"errorCode": 91, "namespace": format!("{}.{LOGS}", place.database.name())})
        .await;
    place.log(&lease, 2, &["c"]).await.expect_err("no answer");
    place.run(doc! {"drop": LOGS}).await;
    place.log(&lease, 3, &["d"]).await.expect("written");
    let last = page().await.expect("a page");
    assert_eq!((texts(&last), last.gap), (vec!["d"], true));
}

#[tokio::test]
async fn lines_are_tailed_by_one_cursor_while_somebody_follows() {
    let place = Place::new().await;
    let lease = place.hold().await;
    place.log(&lease, 0, &["a"]).await.expect("written");
    let quiet = watch(&place.store, false).await;
    eventually("one cursor waits for signals", async || place.tails("leasehold_signals").await == 1).await;
    assert_eq!(place.tails(LOGS).await, 0);
    let followers = (watch(&place.store, true).await, watch(&place.store, true).await);
    eventually("one cursor waits for lines", async || place.tails(LOGS).await == 1).await;
    assert_eq!(place.tails("leasehold_signals").await, 1);
    drop(followers);
    eventually("none waits for lines", async || place.tails(LOGS).await == 0).await;
    drop(quiet);
    eventually("none waits for signals", async || place.tails("leasehold_signals").await == 0).await;
    let mut events = watch(&place.store, true).await;
    let mut position = 1;
    let write = async || {
        place.log(&lease, position, &["b"]).await.expect("written");
        position += 1;
    };
    provoke(&mut events, "followed anew", write, |event| matches!(event, Event::Logged { .. })).await;
}
