//! Takes back jobs whose leases ran out: see `Backend::expired` and `Backend::recover`.

use leasehold_core::authoring::stored::at_most;
use leasehold_core::backend::{Answer, Expired, ExpiredLease, Recover, SetAside, Settle};
use leasehold_core::{ClaimId, JobRecord};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use crate::claim::set_aside;
use crate::error::Done;
use crate::record::{self, SELECT};
use crate::settle::{By, settle};
use crate::writer::Session;

/// Runs in the writer, since records that cannot be read are set aside (clause B3).
pub(crate) async fn expired(session: &mut Session, request: Expired) -> Done<Vec<ExpiredLease>> {
    let rows = sqlx::query(AssertSqlSafe(expired_sql()))
        .bind(session.now.as_millis())
        .bind(at_most(request.limit))
        .fetch_all(&mut session.conn)
        .await?;
    let mut leases = Vec::with_capacity(rows.len());
    for row in &rows {
        match record::read(row, session.now).and_then(|job| lease(row, &job)) {
            Ok(lease) => leases.push(lease),
            Err(bad) => set_aside(session, row.try_get(0)?, &bad).await?,
        }
    }
    Ok(leases)
}

fn expired_sql() -> String {
    format!("{SELECT} WHERE state = 3 AND lease_until < ? ORDER BY lease_until, id LIMIT ?")
}

/// The lease in a row; a job that runs under no readable claim can be settled and recovered by nobody.
fn lease(row: &SqliteRow, job: &JobRecord) -> Result<ExpiredLease, SetAside> {
    match row.try_get::<Uuid, _>("claim") {
        Ok(claim) => Ok(ExpiredLease::new(job, ClaimId::from_uuid(claim).token(job.id))),
        Err(error) => Err(SetAside::new(Some(job.id), error)),
    }
}

pub(crate) async fn recover(session: &mut Session, request: Recover) -> Done<Vec<Answer>> {
    settle(session, Settle { settlements: request.settlements }, By::Recoverer).await
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_search_for_lost_leases_reads_a_range_of_an_index() {
        let plan = crate::schema::assert_indexed(&super::expired_sql()).await;
        assert!(plan.contains("leasehold_jobs_expiring_leases (lease_until<?)"), "{plan}");
    }
}
