use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{Access, access};

use super::Settings;
use crate::worker::attempt::Attempt;

/// Where the program finds the pipe for its result.
const RESULT_FD: i32 = 3;

/// What every program is told of the worker's environment, beside `LC_*`.
const USUAL: [&str; 8] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG"];

/// Bounds itself and then becomes the program, so that the program never runs unbounded. The soft bound of CPU time
/// comes first, and names itself by its signal; the hard one is for programs that ignore it.
const BOUNDED: &str = r#"
memory=$1 cpu=$2; shift 2
[ -z "$memory" ] || ulimit -v "$memory" || exit 126
[ -z "$cpu" ] || { ulimit -S -t "$cpu" && ulimit -H -t $((cpu + 5)); } || exit 126
exec "$@"
"#;

impl Settings {
    /// The program for an attempt, in this process group, with this pipe for its result.
    pub(super) fn command(&self, attempt: &Attempt, group: i32, result: OwnedFd) -> io::Result<Command> {
        let environment = self.environment(attempt);
        let path = environment.iter().rfind(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
        let program = self.find(path)?;
        let mut command = if self.memory.is_none() && self.cpu.is_none() {
            Command::new(program)
        } else {
            let memory = self.memory.map_or_else(String::new, |bytes| bytes.div_ceil(1024).to_string());
            let cpu =
                self.cpu.map_or_else(String::new, |time| time.as_secs_f64().ceil().max(1.0).to_string());
            let mut command = Command::new("/bin/sh");
            command.args(["-c", BOUNDED, "sh", &memory, &cpu]).arg(program);
            command
        };
        command.args(&self.arguments).env_clear().envs(environment);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        command.process_group(group);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mapping = FdMapping { parent_fd: result, child_fd: RESULT_FD };
        command.fd_mappings(vec![mapping]).map_err(io::Error::other)?;
        Ok(command)
    }

    fn environment(&self, attempt: &Attempt) -> Vec<(OsString, OsString)> {
        let handed_on = |name: &OsStr| {
            self.inherit
                || self.keep.iter().any(|kept| kept == name)
                || USUAL.iter().any(|usual| *usual == name)
                || name.as_bytes().starts_with(b"LC_")
        };
        let mut environment: Vec<_> = env::vars_os().filter(|(name, _)| handed_on(name)).collect();
        environment.extend(self.set.clone());
        environment.extend(told(attempt).into_iter().map(|(name, value)| (name.into(), value.into())));
        environment
    }

    /// The program's path, so that a missing one is told by its name, and alike whether it is bounded or not.
    fn find(&self, path: Option<&OsStr>) -> io::Result<PathBuf> {
        let folder = self.folder.as_deref().unwrap_or(Path::new(""));
        let program = Path::new(&self.program);
        if self.program.as_bytes().contains(&b'/') {
            let place = folder.join(program);
            runs(&place)?;
            return std::path::absolute(place);
        }
        let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no such program in its PATH");
        let places =
            env::split_paths(path.unwrap_or(OsStr::new("/usr/bin:/bin"))).map(|place| place.join(program));
        let mut found = places.filter(|place| runs(place).is_ok());
        found.next().map(std::path::absolute).ok_or_else(missing)?
    }
}

/// Whether this is a file that may be run.
fn runs(place: &Path) -> io::Result<()> {
    if place.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder"));
    }
    Ok(access(place, Access::EXEC_OK)?)
}

/// What a program is told of its job by its environment.
fn told(attempt: &Attempt) -> Vec<(&'static str, String)> {
    let job = attempt.job();
    let mut told = vec![
        ("LEASEHOLD_JOB_ID", job.id.to_string()),
        ("LEASEHOLD_KIND", job.kind.to_string()),
        ("LEASEHOLD_QUEUE", job.queue.to_string()),
        ("LEASEHOLD_ATTEMPT", job.attempt.to_string()),
        ("LEASEHOLD_MAX_ATTEMPTS", job.options.max_attempts.to_string()),
        ("LEASEHOLD_WORKER_ID", attempt.worker().to_string()),
        ("LEASEHOLD_RESULT_FD", RESULT_FD.to_string()),
    ];
    for (header, name) in [("traceparent", "TRACEPARENT"), ("tracestate", "TRACESTATE")] {
        let value = job.options.headers.get(header);
        told.extend(value.filter(|value| !value.contains('\0')).map(|value| (name, value.clone())));
    }
    told
}
