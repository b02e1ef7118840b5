//! What is written to files comes back, also when a process died while it wrote.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use leasehold_core::backend::{Backend, Enqueue};
use leasehold_core::layer::Operation;
use leasehold_core::{Deadline, Error, ErrorKind, NewJob, Result};
use leasehold_memory::Memory;

use crate::history::event::{Call, What};
use crate::history::{FileSink, MemorySink, Recorder, Rules, check, monotonic, read_files};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("leasehold-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn jobs(count: usize) -> Enqueue {
    Enqueue { jobs: (0..count).map(|_| NewJob::dynamic("work", &()).unwrap()).collect() }
}

#[tokio::test]
async fn the_files_of_several_processes_are_one_history() {
    let folder = Folder::new("files");
    let store = Arc::new(Memory::new());
    let mut paths = Vec::new();
    for name in ["a#1", "b#1"] {
        let path = folder.0.join(format!("{name}.jsonl"));
        let sink = Arc::new(FileSink::append(&path).unwrap());
        let process = Recorder::wrap(store.clone(), name, sink);
        process.enqueue(Deadline::default(), jobs(3)).await.unwrap();
        process.journal().note("done").unwrap();
        paths.push(path);
    }
    let last = folder.0.join("last.jsonl");
    let reader = Recorder::wrap(store.clone(), "reader", Arc::new(FileSink::append(&last).unwrap()));
    reader.journal().last_look(&*store).await.unwrap();
    paths.push(last);
    let events = read_files(&paths).unwrap();
    assert!(events.is_sorted_by_key(|event| event.t));
    let verdict = check(&events, &Rules::default());
    assert!(verdict.is_valid(), "{verdict}");
    assert_eq!((verdict.tally.jobs, verdict.tally.calls), (6, 2));
}

#[tokio::test]
async fn a_line_that_was_cut_off_did_not_happen() {
    let folder = Folder::new("cut");
    let path = folder.0.join("a.jsonl");
    let process = Recorder::wrap(Arc::new(Memory::new()), "a", Arc::new(FileSink::append(&path).unwrap()));
    process.enqueue(Deadline::default(), jobs(1)).await.unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"t\":123,\"p\":\"a\",\"op").unwrap();
    assert_eq!(read_files([&path]).unwrap().len(), 2);
    file.write_all(b"\n").unwrap();
    assert!(read_files([&path]).unwrap_err().to_string().contains("a.jsonl:3"));
}

#[tokio::test]
async fn a_call_that_is_dropped_is_unknown() {
    let sink = MemorySink::default();
    let process = Recorder::wrap(Arc::new(Deaf::default()), "a", Arc::new(sink.clone()));
    let call = process.now(Deadline::default());
    assert!(tokio::time::timeout(std::time::Duration::ZERO, call).await.is_err());
    let events = sink.events();
    assert!(matches!(&events[0].what, What::Invoke { call: Call::Other(name) } if name == "now"));
    assert!(matches!(events[1].what, What::Info { .. }));
}

#[tokio::test]
async fn errors_are_sorted_by_what_they_say_of_the_effect() {
    let late = Deadline::after(std::time::Duration::ZERO);
    let sink = MemorySink::default();
    let process = Recorder::wrap(Arc::new(Memory::new()), "a", Arc::new(sink.clone()));
    assert!(process.now(late).await.is_err());
    assert!(matches!(sink.events()[1].what, What::Fail { .. }), "a call that was never made has failed");
    let deaf = Deaf { answers: true, ..Deaf::default() };
    let process = Recorder::wrap(Arc::new(deaf), "b", Arc::new(sink.clone()));
    assert!(process.now(late).await.is_err());
    assert!(matches!(sink.events()[3].what, What::Info { .. }), "an unknown call has not failed");
}

#[test]
fn the_clock_goes_on() {
    let first = monotonic();
    assert!(first > 0 && monotonic() >= first);
}

/// Never says what became of a call: it does not answer at all, or answers that it does not know.
#[derive(Debug, Default)]
struct Deaf {
    inner: Memory,
    answers: bool,
}

impl Deaf {
    async fn around<R, T, F>(
        &self,
        _: Operation,
        _: Deadline,
        _: R,
        _: impl Fn(R, Deadline) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        match self.answers {
            true => Err(Error::new(ErrorKind::Unknown, "no answer")),
            false => std::future::pending().await,
        }
    }
}

leasehold_core::around!(Deaf);
