use crate::bench::Bench;

#[test]
fn a_queue_is_paused_and_resumed_with_a_reason() {
    let bench = Bench::new();
    let id = bench.enqueue(["--queue", "main/mail"]);
    bench.run(["queues", "pause", "main/", "--by", "ann", "--reason", "the relay is down"]).ok();
    let why = bench.run(["why", &id]).ok();
    assert!(why.out.starts_with("the queue main/ is paused by ann: the relay is down\n"), "{why:?}");
    bench.run(["queues", "resume", "main/"]).ok();
    assert!(!bench.run(["why", &id]).ok().out.contains("paused"));
    bench.run(["queues", "rate", "main/mail", "10", "--per", "1m"]).ok();
    assert!(bench.run(["queues", "list"]).ok().out.contains("10 in 1m"));
    bench.run(["queues", "rate", "main/mail", "--none"]).ok();
    let shown = bench.run(["-o", "json", "queues", "show", "main/mail"]).ok().json();
    assert_eq!(
        (&shown["states"]["queued"], &shown["settings"]["rate"]),
        (&1.into(), &serde_json::Value::Null)
    );
    bench.run(["queues", "show", "other"]).ended(3);
}

#[test]
fn a_queue_is_purged_only_when_somebody_said_so() {
    let bench = Bench::new();
    (0..3).for_each(|_| drop(bench.enqueue(["--queue", "mail"])));
    bench.enqueue(["--queue", "other"]);
    let asked = bench.run(["queues", "purge", "mail"]).ended(2);
    assert!(asked.said.contains("3 would be deleted") && asked.said.contains("--yes"), "{asked:?}");
    assert!(bench.run(["queues", "purge", "mail", "--dry-run"]).ok().out.contains("3 would be deleted"));
    assert_eq!(bench.run(["queues", "purge", "mail", "--yes"]).ok().out, "3 deleted\n");
    let left = bench.run(["-o", "jsonl", "jobs", "list", "--all"]).ok();
    assert_eq!(left.out.lines().count(), 1, "{left:?}");
}

#[test]
fn schedules_are_made_previewed_fired_and_removed() {
    let bench = Bench::new();
    let add =
        ["schedules", "add", "nightly", "report", "{}", "--cron", "30 2 * * *", "--zone", "Europe/Berlin"];
    bench.run(add).ok();
    // The clocks go forward at two in the night of the 29th: the tick comes right after the gap.
    let next =
        bench.run(["-o", "json", "schedules", "next", "nightly", "--after", "2026-03-27", "-n", "3"]).ok();
    let hours = [1_774_575_000_000_i64, 1_774_661_400_000, 1_774_746_000_000];
    assert_eq!(next.json(), serde_json::json!(hours));
    let job = bench.run(["schedules", "run", "nightly"]).ok().word().to_owned();
    assert_eq!(bench.job(&job)["kind"], "report");
    bench.run(["schedules", "pause", "nightly"]).ok();
    assert!(bench.run(["schedules", "list"]).ok().out.contains("paused"));
    assert!(bench.run(["schedules", "show", "nightly"]).ok().out.contains(&job));
    for bad in ["*/0 * * * *", "0 0 30 2 *"] {
        bench.run(["schedules", "add", "bad", "report", "--cron", bad]).ended(2);
    }
    bench.run(["schedules", "add", "bad", "report", "--daily", "02:30", "--zone", "Mars/Olympus"]).ended(2);
    bench.run(["schedules", "add", "bad", "report", "--daily", "02:30", "--every", "1h"]).ended(2);
    bench.run(["schedules", "remove", "nightly", "--yes"]).ok();
    bench.run(["schedules", "show", "nightly"]).ended(3);
}

#[test]
fn a_flow_is_enqueued_from_a_file_and_retried() {
    let bench = Bench::new();
    let flow = r#"{ "name": "import", "jobs": [
        { "name": "fetch", "kind": "work" },
        { "name": "merge", "kind": "work", "after": ["fetch"] } ] }"#;
    std::fs::write(bench.folder().join("flow.json"), flow).unwrap();
    let id = bench.run(["flows", "enqueue", "flow.json"]).ok().word().to_owned();
    assert!(bench.run(["flows", "list"]).ok().out.contains("import"));
    let shown = bench.run(["flows", "show", &id]).ok();
    assert!(shown.out.contains("parked"), "{shown:?}");
    let members = bench.run(["-o", "json", "jobs", "list"]).ok().json();
    let merge = members.as_array().unwrap().iter().find(|job| job["state"] == "scheduled").unwrap();
    let why = bench.run(["why", merge["id"].as_str().unwrap()]).ok();
    assert!(why.out.contains(&format!("it waits in the flow {id} for the job")), "{why:?}");
    bench.run(["flows", "cancel", &id, "--yes"]).ok();
    bench.run(["flows", "wait", &id, "--for", "10s"]).ended(1);
    assert!(bench.run(["flows", "retry", &id]).ok().out.contains("running"));
    bench.run(["flows", "enqueue", "nowhere.json"]).ended(2);
    bench
        .feed(
            ["flows", "enqueue", "-"],
            b"{\"name\": \"x\", \"jobs\": [{\"name\": \"a\", \"kind\": \"k\", \"after\": [\"a\"]}]}",
        )
        .ended(2);
}
