use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::bench::Bench;

const ECHO: &str = "#!/bin/sh\nread line\necho \"got $line\"\necho '{\"ok\":1}' >&3\n";

#[test]
fn a_program_runs_the_jobs_of_a_queue_and_its_words_are_kept() {
    let bench = Bench::new();
    let (program, id) = (bench.program("echo.sh", ECHO), bench.enqueue(["--queue", "main/in"]));
    let done = bench.run(["work", "--queue", "main/", "--burst", "--exec", &program]).ok();
    assert_eq!(done.out, "1 succeeded, 0 failed\n");
    assert_eq!(bench.run(["jobs", "wait", &id]).ok().out, "{\"ok\":1}\n\n");
    assert!(bench.run(["jobs", "logs", &id]).ok().out.contains("got {\"n\":1}"));
    assert!(bench.run(["jobs", "logs", "--follow", &id]).ok().out.contains("got {\"n\":1}"));
    let workers = bench.run(["-o", "json", "workers", "list", "--all"]).ok().json();
    let worker = workers[0]["worker"].as_str().unwrap();
    assert!(bench.run(["workers", "logs", worker]).ok().out.contains("got {\"n\":1}"));
    assert!(bench.run(["workers", "show", worker]).ok().out.contains("left"));
}

#[test]
fn a_worker_ends_after_one_job_and_with_the_first_failure() {
    let bench = Bench::new();
    (0..3).for_each(|_| drop(bench.enqueue(["--max-attempts", "1"])));
    let program = bench.program("ok.sh", "#!/bin/sh\ntrue\n");
    assert_eq!(bench.run(["work", "--one", "--exec", &program]).ok().out, "1 succeeded, 0 failed\n");
    let program = bench.program("bad.sh", "#!/bin/sh\necho no such user >&2\nexit 3\n");
    let failed = bench.run(["work", "--fail-fast", "--burst", "--exec", &program]).ended(1);
    assert!(failed.out.contains("1 failed") && failed.said.contains("exit_3: "), "{failed:?}");
    let errors = bench.run(["-o", "json", "errors"]).ok().json();
    assert_eq!(
        (&errors[0]["class"], &errors[0]["count"], &errors[0]["failed"]),
        (&"exit_3".into(), &1.into(), &1.into())
    );
    let program = bench.program("ok.sh", "#!/bin/sh\ntrue\n");
    bench.run(["work", "--redo-failed", "--burst", "--exec", &program]).ok();
    assert!(bench.run(["errors", "--state", "failed"]).ok().said.contains("no job has failed"));
}

#[test]
fn one_job_is_run_by_hand_and_stays_where_it_was() {
    let bench = Bench::new();
    let id = bench.enqueue(["--queue", "mail", "--delay", "1h"]);
    let other = bench.enqueue(["--queue", "mail"]);
    let program = bench.program("echo.sh", ECHO);
    bench.run(["jobs", "run", &id, "--exec", &program]).ok();
    let job = bench.job(&id);
    assert_eq!((&job["state"], &job["queue"]), (&"succeeded".into(), &"mail".into()));
    assert_eq!(bench.job(&other)["state"], "queued");
    // What has ended may be run again.
    bench.run(["jobs", "run", &id, "--exec", &program]).ok();
    assert_eq!(bench.job(&id)["generation"], 1);
}

#[test]
fn a_signal_lets_what_runs_finish() {
    let bench = Bench::new();
    let id = bench.enqueue([]);
    let program = bench.program("slow.sh", "#!/bin/sh\necho begun\nread line < gate\n");
    let made = std::process::Command::new("mkfifo").arg(bench.folder().join("gate")).status().unwrap();
    assert!(made.success());
    let mut command = bench.command(["work", "--exec", &program]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !bench.run(["jobs", "logs", &id]).out.contains("begun") {
        std::thread::yield_now();
    }
    assert!(bench.run(["why", &id]).ok().out.contains("it runs"));
    let killed =
        std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    said.find(|line| line.as_ref().is_ok_and(|line| line.contains("stopping"))).unwrap().unwrap();
    std::fs::write(bench.folder().join("gate"), "go\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.job(&id)["state"], "succeeded");
}

#[test]
fn what_nobody_takes_is_explained() {
    let bench = Bench::new();
    let program = bench.program("ok.sh", "#!/bin/sh\ntrue\n");
    let mut command = bench.command(["work", "--queue", "mail", "--kind", "other", "--exec", &program]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    said.next().unwrap().unwrap();
    let (of_kind, of_queue) = (bench.enqueue(["--queue", "mail"]), bench.enqueue(["--queue", "rest"]));
    while bench.run(["workers", "list"]).ok().out.is_empty() {
        std::thread::yield_now();
    }
    let why = |id: &str| bench.run(["why", id]).ok().out;
    assert!(why(&of_kind).contains("no living worker of its queue has a handler for the kind work"));
    assert!(why(&of_queue).contains("none of the 1 living workers takes from the queue rest"));
    bench.run(["workers", "stop", "--all"]).ended(2);
    bench.run(["workers", "stop", "--all", "--yes"]).ok();
    assert!(child.wait().unwrap().success());
}
