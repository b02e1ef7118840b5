//! Whatever is asked, in whatever order: the answers are those of a reference that is written to be read.

use std::time::Duration;

use crate::bench::Bench;
use crate::breach::Kept;
use crate::case::cases;
use crate::options::options;

cases! {
    /// Random sequences of calls are answered as the reference answers them, and leave the store as they leave it.
    [P2, P3, P4, P6, C2, C4, C6, C7, C8, C9, C10, C11, S1, S2, S3, S4, S5, S6, L2, F1, F2, F4, F5, F6, F8, E2]
        answers_as_the_reference_does within as_many_as_wanted;
}

/// A sequence takes milliseconds, or tens of them on a server; one that shows a difference takes a minute to be made
/// short.
fn as_many_as_wanted() -> Duration {
    let each = Duration::from_millis(500);
    each.saturating_mul(u32::try_from(options().cases).unwrap_or(u32::MAX)) + Duration::from_mins(5)
}

async fn answers_as_the_reference_does(t: Bench) -> Kept {
    crate::model::agree(&t, t.seed, options().cases).await
}
