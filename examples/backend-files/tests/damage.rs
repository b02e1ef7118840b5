//! What happens to a journal that is cut off, damaged, odd, newer, too long, or locked by somebody else.

#![allow(clippy::unwrap_used, reason = "in a test, helpers too may panic")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold_backend_files::Files;
use leasehold_core::backend::{
    Action, Amend, AmendAnswer, AppendLogs, Claim, Counts, Enqueue, Filter, Find, Level, List, LogAppend,
    LogSource, NewLine, Order, Pause, QueueSettings, ReadLogs, Select, SetQueue,
};
use leasehold_core::{
    Backend, Deadline, Error, ErrorKind, JobId, ManualClock, NewJob, Payload, QueueName, State, WorkerId,
};
use tempfile::TempDir;

fn soon() -> Deadline {
    Deadline::default()
}

struct Place(TempDir);

impl Place {
    async fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.open().setup(soon()).await.unwrap();
        place
    }

    /// Another handle, as another process would have it.
    fn open(&self) -> Files {
        Files::open(self.folder()).clock(ManualClock::default())
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn journal(&self) -> PathBuf {
        self.folder().join("journal")
    }

    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(self.journal()).unwrap().lines().map(str::to_owned).collect()
    }

    fn write(&self, lines: &[String]) {
        std::fs::write(self.journal(), lines.iter().map(|line| format!("{line}\n")).collect::<String>())
            .unwrap();
    }
}

async fn add(files: &Files) -> JobId {
    let jobs = vec![NewJob::dynamic("work", "text").unwrap()];
    files.enqueue(soon(), Enqueue { jobs }).await.unwrap()[0].job
}

async fn total(files: &Files) -> Result<u64, Error> {
    let counts = files.counts(soon(), Counts::default()).await?;
    Ok(counts.iter().map(leasehold_core::backend::QueueCounts::total).sum())
}

/// How many run and how many failed, were ever enqueued and deleted.
async fn counted(files: &Files) -> (u64, u64, u64, u64) {
    let counts = files.counts(soon(), Counts::default()).await.unwrap().remove(0);
    (counts.of(State::Running), counts.of(State::Failed), counts.enqueued, counts.deleted)
}

fn claim() -> Claim {
    Claim::new(WorkerId::generate(), [QueueName::default()], 10, Duration::from_secs(30))
}

/// A claim that meets no job.
fn none() -> Claim {
    Claim::new(WorkerId::generate(), [], 10, Duration::from_secs(30))
}

fn all() -> List {
    List { filter: Filter::default(), order: Order::OldestFirst, after: None, limit: 100 }
}

async fn amend(files: &Files, id: JobId, action: Action) -> AmendAnswer {
    let amend = Amend { select: Select::Ids(vec![id]), action, preview: false };
    files.amend(soon(), amend).await.unwrap().jobs[0].1
}

#[tokio::test]
async fn a_line_that_was_cut_off_did_not_happen() {
    let place = Place::new().await;
    add(&place.open()).await;
    let before = std::fs::read(place.journal()).unwrap();
    add(&place.open()).await;
    let after = std::fs::read(place.journal()).unwrap();
    for length in (before.len()..after.len()).step_by(7).chain([after.len() - 1]) {
        std::fs::write(place.journal(), &after[..length]).unwrap();
        assert_eq!(total(&place.open()).await.unwrap(), 1, "after {length} bytes");
        add(&place.open()).await;
        assert_eq!(total(&place.open()).await.unwrap(), 2, "after {length} bytes");
    }
}

#[tokio::test]
async fn a_damaged_journal_is_no_longer_used() {
    let place = Place::new().await;
    let files = place.open();
    add(&files).await;
    add(&files).await;
    let mut lines = place.lines();
    lines[2] = lines[2].replace("text", "tent");
    place.write(&lines);
    assert_eq!(total(&place.open()).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// Makes the record of the second of three jobs unreadable, and answers their ids.
async fn spoil(place: &Place) -> Vec<JobId> {
    let files = place.open();
    let ids = vec![add(&files).await, add(&files).await, add(&files).await];
    let mut lines = place.lines();
    let json = lines[3].split_once(' ').unwrap().1.replace("queued", "exploded");
    lines[3] = format!("{:08x} {json}", crc32fast::hash(json.as_bytes()));
    place.write(&lines);
    ids
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_set_aside() {
    let place = Place::new().await;
    let ids = spoil(&place).await;
    let files = place.open();
    let claimed = files.claim(soon(), claim()).await.unwrap();
    assert_eq!(claimed.jobs.iter().map(|leased| leased.job.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    assert_eq!(claimed.set_aside.iter().map(|aside| aside.job).collect::<Vec<_>>(), [Some(ids[1])]);
    assert!(claimed.set_aside[0].why.contains("exploded"), "{:?}", claimed.set_aside);
    for files in [&files, &place.open()] {
        assert!(files.claim(soon(), claim()).await.unwrap().set_aside.is_empty(), "it was told of twice");
    }
    let error = files.find(soon(), Find { ids: vec![ids[1]] }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let page = files.list(soon(), all()).await.unwrap();
    assert_eq!((page.jobs.len(), page.unreadable[0].job), (2, Some(ids[1])));
    assert_eq!(counted(&files).await, (2, 1, 3, 0));
    assert_eq!(amend(&files, ids[1], Action::Cancel).await, AmendAnswer::Refused(State::Failed));
    assert_eq!(amend(&files, ids[1], Action::Delete).await, AmendAnswer::Applied);
    assert!(place.open().list(soon(), all()).await.unwrap().unreadable.is_empty());
    assert_eq!(counted(&place.open()).await, (2, 0, 3, 1));
}

#[tokio::test]
async fn a_later_record_that_cannot_be_read_takes_the_job_out_of_the_way() {
    let place = Place::new().await;
    let (files, mut lines) = (place.open(), place.lines());
    let id = add(&files).await;
    lines.extend(place.lines().split_off(1));
    let json = lines[3].split_once(' ').unwrap().1.replace("queued", "exploded");
    lines.push(format!("{:08x} {json}", crc32fast::hash(json.as_bytes())));
    place.write(&lines);
    let files = place.open();
    let claimed = files.claim(soon(), claim()).await.unwrap();
    assert_eq!((claimed.jobs.len(), claimed.set_aside[0].job), (0, Some(id)));
    let counts = files.counts(soon(), Counts::default()).await.unwrap();
    assert_eq!((counts[0].of(State::Failed), counts[0].total()), (1, 1));
}

#[tokio::test]
async fn a_newer_journal_and_a_strange_file_are_refused() {
    let place = Place::new().await;
    let mut lines = place.lines();
    lines[0] = lines[0].replace("\"leasehold_files\":1", "\"leasehold_files\":2");
    for text in [lines[0].clone() + "\n", "something else\n".into(), String::new()] {
        std::fs::write(place.journal(), &text).unwrap();
        let files = place.open();
        for error in [files.setup(soon()).await.unwrap_err(), total(&files).await.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
        }
        assert_eq!(std::fs::read_to_string(place.journal()).unwrap(), text);
    }
    let error = total(&Files::open(place.folder().join("nowhere"))).await.unwrap_err();
    assert!(error.to_string().contains("setup"), "{error}");
}

#[tokio::test]
async fn a_journal_that_is_mostly_outdated_is_written_anew() {
    let place = Place::new().await;
    let ids = spoil(&place).await;
    let (files, witness) = (place.open(), place.open());
    let leased = files.claim(soon(), claim()).await.unwrap().jobs.remove(0);
    let lines = vec![NewLine { level: Level::Info, message: "line".into() }];
    let append = LogAppend { job: leased.job.id, token: leased.token, position: 0, lines };
    files.append_logs(soon(), AppendLogs { appends: vec![append] }).await.unwrap();
    let settings = QueueSettings { pause: Some(Pause::default()), ..QueueSettings::default() };
    files.set_queue(soon(), SetQueue { queue: QueueName::default(), settings }).await.unwrap();
    let (mut before, mut was_written_anew) = (seen(&witness, &ids).await, false);
    for _ in 0..8 {
        let head = place.lines().swap_remove(0);
        let kind = leasehold_core::Kind::new("large").unwrap();
        let job = NewJob::new(kind, Payload::from("x".repeat(1 << 20)));
        let id = job.id;
        files.enqueue(soon(), Enqueue { jobs: vec![job] }).await.unwrap();
        amend(&files, id, Action::Delete).await;
        was_written_anew |= place.lines()[0] != head;
        let length = std::fs::metadata(place.journal()).unwrap().len();
        assert!(length < 8 << 20, "{length} bytes");
        for files in [&files, &witness, &place.open()] {
            let now = seen(files, &ids).await;
            (before.enqueued, before.deleted) = (now.enqueued, now.enqueued - 3);
            assert_eq!(now, before);
            assert!(files.claim(soon(), none()).await.unwrap().set_aside.is_empty(), "it was told of twice");
        }
    }
    assert!(was_written_anew, "the journal was never written anew");
}

#[tokio::test]
async fn a_journal_of_short_lived_processes_does_not_grow_for_ever() {
    let place = Place::new().await;
    for _ in 0..8 {
        let job =
            NewJob::new(leasehold_core::Kind::new("large").unwrap(), Payload::from("x".repeat(1 << 20)));
        let id = job.id;
        place.open().enqueue(soon(), Enqueue { jobs: vec![job] }).await.unwrap();
        amend(&place.open(), id, Action::Delete).await;
        let length = std::fs::metadata(place.journal()).unwrap().len();
        assert!(length < 8 << 20, "{length} bytes");
    }
}

#[tokio::test]
#[cfg(unix)]
async fn a_journal_that_cannot_be_seen_is_not_replaced() {
    let place = Place::new().await;
    let away = place.folder().join("journal");
    std::fs::remove_file(&away).unwrap();
    std::os::unix::fs::symlink("journal", &away).unwrap();
    assert!(place.open().setup(soon()).await.is_err(), "a loop of links is no missing journal");
    assert!(away.is_symlink(), "it was replaced");
}

/// What can be seen of a store.
#[derive(Debug, PartialEq)]
struct Seen {
    enqueued: u64,
    deleted: u64,
    rest: String,
}

async fn seen(files: &Files, ids: &[JobId]) -> Seen {
    let counts = files.counts(soon(), Counts::default()).await.unwrap().remove(0);
    let read = ReadLogs { source: LogSource::Job(ids[0]), after: 0, limit: 10 };
    let log = files.read_logs(soon(), read).await.unwrap();
    let (page, queues) = (files.list(soon(), all()).await.unwrap(), files.queues(soon()).await.unwrap());
    let rest = format!("{:?} {log:?} {page:?} {queues:?}", counts.states);
    assert!(rest.contains("line") && rest.contains("exploded"), "{rest}");
    Seen { enqueued: counts.enqueued, deleted: counts.deleted, rest }
}

#[tokio::test]
async fn a_call_that_does_not_get_the_lock_ends_in_time_and_changes_nothing() {
    let place = Place::new().await;
    let files = place.open();
    let lock = std::fs::File::open(place.folder().join("lock")).unwrap();
    lock.lock().unwrap();
    let jobs = vec![NewJob::dynamic("work", &()).unwrap()];
    let late = Deadline::after(Duration::from_millis(50));
    let error = files.enqueue(late, Enqueue { jobs }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    drop(lock);
    assert_eq!(total(&files).await.unwrap(), 0);
}
