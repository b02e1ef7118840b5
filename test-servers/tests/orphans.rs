//! No server outlives the process that started it, however that process ends.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use leasehold_test_servers::{Mongo, Postgres, Redis};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::Instant;

/// In whose environment this is starts servers, and waits for its end.
const STARTS: &str = "LEASEHOLD_TEST_STARTS_SERVERS";
/// How long servers may take to be gone.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn none_is_left_by_a_process_that_is_killed() {
    let Some(owner) = Owner::start("none_is_left_by_a_process_that_is_killed") else { return };
    kill_process(owner.pid(), Signal::KILL).expect("killed");
    owner.leaves_no_process();
    owner.leaves_no_file();
}

#[test]
fn none_is_left_by_a_group_that_is_terminated() {
    let Some(owner) = Owner::start("none_is_left_by_a_group_that_is_terminated") else { return };
    kill_process_group(owner.pid(), Signal::TERM).expect("terminated");
    owner.leaves_no_process();
    owner.leaves_no_file();
}

/// Nobody is there to remove files.
#[test]
fn none_is_left_by_a_group_that_is_killed() {
    let Some(owner) = Owner::start("none_is_left_by_a_group_that_is_killed") else { return };
    kill_process_group(owner.pid(), Signal::KILL).expect("killed");
    owner.leaves_no_process();
}

#[test]
fn none_is_left_by_a_watchdog_that_is_killed() {
    let Some(owner) = Owner::start("none_is_left_by_a_watchdog_that_is_killed") else { return };
    let watchdogs: Vec<Pid> = owner.processes().into_iter().filter(|pid| is_shell(*pid)).collect();
    assert_eq!(watchdogs.len(), 3, "one for each server");
    watchdogs.into_iter().for_each(|pid| kill_process(pid, Signal::KILL).expect("killed"));
    owner.leaves_no_process();
}

/// A process that started one server of each kind.
struct Owner {
    child: Child,
    /// What the servers' folders are in.
    place: tempfile::TempDir,
}

impl Owner {
    /// Runs this very test in another process, where it starts servers and does nothing else.
    fn start(test: &str) -> Option<Self> {
        if std::env::var_os(STARTS).is_some() {
            let servers = (Mongo::own(1), Postgres::own(), Redis::own());
            let (Ok(_), Ok(_), Ok(_)) = &servers else { panic!("{servers:?}") };
            println!("\nthey run");
            thread::park_timeout(PATIENCE * 3);
            return None;
        }
        let place = tempfile::tempdir().expect("a folder");
        // Like any folder of temporary files, for PostgreSQL has a user of its own.
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o1777)).expect("permissions");
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", test, "--nocapture"]).env(STARTS, "yes").env("TMPDIR", place.path());
        let mut child = command.stdout(Stdio::piped()).process_group(0).spawn().expect("it starts");
        let told = BufReader::new(child.stdout.take().expect("a pipe"));
        let owner = Self { child, place };
        assert!(told.lines().map_while(Result::ok).any(|line| line == "they run"), "no servers");
        let names: Vec<String> = owner.processes().into_iter().map(name).collect();
        let runs = |server: &str| names.iter().any(|name| name.contains(server));
        assert!(runs("mongod") && runs("postgres") && (runs("redis") || runs("valkey")), "{names:?}");
        Some(owner)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The processes that are in one of the servers' folders, as all of a server's are.
    fn processes(&self) -> Vec<Pid> {
        let all = fs::read_dir("/proc").expect("processes").flatten();
        let here = |entry: &fs::DirEntry| {
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.place.path()))
        };
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        all.filter(here).filter_map(number).filter_map(Pid::from_raw).collect()
    }

    fn leaves_no_process(&self) {
        self.leaves("processes", || self.processes().into_iter().map(name).collect());
    }

    fn leaves_no_file(&self) {
        let files = || fs::read_dir(self.place.path()).expect("a folder").flatten();
        self.leaves("files", || files().map(|file| file.path().display().to_string()).collect());
    }

    fn leaves(&self, what: &str, left: impl Fn() -> Vec<String>) {
        let begun = Instant::now();
        while !left().is_empty() {
            assert!(begun.elapsed() < PATIENCE, "{what} left: {:?}", left());
            thread::park_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn place(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

/// The command that a process was started by, where it still runs.
fn name(pid: Pid) -> String {
    fs::read_to_string(place(pid).join("cmdline")).unwrap_or_default().replace('\0', " ")
}

fn is_shell(pid: Pid) -> bool {
    name(pid).starts_with("sh ")
}
