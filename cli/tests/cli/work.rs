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

/// Whatever a pool says, line by line.
fn said(child: &mut std::process::Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok)
}

fn signal(name: &str, pid: &str) {
    assert!(std::process::Command::new("kill").args([name, pid]).status().unwrap().success());
}

#[test]
fn a_pool_restarts_what_dies_and_replaces_all_when_told() {
    let bench = Bench::new();
    let program = bench.program("waits.sh", "#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.05; done\n");
    let file = bench.folder().join("pool.toml");
    std::fs::write(&file, format!("grace = \"5s\"\n[a]\ncommand = [{program:?}]\ncount = 2\n")).unwrap();
    assert!(bench.run(["pool", "--check", "pool.toml"]).ok().out.contains("waits.sh"));
    let mut child = bench.command(["pool", "pool.toml"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = said(&mut child);
    let mut running = |count: usize| -> Vec<String> {
        let runs = lines.by_ref().filter(|line| line.contains("runs as process"));
        runs.take(count).map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
    };
    let first = running(2);
    signal("-KILL", &first[0]);
    let again = running(1);
    signal("-HUP", &child.id().to_string());
    let new = running(2);
    assert!(!new.contains(&first[1]) && !new.contains(&again[0]), "{first:?} {again:?} {new:?}");
    signal("-TERM", &child.id().to_string());
    assert!(child.wait().unwrap().success());
    for pid in first.iter().chain(&again).chain(&new) {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} is left");
    }
}

#[test]
fn a_pool_of_nonsense_is_refused() {
    let bench = Bench::new();
    for text in [
        "",
        "[a]\n",
        "[a]\ncommand = []\n",
        "[a]\ncommand = [\"x\"]\nfrob = 1\n",
        "grace = \"soon\"\n",
        "frob",
    ] {
        std::fs::write(bench.folder().join("pool.toml"), text).unwrap();
        assert!(bench.run(["pool", "pool.toml"]).ended(2).said.contains("pool.toml"), "{text}");
    }
    bench.run(["pool", "nowhere.toml"]).ended(2);
}

#[test]
fn whoever_tries_things_sees_what_is_run() {
    let bench = Bench::new();
    let (ok, bad) = (
        bench.enqueue(["--queue", "x"]),
        bench.run(["jobs", "enqueue", "work", "fail", "--max-attempts", "1"]).ok(),
    );
    let done = bench.run(["dev", "--burst"]).ok();
    assert!(done.said.contains(&format!("{ok} x work attempt 1: {{\"n\":1}}")), "{done:?}");
    assert_eq!(
        (&bench.job(&ok)["state"], &bench.job(bad.word())["state"]),
        (&"succeeded".into(), &"failed".into())
    );
}
