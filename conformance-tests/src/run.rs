use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::case::{Case, Report};
use crate::harness::Harness;
use crate::processes::{Role, play};
use crate::report::Reporter;

/// The environment variable that, set to `1`, makes it a failure if this machine lacks what a case needs.
pub const STRICT: &str = "CONFORMANCE_STRICT";

/// Judges a backend: the `main` of a test target with `harness = false`.
///
/// It takes the arguments of a Rust test binary, so `cargo test` and `cargo nextest` can list, filter and run
/// the cases by name, area or `[clause]`. A case that the backend does not support is reported as ignored,
/// with the reason; so is one that cannot run on this machine, unless [`STRICT`] is set. `--cases N` says how many
/// random sequences are played, [`SEQUENCES`](crate::SEQUENCES) if it is not there, `--ticks N` how many ticks schedulers
/// fire that are killed and frozen, [`ENOUGH_TICKS`](crate::ENOUGH_TICKS) if it is not there, `--flow N` how many
/// jobs the flow has whose workers are killed, [`FLOW`](crate::FLOW) if it is not there, and `--seed S` casts the dice as they were
/// cast before.
pub fn main(harness: impl Harness) -> ExitCode {
    judge(vec![(String::new(), Arc::new(harness))])
}

/// Judges one backend on several kinds of servers, in one process: see [`main`]. What each kind is called stands
/// before the names of its cases: `three_nodes::claiming::...`.
pub fn main_on<H: Harness>(servers: impl IntoIterator<Item = (&'static str, H)>) -> ExitCode {
    let named = |(kind, harness): (&str, H)| (format!("{kind}::"), Arc::new(harness) as Arc<dyn Harness>);
    judge(servers.into_iter().map(named).collect())
}

fn judge(harnesses: Vec<(String, Arc<dyn Harness>)>) -> ExitCode {
    if let Some(role) = Role::told() {
        return role.map_or(ExitCode::FAILURE, |role| {
            let mine = harnesses.into_iter().find(|(kind, _)| *kind == role.server);
            mine.map_or(ExitCode::FAILURE, |(_, harness)| play(&role, harness))
        });
    }
    crate::keep::keep_by_itself();
    let mut arguments = match crate::options::take_from(std::env::args(), harnesses.len() as u64) {
        Ok(rest) => Arguments::from_iter(rest),
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    if harnesses.len() > 1 {
        // On a server, cases wait more than they compute.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        arguments.test_threads.get_or_insert(2 * cores);
    }
    let strict = std::env::var(STRICT).is_ok_and(|value| value == "1");
    let mut trials = Vec::new();
    for (kind, harness) in harnesses {
        let reporter = Arc::new(Reporter::new(&kind, &harness));
        // Only a list has to know beforehand what will not run: a run says it case by case. Who asks for a list may
        // not run these at all, so they are written down here.
        let unfit = if arguments.list { unfit(&kind, &harness, strict) } else { Vec::new() };
        if let Err(error) = unfit.iter().try_for_each(|(case, report)| reporter.note(case, report)) {
            eprintln!("what is not supported cannot be written down: {error}");
            return ExitCode::FAILURE;
        }
        trials.extend(crate::cases().map(|case| {
            let ignored = unfit.iter().any(|(other, _)| other.name == case.name);
            trial(&kind, case, Arc::clone(&harness), strict, Arc::clone(&reporter)).with_ignored_flag(ignored)
        }));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(
    kind: &str,
    case: &'static Case,
    harness: Arc<dyn Harness>,
    strict: bool,
    reporter: Arc<Reporter>,
) -> Trial {
    let server = kind.to_owned();
    Trial::ignorable_test(format!("{kind}{}", case.full_name()), move || {
        let report = case.judge_on(&server, harness);
        reporter.note(case, &report)?;
        outcome(report, strict)
    })
}

fn outcome(report: Report, strict: bool) -> Result<Completion, Failed> {
    match report {
        Report::Kept => Ok(Completion::Completed),
        Report::NotSupported(why) => Ok(Completion::ignored_with(why)),
        Report::CannotRun(why) if strict => Err(format!("{why}\n  ({STRICT} is set)").into()),
        Report::CannotRun(why) => Ok(Completion::ignored_with(why)),
        Report::Broken(how) => Err(how.into()),
    }
}

/// The cases that will not run, because the backend does not support them or this machine lacks something; a
/// strict run tries the latter, and fails.
fn unfit(kind: &str, harness: &Arc<dyn Harness>, strict: bool) -> Vec<(&'static Case, Report)> {
    let probe = |case: &Case| {
        Case { run: |_| Box::pin(async { Ok(()) }), ..*case }.judge_on(kind, Arc::clone(harness))
    };
    let (needy, able): (Vec<&'static Case>, Vec<_>) = crate::cases().partition(|case| !case.needs.is_empty());
    if let Some(missing @ Report::CannotRun(_)) = able.first().map(|case| probe(case)) {
        let all = crate::cases().map(|case| (case, missing.clone()));
        return if strict { Vec::new() } else { all.collect() };
    }
    let unfit = |report: &Report| match report {
        Report::NotSupported(_) => true,
        Report::CannotRun(_) => !strict,
        Report::Kept | Report::Broken(_) => false,
    };
    let probed = needy.into_iter().map(|case| (case, probe(case)));
    probed.filter(|(_, report)| unfit(report)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_server_fails_only_a_strict_run() {
        let missing = || Report::CannotRun("no server".into());
        assert!(matches!(outcome(missing(), false), Ok(Completion::Ignored { reason: Some(_) })));
        assert!(outcome(missing(), true).is_err());
    }

    #[test]
    fn what_is_not_supported_never_passes_silently() {
        for strict in [false, true] {
            let outcome = outcome(Report::NotSupported("not supported: no events".into()), strict);
            assert!(matches!(outcome, Ok(Completion::Ignored { reason: Some(_) })));
        }
    }
}
