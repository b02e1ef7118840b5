use std::time::Duration;

/// When, within a lease, its holder does what. All are measured by the holder's own monotonic clock from
/// the moment at which it *asked* for the lease: that is never later than the store's own start of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// Renew from here on: a third of the lease, so that two renewals may fail in a row.
    pub renew: Duration,
    /// Stop working here if no renewal succeeded, a tenth of the lease before its end, so that the handler
    /// has ended before somebody else may begin (C2a).
    pub fence: Duration,
}

impl LeaseTimes {
    /// The moments of a lease of this length.
    pub fn of(lease: Duration) -> Self {
        Self { renew: lease / 3, fence: lease - lease / 10 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_twice_before_it_stops_and_stops_before_the_end() {
        for millis in [10, 1_000, 30_000, 86_400_000] {
            let lease = Duration::from_millis(millis);
            let times = LeaseTimes::of(lease);
            assert!(times.renew * 2 < times.fence && times.fence < lease, "{millis}");
        }
    }
}
