//! Places where a test of crashes ends a process. A build without the feature `failpoints` has none.

/// Marks a place where a test may end the process: `fail_point!("claim::acted")`.
///
/// It is nothing at all unless the feature `failpoints` of this crate is on, which nobody but a test turns on.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! fail_point {
    ($name:literal) => {};
}

/// Marks a place where a test may end the process: `fail_point!("claim::acted")`.
///
/// It is nothing at all unless the feature `failpoints` of this crate is on, which nobody but a test turns on.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! fail_point {
    ($name:literal) => {
        $crate::failpoints::reach($name)
    };
}

/// Whether this build has failpoints.
pub const fn are_there() -> bool {
    cfg!(feature = "failpoints")
}

/// Does what was [armed](arm) at this point, if anything was.
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub fn reach(point: &str) {
    fail::fail_point!(point);
}

/// Has `act` be done wherever this process comes to `point`, from now on.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if that cannot be.
#[cfg(feature = "failpoints")]
pub fn arm(point: &str, act: impl Fn() + Send + Sync + 'static) -> crate::Result<()> {
    fail::cfg_callback(point, act).map_err(crate::Error::invalid)
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::*;

    #[test]
    fn a_point_does_what_was_armed_and_nothing_else() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU32, Ordering};

        assert!(are_there() && fail::has_failpoints());
        let times = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&times);
        let count = move || {
            counted.fetch_add(1, Ordering::SeqCst);
        };
        arm("test::acted", count).unwrap();
        crate::fail_point!("test::acted");
        crate::fail_point!("test::done");
        assert_eq!(times.load(Ordering::SeqCst), 1);
    }
}
