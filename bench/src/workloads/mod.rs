#[cfg(feature = "stores")]
pub(crate) mod bloat;
pub(crate) mod flat;
pub(crate) mod idle;
pub(crate) mod keys;
pub(crate) mod raw;
pub(crate) mod rounds;
pub(crate) mod wake;
pub(crate) mod worker;

/// The named workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, strum::Display, strum::VariantArray)]
pub(crate) enum Name {
    /// Enqueues in batches.
    #[strum(to_string = "enqueue")]
    Enqueue,
    /// Claims and settles in batches.
    #[strum(to_string = "claim+settle")]
    ClaimSettle,
    /// Both: enqueues all, then claims and settles all.
    #[strum(to_string = "end to end")]
    EndToEnd,
    /// Claims and settles a few jobs beside ever more that wait or have ended.
    #[strum(to_string = "flat")]
    Flat,
    /// Claims and settles jobs with a limit key each, beside ever more of them.
    #[strum(to_string = "keys")]
    Keys,
    /// A worker with a handler that does nothing.
    #[strum(to_string = "worker")]
    Worker,
    /// Payloads of a raw queue by a worker with a handler that does nothing, and the same as jobs.
    #[strum(to_string = "raw")]
    Raw,
    /// From an enqueue to the start of a handler of a worker that had nothing to do.
    #[strum(to_string = "wake")]
    Wake,
    /// What a worker asks for that has nothing to do, and what sixteen such processes cost a busy queue.
    #[strum(to_string = "idle")]
    Idle,
    /// How large PostgreSQL's tables grow while jobs go through them. Measured only when it is named.
    #[strum(to_string = "bloat")]
    Bloat,
}
