use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::Settings;
use crate::job::Payload;
use crate::policy::{JobFailure, Outcome};

/// What a program's exit code says of its attempt.
///
/// | code | meaning |
/// |---|---|
/// | 0 | [`Success`](Self::Success) |
/// | 64 (`EX_USAGE`), 65 (`EX_DATAERR`) | [`Fail`](Self::Fail) |
/// | 75 (`EX_TEMPFAIL`) | [`Retry`](Self::Retry) |
/// | 79, the first that `sysexits.h` has no use for | [`Cancel`](Self::Cancel) |
/// | any other | [`Error`](Self::Error) |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitMeaning {
    /// The job is done; what the program wrote as its result is kept.
    Success,
    /// The attempt failed, and is tried again as the retry policy says.
    Error,
    /// The job has failed for good: trying again is pointless.
    Fail,
    /// To be run again after the retry policy's delay, which is no failure; the attempt stays spent.
    Retry,
    /// The job ends as cancelled.
    Cancel,
}

#[derive(Debug, Clone)]
pub(super) struct Meanings(BTreeMap<u8, ExitMeaning>);

impl Default for Meanings {
    fn default() -> Self {
        use ExitMeaning::{Cancel, Fail, Retry, Success};
        Self(BTreeMap::from([(0, Success), (64, Fail), (65, Fail), (75, Retry), (79, Cancel)]))
    }
}

impl Meanings {
    pub(super) fn set(&mut self, code: u8, meaning: ExitMeaning) {
        self.0.insert(code, meaning);
    }

    fn of(&self, code: i32) -> ExitMeaning {
        let meaning = u8::try_from(code).ok().and_then(|code| self.0.get(&code));
        meaning.copied().unwrap_or(ExitMeaning::Error)
    }
}

/// How a program ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// Whether it had been told to end.
    pub(super) told: bool,
    /// Up to a byte more than it may have.
    pub(super) result: Vec<u8>,
    /// What it said last as an error.
    pub(super) last: Option<String>,
}

impl Settings {
    /// What a program's end means for its attempt, whose result may have `most` bytes.
    pub(super) fn outcome(&self, ended: Ended, most: usize) -> Outcome {
        let says = |text: String| match &ended.last {
            Some(last) => format!("{text}: {last}"),
            None => text,
        };
        let Some(code) = ended.status.code() else {
            let signal = ended.status.signal().unwrap_or_default();
            let (class, text) = self.killed(signal);
            // Told to end, it did what is usual.
            let failure = JobFailure::error(class, says(text));
            return if ended.told { Outcome::Interrupted } else { Outcome::Failure(failure) };
        };
        let text = says(format!("the program ended with the exit code {code}"));
        match self.meanings.of(code) {
            // Many programs end so when they are told to, done or not.
            ExitMeaning::Success if ended.told && ended.result.is_empty() => Outcome::Interrupted,
            ExitMeaning::Success if ended.result.len() > most => {
                let text = format!("the program's result has more than {most} bytes");
                Outcome::Failure(JobFailure::error("result_too_large", text).permanent())
            }
            ExitMeaning::Success => {
                Outcome::Success((!ended.result.is_empty()).then(|| Payload::from(ended.result)))
            }
            _ if ended.told => Outcome::Interrupted,
            ExitMeaning::Error => Outcome::Failure(JobFailure::error(format!("exit_{code}"), text)),
            ExitMeaning::Fail => {
                Outcome::Failure(JobFailure::error(format!("exit_{code}"), text).permanent())
            }
            ExitMeaning::Retry => Outcome::RetryRequested { after: None, message: text, queue: None },
            ExitMeaning::Cancel => Outcome::Aborted { message: text },
        }
    }

    /// The class of a death by signal, and what is known of it.
    fn killed(&self, signal: i32) -> (String, String) {
        let name = name(signal);
        let killed = format!("the program was killed by {name}");
        match (signal, self.cpu, self.memory) {
            (24, Some(cpu), _) => {
                ("cpu_limit".into(), format!("{killed}: it used more CPU time than its {cpu:?}"))
            }
            (9, Some(cpu), _) => (
                "killed".into(),
                format!(
                    "{killed}, not by this worker: it ignored its bound of {cpu:?} of CPU time, or the system ran out of memory"
                ),
            ),
            (9, None, _) => (
                "killed".into(),
                format!("{killed}, not by this worker: most likely the system ran out of memory"),
            ),
            (6 | 7 | 10 | 11, _, Some(memory)) => {
                (format!("signal_{name}"), format!("{killed}; its memory is bound to {memory} bytes"))
            }
            _ => (format!("signal_{name}"), killed),
        }
    }
}

/// A signal's name, where its number is the same on all systems that matter.
fn name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}
