//! How programs end, and are ended.

use std::time::Duration;

use leasehold_core::worker::{ExitMeaning, HandlerOptions, Process};
use leasehold_core::{Reason, State, Worker};

use super::{Fifo, attempt, enqueue, job, said, says, sh, worker};
use crate::store;

const MS: Duration = Duration::from_millis(1);

#[tokio::test]
async fn an_exit_code_says_how_it_went() {
    for (code, state, reason) in [
        (0, State::Succeeded, None),
        (1, State::Scheduled, Some(Reason::Error)),
        (64, State::Failed, Some(Reason::Error)),
        (65, State::Failed, Some(Reason::Error)),
        (75, State::Scheduled, Some(Reason::RetryRequested)),
        (79, State::Cancelled, Some(Reason::Aborted)),
    ] {
        let (job, _) = attempt(sh(&format!("echo why >&2; exit {code}")), job("".to_owned())).await;
        assert_eq!((job.state, job.reason, job.attempt), (state, reason, 1), "{code}");
        if reason == Some(Reason::Error) {
            let failure = job.last_failure().unwrap();
            let text = format!("the program ended with the exit code {code}: why");
            assert_eq!((&failure.class, &failure.message), (&format!("exit_{code}"), &text));
        }
    }
    let (job, _) = attempt(sh("exit 9").exit_code(9, ExitMeaning::Success), job("".to_owned())).await;
    assert_eq!(job.state, State::Succeeded);
}

#[tokio::test]
async fn a_signal_is_told_by_its_name() {
    for (signal, class, text) in [
        ("SEGV", "signal_SIGSEGV", "the program was killed by SIGSEGV: last words"),
        (
            "KILL",
            "killed",
            "the program was killed by SIGKILL, not by this worker: most likely the system ran out of memory: last words",
        ),
    ] {
        let (job, _) =
            attempt(sh(&format!("echo last words >&2; kill -{signal} $$")), job("".to_owned())).await;
        let failure = job.last_failure().unwrap();
        assert_eq!((failure.class.as_str(), failure.message.as_str()), (class, text));
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_clear_error() {
    for process in [Process::new("no-such-program"), Process::new("no-such-program").memory(64 << 20)] {
        let (job, _) = attempt(process, job("".to_owned())).await;
        let failure = job.last_failure().unwrap();
        assert_eq!((job.state, failure.class.as_str()), (State::Scheduled, "process_not_started"));
        let text =
            r#"the program "no-such-program" could not be started: there is no such program in its PATH"#;
        assert_eq!(failure.message, text);
    }
    for path in ["/no/such/program", "/etc", "/etc/passwd"] {
        let (job, _) = attempt(Process::new(path), job("".to_owned())).await;
        let failure = job.last_failure().unwrap();
        assert_eq!(failure.class, "process_not_started");
        assert!(
            failure.message.starts_with(&format!("the program {path:?} could not")),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn a_program_is_found_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/sh", folder.path().join("mine")).unwrap();
    let process = Process::new("./mine").args(["-c", "pwd >&3"]).current_dir(folder.path()).memory(1 << 30);
    let (job, _) = attempt(process, job("".to_owned())).await;
    assert_eq!(job.state, State::Succeeded, "{:?}", job.last_failure());
}

#[tokio::test]
async fn a_program_whose_time_is_over_may_end_by_itself() {
    let script = "trap 'echo saved; exit 0' TERM; echo begun; sleep 1000 & wait";
    let (job, said) = attempt(sh(script), job("".to_owned()).timeout(300 * MS)).await;
    let texts: Vec<_> = said.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!((job.state, job.reason), (State::Scheduled, Some(Reason::Timeout)));
    assert_eq!(texts, ["begun", "saved"]);
    let failure = job.last_failure().unwrap();
    assert_eq!(
        (failure.class.as_str(), failure.message.as_str()),
        ("timeout", "ran longer than its time-out of 300ms")
    );
}

#[tokio::test]
async fn a_program_that_ignores_the_signal_is_killed_with_all_that_it_started() {
    let held = Fifo::new();
    let left = Fifo::left(&held.path());
    let script = r#"
        trap '' TERM; exec 9>"$HELD"
        sh -c 'echo grandchild >&9; sleep 1000; echo late >&9' &
        sleep 1000; echo late >&9
    "#;
    let process = sh(script).env("HELD", held.path()).grace(200 * MS);
    let (job, said) = attempt(process, job("".to_owned()).timeout(300 * MS)).await;
    assert_eq!((job.state, job.reason), (State::Scheduled, Some(Reason::Timeout)));
    assert_eq!(left.await, "grandchild\n");
    assert_eq!(said.last().unwrap().1, "the program did not end within 200ms and is killed");
}

#[tokio::test]
async fn what_a_program_leaves_behind_goes_with_it() {
    let held = Fifo::new();
    let left = Fifo::left(&held.path());
    let script = r#"exec 9>"$HELD"; (echo there >&9; sleep 1000; echo late >&9) & echo done >&3"#;
    let (job, _) = attempt(sh(script).env("HELD", held.path()), job("".to_owned())).await;
    assert_eq!((job.state, job.result.unwrap().as_bytes()), (State::Succeeded, &b"done\n"[..]));
    left.await;
}

#[tokio::test]
async fn a_cancelled_job_ends_its_program() {
    let store = store();
    let id = enqueue(&store, job("".to_owned())).await;
    let process = sh("trap 'echo bye; exit 0' TERM; echo begun; sleep 1000 & wait");
    // Renewed often enough to be told soon.
    let running = worker(&store, process).lease(Duration::from_secs(1)).build().unwrap().start();
    says(&store, id, "begun").await;
    store.cancel(id).await.unwrap();
    running.join().await.unwrap();
    let job = store.find(id).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (State::Cancelled, 1));
    assert_eq!(said(&store, id).await.last().unwrap().1, "bye");
}

#[tokio::test]
async fn a_worker_that_stops_gives_the_job_back_unless_its_program_says_that_it_is_done() {
    for (script, state, attempts) in [
        ("trap 'exit 0' TERM; echo begun; sleep 1000 & wait", State::Queued, 0),
        ("trap 'echo done >&3; exit 0' TERM; echo begun; sleep 1000 & wait", State::Succeeded, 1),
        ("echo begun; sleep 1000", State::Queued, 0),
    ] {
        let store = store();
        let id = enqueue(&store, job("".to_owned())).await;
        let running = Worker::builder(&store).grace(Duration::from_secs(5)).handle("work", sh(script));
        let running = running.build().unwrap().start();
        says(&store, id, "begun").await;
        running.stop().await.unwrap();
        let job = store.find(id).await.unwrap().unwrap();
        assert_eq!((job.state, job.attempt), (state, attempts), "{script}");
    }
}

#[tokio::test]
async fn memory_is_bounded() {
    // A line that has no end has to be kept as a whole.
    let process = sh("head -c 200000000 /dev/zero | tail -n 1 >/dev/null");
    let (free, _) = attempt(process.clone(), job("".to_owned())).await;
    assert_eq!(free.state, State::Succeeded);
    let (bound, _) = attempt(process.memory(64 << 20), job("".to_owned())).await;
    let failure = bound.last_failure().unwrap();
    assert_eq!((failure.reason, failure.message.contains("memory")), (Reason::Error, true), "{failure:?}");

    let (told, _) = attempt(sh("ulimit -v >&3").memory((64 << 20) - 1), job("".to_owned())).await;
    assert_eq!(told.result.unwrap().as_bytes(), b"65536\n");
    let (killed, _) = attempt(sh("kill -SEGV $$").memory(64 << 20), job("".to_owned())).await;
    let text = "the program was killed by SIGSEGV; its memory is bound to 67108864 bytes";
    assert_eq!(killed.last_failure().unwrap().message, text);
}

#[tokio::test]
async fn cpu_time_is_bounded_and_told() {
    let process = sh("while :; do :; done").cpu_time(500 * MS);
    let (job, _) = attempt(process, job("".to_owned()).timeout(60_000 * MS)).await;
    let failure = job.last_failure().unwrap();
    let text = "the program was killed by SIGXCPU: it used more CPU time than its 500ms";
    assert_eq!((failure.class.as_str(), failure.message.as_str()), ("cpu_limit", text));
}

#[tokio::test]
async fn somebody_elses_kill_of_the_guard_ends_the_program() {
    // The guard leads the group.
    let script = r#"kill -9 "$(ps -o pgid= -p $$ | tr -d ' ')"; sleep 1000"#;
    let (job, _) = attempt(sh(script), job("".to_owned()).timeout(60_000 * MS)).await;
    let failure = job.last_failure().unwrap();
    assert_eq!(failure.class, "process_lost", "{failure:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_with_a_grace_is_told_that_its_time_is_over() {
    let options = HandlerOptions::default().timeout(Duration::from_secs(1)).grace(Duration::from_secs(5));
    for (takes, waited) in [(3, 4), (100, 6)] {
        let store = store();
        let id = enqueue(&store, job("".to_owned())).await;
        let begun = tokio::time::Instant::now();
        let handler = move |attempt: leasehold_core::Attempt| async move {
            attempt.cancelled().await;
            tokio::time::sleep(Duration::from_secs(takes)).await;
        };
        let worker = Worker::builder(&store).max_jobs(1).handle_with("work", options.clone(), handler);
        worker.build().unwrap().run().await;
        let job = store.find(id).await.unwrap().unwrap();
        assert_eq!((job.state, job.reason), (State::Scheduled, Some(Reason::Timeout)));
        assert_eq!(begun.elapsed().as_secs(), waited);
    }
}
