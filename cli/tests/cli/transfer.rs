use std::process::Stdio;

use crate::bench::Bench;

const JOBS: usize = 3_000;

/// How many jobs of each state a store has.
fn counted(bench: &Bench, url: &str) -> Vec<(String, u64)> {
    let queues = bench.run(["--url", url, "-o", "json", "queues", "list"]).ok().json();
    let states = ["queued", "scheduled", "running", "succeeded", "failed", "cancelled"];
    let of = |state: &str| {
        queues.as_array().unwrap().iter().map(|queue| queue["states"][state].as_u64().unwrap_or(0)).sum()
    };
    states.into_iter().map(|state| (state.to_owned(), of(state))).filter(|(_, n)| *n > 0).collect()
}

/// How many jobs have got to the other file, which may not be there yet.
fn there(bench: &Bench) -> u64 {
    let queues = bench.run(["--url", "sqlite:other.db", "-o", "json", "queues", "list"]);
    if queues.code != 0 {
        return 0;
    }
    counted(bench, "sqlite:other.db").iter().map(|(_, n)| n).sum()
}

fn filled(bench: &Bench, jobs: usize) {
    let lines: String = (0..jobs).map(|n| format!("{{\"kind\": \"work\", \"payload\": {n}}}\n")).collect();
    bench.feed(["jobs", "enqueue", "--lines"], lines.as_bytes()).ok();
}

#[test]
fn a_move_that_is_killed_again_and_again_loses_nothing() {
    let bench = Bench::new();
    filled(&bench, JOBS);
    bench.run(["jobs", "cancel", "--contains", "77", "--yes"]).ok();
    let before = counted(&bench, "sqlite:jobs.db");
    let order = ["move", "--to", "sqlite:other.db", "--yes"];
    for arrived in [0, 500, 1_500] {
        let mut child = bench.command(order).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while there(&bench) < arrived && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(there(&bench) < JOBS as u64, "it was quicker than it could be killed");
    }
    let done = bench.run(["-o", "json"].into_iter().chain(order)).ok().json();
    let of = |field: &str| done[field].as_u64().unwrap();
    assert_eq!(of("met"), of("taken") + of("there") + of("held"));
    assert_eq!(counted(&bench, "sqlite:jobs.db"), []);
    assert_eq!(counted(&bench, "sqlite:other.db"), before);
    let listed =
        bench.run(["--url", "sqlite:other.db", "-o", "jsonl", "jobs", "list", "--limit", "10000"]).ok();
    let mut payloads: Vec<String> = listed.out.lines().map(str::to_owned).collect();
    payloads.sort_unstable();
    payloads.dedup();
    assert_eq!(payloads.len(), JOBS);
}

#[test]
fn tells_what_would_go_and_takes_what_it_was_told() {
    let bench = Bench::new();
    bench.enqueue(["--queue", "mail/a"]);
    bench.enqueue(["--queue", "mail/b"]);
    bench.enqueue([]);
    let order = ["move", "--to", "sqlite:other.db", "--queue", "mail/"];
    let told = bench.run(order.into_iter().chain(["--dry-run"])).ok();
    assert!(told.out.contains("2 jobs would be moved: 2 that wait"), "{told:?}");
    // Nobody sits at a terminal.
    assert!(bench.run(order).ended(2).said.contains("say --yes"));
    let done = bench.run(order.into_iter().chain(["--yes"])).ok();
    assert!(done.out.contains("2 moved") && done.out.contains("2 met, all accounted for"), "{done:?}");
    assert_eq!(bench.run(["jobs", "list"]).ok().out.matches("work").count(), 1);
    bench.run(["move", "--to", "sqlite:jobs.db", "--yes"]).ended(2);
    let same = format!("sqlite:{}", bench.folder().join("jobs.db").display());
    let same = bench.run(["move", "--to", &same, "--yes"]).ended(2);
    assert!(same.said.contains("the same store"), "{same:?}");
    assert!(
        bench
            .run(["move", "--from", "sqlite:none.db", "--to", "sqlite:o.db", "--yes"])
            .ended(3)
            .said
            .contains("--from")
    );
    assert!(bench.run(["move", "--to", "mysql://h/", "--yes"]).ended(2).said.contains("mysql"));
}

#[test]
fn a_copy_rests_and_what_is_held_up_is_named() {
    let bench = Bench::new();
    let keyed = bench.enqueue(["--unique", "k"]);
    let copied = bench.run(["copy", "--to", "sqlite:other.db"]).ok();
    assert!(copied.out.contains("1 copied"), "{copied:?}");
    assert_eq!(counted(&bench, "sqlite:other.db"), [("scheduled".to_owned(), 1)]);
    let third = bench.run(["--url", "sqlite:third.db", "jobs", "enqueue", "work", "1", "--unique", "k"]).ok();
    let held = bench.run(["move", "--to", "sqlite:third.db", "--yes"]).ended(5);
    assert!(
        held.out.contains("1 stay") && held.said.contains(&keyed) && held.said.contains(third.word()),
        "{held:?}"
    );
    assert_eq!(bench.job(&keyed)["state"], "queued");
    let moved = bench.run(["move", "--to", "sqlite:other.db", "--yes"]).ok();
    assert!(moved.out.contains("1 were there already"), "{moved:?}");
    assert_eq!(counted(&bench, "sqlite:other.db"), [("queued".to_owned(), 1)]);
}
