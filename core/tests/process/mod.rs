//! Programs as handlers: real children, in real time.

mod ends;
mod orphans;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::StreamExt;
use leasehold_core::backend::{Level, LogLine, LogSource};
use leasehold_core::worker::{Process, WorkerBuilder};
use leasehold_core::{JobId, JobRecord, Kind, NewJob, Payload, State, Store, Worker};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::store;

const SOON: Duration = Duration::from_secs(60);

/// What a shell does with these lines.
fn sh(script: &str) -> Process {
    Process::new("sh").arg("-c").arg(script)
}

fn job(payload: impl Into<Payload>) -> NewJob {
    NewJob::new(Kind::new("work").unwrap(), payload.into()).max_attempts(2)
}

async fn enqueue(store: &Store, job: NewJob) -> JobId {
    store.queue("default").unwrap().enqueue(job).await.unwrap()
}

fn worker(store: &Store, process: Process) -> WorkerBuilder {
    Worker::builder(store).max_jobs(1).handle("work", process)
}

/// What becomes of a job after one attempt, and its log.
async fn attempt(process: Process, job: NewJob) -> (JobRecord, Vec<(Level, String)>) {
    let store = store();
    let job = enqueue(&store, job).await;
    worker(&store, process).build().unwrap().run().await;
    (store.find(job).await.unwrap().unwrap(), said(&store, job).await)
}

async fn said(store: &Store, job: JobId) -> Vec<(Level, String)> {
    let page = store.logs(LogSource::Job(job), 0, 1_000).await.unwrap();
    page.lines.into_iter().map(|line| (line.level, line.message)).collect()
}

/// Waits until a job says this.
async fn says(store: &Store, job: JobId, text: &str) {
    let mut pages = Box::pin(store.follow(LogSource::Job(job), 0));
    let found = |line: &LogLine| line.message == text;
    let wait = async { while !pages.next().await.unwrap().unwrap().lines.iter().any(found) {} };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("nobody says {text:?}"));
}

/// A pipe with a name, by which a test knows who lives.
struct Fifo {
    folder: TempDir,
}

impl Fifo {
    fn new() -> Self {
        let fifo = Self { folder: tempfile::tempdir().unwrap() };
        assert!(Command::new("mkfifo").arg(fifo.path()).status().unwrap().success());
        fifo
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("fifo")
    }

    /// Answers, once somebody has held the pipe open and nobody does any more, what was written to it.
    fn left(path: &Path) -> impl Future<Output = String> + use<> {
        let (tell, told) = oneshot::channel();
        let path = path.to_owned();
        // No task: a runtime would wait for it for ever.
        std::thread::spawn(move || tell.send(std::fs::read_to_string(path).unwrap()));
        async { tokio::time::timeout(SOON, told).await.expect("somebody still holds the pipe").unwrap() }
    }
}

#[tokio::test]
async fn a_program_gets_its_payload_and_its_job_and_gives_its_result() {
    let script = r#"
        printf '%s ' "$LEASEHOLD_KIND" "$LEASEHOLD_QUEUE" "$LEASEHOLD_ATTEMPT/$LEASEHOLD_MAX_ATTEMPTS" "$TRACEPARENT" >&3
        echo "$LEASEHOLD_JOB_ID $LEASEHOLD_RESULT_FD $(cat)" >&3
    "#;
    let (job, _) = attempt(sh(script), job(b"ab\nc".to_vec()).header("traceparent", "00-1-2-01")).await;
    let result = format!("work default 1/2 00-1-2-01 {} 3 ab\nc\n", job.id);
    assert_eq!((job.state, job.result), (State::Succeeded, Some(Payload::from(result))));
}

#[tokio::test]
async fn a_payload_and_a_result_of_a_mebibyte_pass_byte_for_byte() {
    let payload: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (done, _) = attempt(sh("cat >&3"), job(payload.clone())).await;
    assert_eq!((done.state, done.result.unwrap().as_bytes() == payload), (State::Succeeded, true));

    // One that is not read holds nobody up, and one that is too large is not kept.
    let (done, _) = attempt(sh("exec 0<&-; echo done"), job(payload)).await;
    assert_eq!((done.state, done.result), (State::Succeeded, None));
    let (done, _) = attempt(sh("head -c 1048577 /dev/zero >&3"), job("".to_owned())).await;
    assert_eq!(done.state, State::Failed);
    assert_eq!(done.last_failure().unwrap().class, "result_too_large");
}

#[tokio::test]
async fn what_a_program_prints_is_in_its_log_while_it_runs() {
    let (store, go) = (store(), Fifo::new());
    let id = enqueue(&store, job("".to_owned())).await;
    let script = r#"echo begun; echo trouble >&2; read -r line <"$GO"; echo "$line""#;
    let running = worker(&store, sh(script).env("GO", go.path())).build().unwrap().start();
    says(&store, id, "trouble").await;
    assert_eq!(store.find(id).await.unwrap().unwrap().state, State::Running);
    std::fs::write(go.path(), "gone on\n").unwrap();
    running.join().await.unwrap();
    let mut said = said(&store, id).await;
    assert_eq!(said.pop().unwrap(), (Level::Info, "gone on".to_owned()));
    said.sort();
    assert_eq!(said, [(Level::Info, "begun".to_owned()), (Level::Warn, "trouble".to_owned())]);
}

#[tokio::test]
async fn lines_that_are_odd_are_kept_as_well_as_can_be() {
    let script = r#"printf 'a\377b\000c\r\n\n'; head -c 20000 /dev/zero | tr '\0' x; echo; printf end"#;
    let (_, said) = attempt(sh(script), job("".to_owned())).await;
    let texts: Vec<_> = said.into_iter().map(|(_, text)| text).collect();
    assert_eq!((texts[0].as_str(), texts[1].as_str(), texts[3].as_str()), ("a\u{fffd}b\u{fffd}c", "", "end"));
    assert!(texts[2].starts_with("xxx") && texts[2].ends_with("… (cut)"), "{}", texts[2]);
    assert!(texts[2].len() <= 8 << 10, "{}", texts[2].len());
}

#[tokio::test]
async fn a_program_that_prints_more_than_is_kept_is_not_slowed_down() {
    let script = "i=0; while [ $i -lt 50000 ]; do echo $i; i=$((i+1)); done";
    let (job, said) = attempt(sh(script), job("".to_owned())).await;
    assert_eq!((job.state, said.len() <= 1_000), (State::Succeeded, true));
    assert_eq!(said.last().unwrap(), &(Level::Info, "49999".to_owned()));
}

#[tokio::test]
async fn a_program_knows_of_the_workers_environment_what_it_is_told() {
    // Which `cargo` sets for every test.
    const OURS: &str = "CARGO_MANIFEST_DIR";
    assert!(std::env::var_os(OURS).is_some());
    let script = r#"echo "${CARGO_MANIFEST_DIR:+ours} ${PATH:+path} $MINE $(pwd)" >&3"#;
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().canonicalize().unwrap();
    for (process, ours) in
        [(sh(script), ""), (sh(script).keep_env(OURS), "ours"), (sh(script).inherit_env(), "ours")]
    {
        let (job, _) = attempt(process.env("MINE", "mine").current_dir(&here), job("".to_owned())).await;
        let result = format!("{ours} path mine {}\n", here.display());
        assert_eq!(job.result.unwrap(), Payload::from(result));
    }
}
