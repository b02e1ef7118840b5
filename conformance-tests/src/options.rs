//! What a run of the suite is told beside what every test binary is told.

use std::sync::OnceLock;

/// The environment variable that sets the dice of cases which leave something to chance, to repeat a failure. The
/// argument `--seed` goes before it.
pub const SEED: &str = "CONFORMANCE_SEED";

/// The environment variable that says how many random sequences are played on the backend and on the reference.
/// The argument `--cases` goes before it. Defaults to [`SEQUENCES`].
pub const CASES: &str = "CONFORMANCE_CASES";

/// The environment variable that says how many jobs the flow has whose workers are killed. The argument `--flow` goes before
/// it. Defaults to [`FLOW`].
pub const FLOW_JOBS: &str = "CONFORMANCE_FLOW";

/// How many jobs that flow has in an ordinary run.
pub const FLOW: u64 = 300;

/// How many random sequences an ordinary run plays on each backend; several kinds of servers share them.
pub const SEQUENCES: u64 = 1_000;

/// The environment variable that says how many ticks schedulers fire at least that are killed and frozen meanwhile. The
/// argument `--ticks` goes before it. Defaults to [`ENOUGH_TICKS`].
pub const TICKS: &str = "CONFORMANCE_TICKS";

/// How many ticks an ordinary run fires so.
pub const ENOUGH_TICKS: u64 = 150;

/// What this run was told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// What to cast the dice with; by chance if none.
    pub(crate) seed: Option<u64>,
    /// How many random sequences.
    pub(crate) cases: u64,
    /// How many jobs the flow has whose workers are killed.
    pub(crate) flow: u64,
    /// How many ticks.
    pub(crate) ticks: u64,
}

static TOLD: OnceLock<Options> = OnceLock::new();

/// What this run was told, by the environment if by nothing else.
pub(crate) fn options() -> Options {
    *TOLD.get_or_init(|| Options::of_the_environment(1))
}

/// Takes `--seed S`, `--cases N`, `--ticks N` and `--flow N` out of the arguments of this process, and hands on the rest. So
/// many kinds of servers share the sequences of an ordinary run.
///
/// # Errors
/// That one of them has no number.
pub(crate) fn take_from(
    arguments: impl IntoIterator<Item = String>,
    kinds: u64,
) -> Result<Vec<String>, String> {
    let mut told = Options::of_the_environment(kinds);
    let mut rest = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut number = || {
            let value = value.clone().or_else(|| arguments.next()).unwrap_or_default();
            value.parse::<u64>().map_err(|_| format!("{name} wants a number, and not {value:?}"))
        };
        match name {
            "--seed" => told.seed = Some(number()?),
            "--cases" => told.cases = number()?,
            "--flow" => told.flow = number()?,
            "--ticks" => told.ticks = number()?,
            _ => rest.push(argument),
        }
    }
    // Whoever comes second finds what the first one said: both read the same arguments.
    let _ = TOLD.set(told);
    Ok(rest)
}

impl Options {
    fn of_the_environment(kinds: u64) -> Self {
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
        let cases = number(CASES).unwrap_or(SEQUENCES.div_ceil(kinds.max(1)));
        let (ticks, flow) = (number(TICKS).unwrap_or(ENOUGH_TICKS), number(FLOW_JOBS).unwrap_or(FLOW));
        Self { seed: number(SEED), cases, ticks, flow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_for_the_suite_is_handed_on() {
        let arguments = ["suite", "--seed", "7", "races", "--cases=9", "--exact"].map(str::to_owned);
        assert_eq!(take_from(arguments, 1).unwrap(), ["suite", "races", "--exact"]);
        let why = take_from(["--cases".to_owned()], 1).unwrap_err();
        assert_eq!(why, "--cases wants a number, and not \"\"");
    }
}
