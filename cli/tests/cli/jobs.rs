use crate::bench::Bench;

#[test]
fn a_job_is_enqueued_shown_and_changed() {
    let bench = Bench::new();
    let id = bench.enqueue([
        "--queue",
        "mail",
        "--priority",
        "-3",
        "--tag",
        "slow",
        "--delay",
        "1h",
        "--header",
        "a=b",
    ]);
    let job = bench.job(&id);
    assert_eq!(
        (&job["queue"], &job["state"], &job["payload"]),
        (&"mail".into(), &"scheduled".into(), &"{\"n\":1}".into())
    );
    assert_eq!(job["options"]["headers"]["a"], "b");
    assert!(bench.run(["why", &id]).ok().out.contains("it is due in 59 min"));
    bench.run(["jobs", "postpone", "0s", &id]).ok();
    bench.run(["jobs", "prioritise", "7", &id]).ok();
    bench.run(["jobs", "move", &id, "--to", "other"]).ok();
    let job = bench.job(&id);
    assert_eq!(
        (&job["queue"], &job["state"], &job["options"]["priority"]),
        (&"other".into(), &"queued".into(), &7.into())
    );
    bench.run(["jobs", "cancel", &id]).ok();
    bench.run(["jobs", "wait", &id, "--for", "1s"]).ended(1);
    bench.run(["jobs", "requeue", &id, "--at", "1h"]).ok();
    bench.run(["jobs", "delete", &id]).ok();
    bench.run(["jobs", "show", &id]).ended(3);
}

#[test]
fn the_same_id_leaves_one_job() {
    let bench = Bench::new();
    let id = "01970a3c-6a7b-7c1e-9f00-2f6d1a2b3c4d";
    for outcome in ["created", "existing"] {
        let done = bench.run(["-o", "json", "jobs", "enqueue", "work", "--id", id]).ok();
        assert_eq!(done.json()["outcome"], outcome);
    }
    let first = bench.enqueue(["--unique", "one"]);
    assert_eq!(bench.enqueue(["--unique", "one"]), first);
}

#[test]
fn jobs_are_found_by_what_they_are() {
    let bench = Bench::new();
    let lines = r#"{"kind":"a","payload":{"user":42},"tags":["x","y"]}
{"kind":"b","queue":"mail/in","payload":"42"}
{"kind":"b","queue":"mail/out","delay":"1h"}
"#;
    bench.feed(["jobs", "enqueue", "--lines"], lines.as_bytes()).ok();
    let count = |words: &[&str]| {
        let words = ["-o", "jsonl", "jobs", "list"].iter().chain(words).copied();
        bench.run(words).ok().out.lines().count()
    };
    assert_eq!(count(&[]), 3);
    assert_eq!(count(&["--kind", "b"]), 2);
    assert_eq!(count(&["--kind", "a", "--kind", "b"]), 3);
    assert_eq!(count(&["--tag", "x", "--tag", "y"]), 1);
    assert_eq!(count(&["--contains", "42"]), 2);
    assert_eq!(count(&["--contains", "\"user\":42"]), 1);
    assert_eq!(count(&["--state", "scheduled"]), 1);
    assert_eq!(count(&["--queue", "mail/in"]), 1);
    assert_eq!(count(&["--since", "1h"]), 3);
    assert_eq!(count(&["--until", "2020-01-01"]), 0);
    let page = bench.run(["jobs", "list", "-n", "2"]).ok();
    let after = page.said.trim().strip_prefix("there are more: --after ").unwrap();
    assert_eq!(count(&["--after", after]), 1);
    bench.run(["jobs", "list", "--state", "frob"]).ended(2);
    bench.run(["jobs", "list", "--since", "yesterday"]).ended(2);
    bench.run(["jobs", "list", "--after", "frob"]).ended(2);
}

#[test]
fn a_change_of_many_is_shown_before_and_counted_after() {
    let bench = Bench::new();
    let ids: Vec<String> = (0..5).map(|_| bench.enqueue([])).collect();
    bench.enqueue(["--delay", "1h"]);
    let words = ["-o", "json", "jobs", "cancel", "--state", "queued"];
    let dry = bench.run(words.into_iter().chain(["--dry-run"])).ok().json();
    assert_eq!((&dry["changed"], &dry["dry_run"]), (&5.into(), &true.into()));
    assert_eq!(bench.run(words.into_iter().chain(["--yes"])).ok().json()["changed"], 5);
    // What is named and cannot be changed is a conflict.
    let refused = bench.run(["-o", "json", "jobs", "cancel", &ids[0], &ids[1]]);
    assert_eq!(
        refused.json()["refused"]["cancelled"].as_u64().or(refused.json()["already"].as_u64()),
        Some(2),
        "{refused:?}"
    );
}
