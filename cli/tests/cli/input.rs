use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use crate::bench::Bench;

#[test]
fn a_line_that_cannot_be_enqueued_is_named_and_the_others_land() {
    const BAD: usize = 500_000;
    let bench = Bench::new();
    let mut lines = String::new();
    for number in 1..=BAD + 3 {
        match number {
            BAD => lines.push_str("{\"kind\": \"work\", \"payload\": \n"),
            _ => writeln!(lines, "{{\"kind\":\"work\",\"payload\":{number}}}").unwrap(),
        }
    }
    std::fs::write(bench.folder().join("jobs.jsonl"), lines).unwrap();
    // The lines before are read and counted; only the last ones are enqueued, for the sake of time.
    let from = format!("{}", BAD - 5);
    let done = bench.run(["jobs", "enqueue", "--lines=jobs.jsonl", "--from-line", &from]).ended(1);
    assert!(done.said.starts_with("line 500000: "), "{done:?}");
    assert_eq!(done.out, "8 of 9 lines are new jobs, 1 refused\n");
    let kept = bench.run(["-o", "jsonl", "jobs", "list", "--all"]).ok();
    assert_eq!(kept.out.lines().count(), 8);
}

#[test]
fn each_sort_of_bad_line_is_told() {
    let bench = Bench::new();
    let long = format!("{{\"kind\":\"work\",\"payload\":\"{}\"}}", "x".repeat(3 << 20));
    let large = format!("{{\"kind\":\"work\",\"payload\":\"{}\"}}", "x".repeat((1 << 20) + 10));
    let lines: [(&[u8], &str); 9] = [
        (b"{\"kind\":\"work\"}", ""),
        (b"frob", "expected"),
        (b"[]", "invalid"),
        (b"{\"payload\":1}", "missing field `kind`"),
        (b"{\"kind\":\"work\",\"frob\":1}", "unknown field `frob`"),
        (b"{\"kind\":\"work\",\"delay\":\"soon\"}", "\"soon\""),
        (b"{\"kind\":\"\xff\"}", "UTF-8"),
        (long.as_bytes(), "longer than"),
        (large.as_bytes(), "the limit is"),
    ];
    let input: Vec<u8> = lines.iter().flat_map(|(line, _)| [line, &b"\n"[..]].concat()).collect();
    let done = bench.feed(["jobs", "enqueue", "--lines"], &input).ended(1);
    assert_eq!(done.out, "1 of 9 lines are new jobs, 8 refused\n", "{done:?}");
    for (number, (_, why)) in lines.iter().enumerate().skip(1) {
        let said = format!("line {}: ", number + 1);
        let line = done.said.lines().find(|line| line.starts_with(&said));
        assert!(line.is_some_and(|line| line.contains(why)), "line {}: {done:?}", number + 1);
    }
}

#[test]
fn payloads_are_kept_as_they_are_written() {
    let bench = Bench::new();
    let payload = r#"{"b":1,"a":-0.0,"n":123456789012345678901234567890,"$":"\u00e4"}"#;
    bench
        .feed(
            ["jobs", "enqueue", "--lines"],
            format!("{{\"kind\":\"work\",\"payload\":{payload}}}\n").as_bytes(),
        )
        .ok();
    bench.feed(["jobs", "enqueue", "--lines", "plain"], b"not json at all\n").ok();
    let kept = bench.run(["-o", "json", "jobs", "list"]).ok().json();
    let payloads: Vec<&str> =
        kept.as_array().unwrap().iter().map(|job| job["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads, ["not json at all", payload]);
}

#[test]
fn a_store_that_goes_away_in_the_middle_is_told_with_where_to_go_on() {
    let server = leasehold_test_servers::Redis::own().expect("a server");
    let bench = Bench::on(server.url());
    let mut command = bench.command(["jobs", "enqueue", "--lines", "--patience", "0s", "--timeout", "2s"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let line = |number: usize| format!("{{\"kind\":\"work\",\"payload\":{number}}}\n");
    let lines: Vec<String> = (1..=4_000).map(line).collect();
    // Two batches and the first line of a third, without which the second is not sent.
    stdin.write_all(lines[..2_001].concat().as_bytes()).unwrap();
    stdin.flush().unwrap();
    while bench.run(["-o", "json", "queues", "list"]).out.matches("2000").count() == 0 {
        std::thread::yield_now();
    }
    server.kill().unwrap();
    stdin.write_all(lines[2_001..].concat().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{said}");
    let from = said.split("--from-line ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    assert_eq!(from, "2001", "{said}");
    server.restart().unwrap();
    bench.feed(["jobs", "enqueue", "--lines", "--from-line", from], lines.concat().as_bytes()).ok();
    let counts = bench.run(["-o", "json", "queues", "list"]).ok().json();
    assert_eq!(counts[0]["states"]["queued"], 4_000);
}

#[test]
fn who_has_no_rights_is_told_which_are_missing_and_no_password() {
    let server = leasehold_test_servers::Redis::own().expect("a server");
    server.run(&["ACL", "SETUSER", "reader", "on", ">hunter2", "+ping"]).expect("a user");
    let bench = Bench::on(&server.url_of("reader", "hunter2"));
    for words in [["queues", "list"], ["jobs", "list"]] {
        let denied = bench.run(words).ended(1);
        assert!(
            denied.said.contains("docs/guide/redis.md") && !denied.said.contains("hunter2"),
            "{denied:?}"
        );
    }
    let wrong = Bench::on(&server.url_of("reader", "hunter3")).run(["doctor"]);
    assert!(wrong.code != 0 && !format!("{wrong:?}").contains("hunter3"), "{wrong:?}");
}
