/// Nanoseconds by the machine's monotonic clock: the same for all of its processes, and untouched by whoever
/// sets the time of day.
#[cfg(unix)]
pub fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * 1_000_000_000 + nanos
}

/// Nanoseconds since this process first asked: histories of several processes cannot be joined here.
#[cfg(not(unix))]
pub fn monotonic() -> u64 {
    static FIRST: std::sync::OnceLock<tokio::time::Instant> = std::sync::OnceLock::new();
    let first = FIRST.get_or_init(tokio::time::Instant::now);
    u64::try_from(first.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
