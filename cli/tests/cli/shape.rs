use std::io::Read;
use std::process::Stdio;

use crate::bench::Bench;

#[test]
fn how_it_ends_is_told_by_its_code() {
    let bench = Bench::new();
    let nobody = "01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d";
    let ends: [(&[&str], i32, &str); 12] = [
        (&["queues", "list"], 0, "there are no queues yet"),
        (&["queues", "frob"], 2, "unrecognized subcommand"),
        (&["queues", "list", "--frob"], 2, "unexpected argument"),
        (&["jobs", "show", "frob"], 2, "invalid value"),
        (&["jobs", "delete"], 2, "which jobs?"),
        (&["jobs", "show", nobody], 3, "there is no job"),
        (&["jobs", "cancel", nobody], 3, ""),
        (&["workers", "show", nobody], 3, "there is no worker"),
        (&["schedules", "remove", "frob", "--yes"], 3, "there is no schedule"),
        (&["--url", "mysql://127.0.0.1/jobs", "queues", "list"], 2, "no store is called \"mysql\""),
        (&["--url", "sqlite:nowhere.db", "queues", "list"], 3, "`leasehold migrate` makes it"),
        (&["--url", "redis://:hunter2@127.0.0.1:1", "--timeout", "1s", "queues", "list"], 4, "leasehold: "),
    ];
    for (words, code, said) in ends {
        let done = bench.run(words.iter().copied()).ended(code);
        assert!(done.said.contains(said), "{words:?}: {done:?}");
        assert!(!done.said.contains("hunter2") && done.out.find("hunter2").is_none(), "{done:?}");
    }
    let done = bench.enqueue([]);
    bench.run(["jobs", "requeue", &done]).ended(5);
}

#[test]
fn settings_come_from_flags_then_the_environment_then_the_file() {
    let bench = Bench::new();
    let file = bench.folder().join("leasehold.toml");
    std::fs::write(&file, "url = \"postgres://ann:hunter2@db/jobs\"\noutput = \"jsonl\"\ntimeout = \"9s\"\n")
        .unwrap();
    let shown = |command: &mut std::process::Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(!out.contains("hunter2") && !out.contains("ann"), "{out}");
        let lines = out.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines
            .map(|line| {
                (line["value"].as_str().unwrap().to_owned(), line["from"].as_str().unwrap().to_owned())
            })
            .collect::<Vec<_>>()
    };
    let pair = |value: &str, from: &str| (value.to_owned(), from.to_owned());
    let of_file = "leasehold.toml";
    let mut command = bench.command(["config", "show"]);
    assert_eq!(
        shown(command.env_remove("LEASEHOLD_URL")),
        [pair("postgres://db/jobs", of_file), pair("jsonl", of_file), pair("9s", of_file)]
    );
    let mut command = bench.command(["-o", "jsonl", "--url", "sqlite:other.db", "config", "show"]);
    assert_eq!(
        shown(command.env("LEASEHOLD_TIMEOUT", "7s")),
        [pair("sqlite:other.db", "--url"), pair("jsonl", "--output"), pair("7s", "LEASEHOLD_TIMEOUT")]
    );
    std::fs::write(&file, "url = \"sqlite:jobs.db\"\nfrob = \"hunter2\"\n").unwrap();
    let refused = bench.run(["config", "show"]).ended(2);
    assert!(refused.said.contains("line 2") && refused.said.contains("frob"), "{refused:?}");
    assert!(!refused.said.contains("hunter2"), "{refused:?}");
    std::fs::write(&file, "timeout = \"soon\"\n").unwrap();
    assert!(bench.run(["config", "show"]).ended(2).said.contains("leasehold.toml says \"soon\""));
    bench.run(["--config", "nowhere.toml", "config", "show"]).ended(2);
}

#[test]
fn whoever_reads_only_the_head_is_no_failure() {
    let bench = Bench::new();
    let lines: String = (0..3_000).map(|n| format!("{{\"kind\":\"work\",\"payload\":{n}}}\n")).collect();
    bench.feed(["jobs", "enqueue", "--lines"], lines.as_bytes()).ok();
    let mut command = bench.command(["-o", "jsonl", "jobs", "list", "--all"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_narrow_terminal_has_paragraphs_in_place_of_tables() {
    let bench = Bench::new();
    let id = bench.enqueue(["--queue", "a-queue-with-a-long-name"]);
    let output = bench.command(["jobs", "list"]).env("COLUMNS", "40").output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.lines().count() >= 6, "{out}");
    assert!(out.lines().any(|line| line.split_whitespace().eq(["id", &id])), "{out}");
    let wide = bench.run(["jobs", "list"]).ok();
    assert_eq!(wide.out.lines().count(), 2, "{wide:?}");
}

#[test]
fn nothing_that_a_job_says_moves_the_cursor() {
    let bench = Bench::new();
    let evil = "\u{1b}[2J\u{202e}gpj.exe\r";
    let id = bench.run(["jobs", "enqueue", "work", evil]).ok().word().to_owned();
    for words in [vec!["jobs", "list"], vec!["jobs", "show", &id]] {
        let done = bench.run(words).ok();
        assert!(
            !done.out.contains('\u{1b}') && !done.out.contains('\u{202e}') && !done.out.contains('\r'),
            "{done:?}"
        );
        assert!(done.out.contains("\\u{1b}[2J"), "{done:?}");
    }
    assert_eq!(bench.job(&id)["payload"], evil);
}

#[test]
fn shells_are_given_completions_and_readers_manual_pages() {
    let bench = Bench::bare();
    for shell in ["bash", "zsh", "fish"] {
        assert!(bench.run(["completions", shell]).ok().out.contains("leasehold"));
    }
    assert!(bench.run(["man"]).ok().out.starts_with(".ie"));
    bench.run(["man", "--to", "pages"]).ok();
    let pages = std::fs::read_dir(bench.folder().join("pages")).unwrap().count();
    assert!(pages > 30, "{pages} pages");
}

#[test]
fn a_store_is_measured_and_nothing_is_left() {
    let bench = Bench::new();
    let measured = bench.run(["-o", "json", "bench", "--jobs", "500", "--batch", "50"]).ok().json();
    let of = |part: usize, what: &str| measured[part][what].clone();
    assert_eq!(
        (of(0, "part"), of(0, "jobs"), of(0, "calls_per_job")),
        ("enqueue".into(), 500.into(), 0.02.into())
    );
    assert_eq!((of(2, "part"), of(2, "jobs")), ("settle".into(), 500.into()));
    assert_eq!(bench.run(["-o", "jsonl", "jobs", "list", "--all"]).ok().out, "");
    bench.run(["bench", "--batch", "0"]).ended(2);
    assert!(bench.run(["top"]).ended(2).said.contains("needs a terminal"));
}

#[test]
fn a_doctor_tells_what_is_wrong_and_what_to_do() {
    let bench = Bench::bare();
    let missing = bench.run(["doctor"]).ended(1);
    assert!(missing.out.contains("there is no file jobs.db") && missing.out.contains("leasehold migrate"));
    bench.run(["migrate", "--check"]).ended(1);
    bench.run(["migrate"]).ok();
    bench.run(["migrate", "--check"]).ok();
    bench.run(["queues", "pause", "mail", "--reason", "the relay is down"]).ok();
    let found = bench.run(["-o", "json", "doctor"]).ok().json();
    let of = |check: &str| {
        let all = found.as_array().unwrap().iter().filter(|it| it["check"] == check);
        all.map(|it| it["health"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (of("rights"), of("workers"), of("queues")),
        (vec!["ok".into()], vec!["warning".into()], vec!["warning".into()])
    );
    let away = bench.run(["--url", "redis://127.0.0.1:1", "--timeout", "1s", "doctor"]).ended(1);
    assert!(away.out.contains("BAD"), "{away:?}");
}
