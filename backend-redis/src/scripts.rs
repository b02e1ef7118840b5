//! The scripts that the server runs: one per operation, in front of each what all share, and what those share
//! that know jobs.

use std::sync::LazyLock;

use redis::{Cmd, cmd};

/// A script, and the name that a server which has loaded it knows it by.
pub(crate) struct Script {
    text: String,
    hash: String,
    /// Whether it changes anything.
    pub(crate) writes: bool,
}

impl Script {
    fn new(writes: bool, parts: &[&str]) -> Self {
        let text = parts.concat();
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash, writes }
    }

    /// Runs it by its name.
    pub(crate) fn by_hash(&self) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(&self.hash);
        command
    }

    /// Runs it by its text, on a server that may not have loaded it.
    pub(crate) fn by_text(&self) -> Cmd {
        let mut command = cmd("EVAL");
        command.arg(&self.text);
        command
    }

    /// Loads it.
    pub(crate) fn load(&self) -> Cmd {
        let mut command = cmd("SCRIPT");
        command.arg("LOAD").arg(&self.text);
        command
    }
}

macro_rules! scripts {
    ($writes:literal: $($name:ident = $($file:literal)+;)*) => {$(
        pub(crate) static $name: LazyLock<Script> = LazyLock::new(|| {
            let parts = [include_str!("scripts/shared.lua"), $(include_str!(concat!("scripts/", $file))),+];
            Script::new($writes, &parts)
        });
    )*};
}

// Those that write.
scripts! {
    true:
    ADMIT = "jobs.lua" "lines.lua" "admit.lua";
    AMEND = "jobs.lua" "matching.lua" "amend.lua";
    APPEND_LOGS = "jobs.lua" "lines.lua" "append_logs.lua";
    CHECK_IN = "check_in.lua";
    CLAIM = "jobs.lua" "claim.lua";
    DELETE_REGISTER = "forgetting.lua" "delete_register.lua";
    ENQUEUE = "jobs.lua" "enqueue.lua";
    PRUNE = "jobs.lua" "forgetting.lua" "prune.lua";
    PUT_REGISTER = "put_register.lua";
    RENEW = "jobs.lua" "renew.lua";
    SET_ASIDE = "jobs.lua" "set_aside.lua";
    SET_QUEUE = "set_queue.lua";
    SETTLE = "jobs.lua" "settle.lua";
    SETUP = "setup.lua";
    STOP_WORKERS = "stop_workers.lua";
}

// Those that read.
scripts! {
    false:
    COUNTS = "jobs.lua" "counts.lua";
    EXPIRED = "jobs.lua" "expired.lua";
    FIND = "jobs.lua" "find.lua";
    HOUR = "hour.lua";
    LIST = "jobs.lua" "matching.lua" "list.lua";
    QUEUES = "queues.lua";
    READ_LOGS = "read_logs.lua";
    REGISTERS = "registers.lua";
    WORKERS = "workers.lua";
}
