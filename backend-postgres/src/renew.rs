//! Extends leases: see `Backend::renew`.

use leasehold_core::Timestamp;
use leasehold_core::backend::{Renew, Renewed};
use sqlx::Row;

use crate::error::Done;
use crate::session::{Session, millis};

pub(crate) async fn renew(session: &mut Session<'_>, request: &Renew) -> Done<Vec<Renewed>> {
    let db = session.db;
    let mut order: Vec<_> = (0..request.renewals.len()).collect();
    // Always in the order of the ids, so that of two calls about the same jobs none waits for the other.
    order.sort_unstable_by_key(|place| request.renewals[*place].job);
    let sorted = || order.iter().map(|place| &request.renewals[*place]);
    let progress = |renewal: &leasehold_core::backend::Renewal| {
        renewal.progress.as_ref().map(serde_json::to_string).transpose()
    };
    let found = db
        .query("SELECT n, until, cancel_requested FROM leasehold.renew($1, $2, $3, $4, $5)")
        .bind(db.now())
        .bind(sorted().map(|renewal| *renewal.job.as_uuid()).collect::<Vec<_>>())
        .bind(sorted().map(|renewal| *renewal.token.claim(renewal.job).as_uuid()).collect::<Vec<_>>())
        .bind(sorted().map(|renewal| millis(renewal.lease)).collect::<Vec<_>>())
        .bind(sorted().map(progress).collect::<Result<Vec<_>, _>>()?)
        .fetch_all(session.conn())
        .await?;
    let mut answers = vec![Renewed::Lost; order.len()];
    for row in &found {
        let place = usize::try_from(row.try_get::<i64, _>(0)? - 1).unwrap_or(usize::MAX);
        if let Some(place) = order.get(place) {
            let until = Timestamp::from_millis(row.try_get(1)?);
            answers[*place] = Renewed::Held { until, cancel_requested: row.try_get(2)? };
        }
    }
    Ok(answers)
}
