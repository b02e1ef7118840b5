//! Extends leases: see `Backend::renew`.

use std::time::Duration;

use leasehold_core::Timestamp;
use leasehold_core::backend::{Renew, Renewal, Renewed};
use sqlx::Row;
use sqlx::postgres::PgRow;
use tokio::time::sleep;

use crate::error::Done;
use crate::session::{Db, Session, Statement, millis};

const RENEW: &str = "SELECT n, until, cancel_requested FROM leasehold.renew($1, $2, $3, $4, $5)";
/// After how long it is asked again for what somebody else has locked.
const AGAIN: Duration = Duration::from_millis(20);

pub(crate) async fn renew(session: &mut Session<'_>, request: &Renew) -> Done<Vec<Renewed>> {
    let db = session.db;
    let mut answers = vec![Renewed::Lost; request.renewals.len()];
    let mut places: Vec<usize> = (0..answers.len()).collect();
    loop {
        let some: Vec<_> = places.iter().map(|place| &request.renewals[*place]).collect();
        let rows = bound(db, &some)?.fetch_all(session.conn()).await?;
        places = read(&rows, &places, &mut answers)?;
        if places.is_empty() {
            return Ok(answers);
        }
        sleep(AGAIN).await;
    }
}

fn bound(db: &Db, renewals: &[&Renewal]) -> Done<Statement> {
    let progress = |renewal: &&Renewal| renewal.progress.as_ref().map(serde_json::to_string).transpose();
    Ok(db
        .query(RENEW)
        .bind(db.now())
        .bind(renewals.iter().map(|renewal| *renewal.job.as_uuid()).collect::<Vec<_>>())
        .bind(renewals.iter().map(|renewal| *renewal.token.claim(renewal.job).as_uuid()).collect::<Vec<_>>())
        .bind(renewals.iter().map(|renewal| millis(renewal.lease)).collect::<Vec<_>>())
        .bind(renewals.iter().map(progress).collect::<Result<Vec<_>, _>>()?))
}

/// Reads the answers, and tells which of the places somebody else has locked.
fn read(rows: &[PgRow], places: &[usize], answers: &mut [Renewed]) -> Done<Vec<usize>> {
    let mut locked = Vec::new();
    for row in rows {
        let n = usize::try_from(row.try_get::<i64, _>(0)? - 1).unwrap_or(usize::MAX);
        let Some(place) = places.get(n) else { continue };
        match row.try_get::<Option<i64>, _>(1)? {
            Some(until) => {
                let until = Timestamp::from_millis(until);
                answers[*place] = Renewed::Held { until, cancel_requested: row.try_get(2)? };
            }
            None => locked.push(*place),
        }
    }
    Ok(locked)
}
