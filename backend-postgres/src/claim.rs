//! Gives jobs out under leases: see `Backend::claim`.
//!
//! All of it is one function of our schema, whose statements each see what was committed before them: which jobs are
//! the first is found in `migrations/0003_claim.sql`.

use std::sync::LazyLock;

use leasehold_core::backend::{Claim, Claimed, Event, KindRule, SetAside, TagRule};
use leasehold_core::{ClaimId, JobRecord, LeasedJob, Retention, State, Timestamp, limits};
use sqlx::Row;
use uuid::Uuid;

use crate::error::Done;
use crate::record;
use crate::session::{Session, millis, rows};

static CLAIM: LazyLock<String> = LazyLock::new(|| {
    let columns = record::OF_J.as_str();
    format!(
        "SELECT {columns} FROM leasehold.claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS j"
    )
});

pub(crate) async fn claim(session: &mut Session<'_>, request: &Claim) -> Done<Claimed> {
    let db = session.db;
    let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (only, except) = match &request.kinds {
        KindRule::Any => (None, None),
        KindRule::Only(kinds) => (Some(kinds), None),
        KindRule::Except(kinds) => (None, Some(kinds)),
    };
    let (has_all, offered) = match &request.tags {
        TagRule::Any => (None, None),
        TagRule::JobHasAll(tags) => (Some(tags), None),
        TagRule::WorkerHasAll(tags) => (None, Some(tags)),
    };
    let kinds = |kinds: &std::collections::BTreeSet<leasehold_core::Kind>| {
        names(kinds.iter().map(leasehold_core::Kind::as_str).collect())
    };
    let tags = |tags: &std::collections::BTreeSet<leasehold_core::Tag>| {
        names(tags.iter().map(leasehold_core::Tag::as_str).collect())
    };
    let found = db
        .query(&CLAIM)
        .bind(db.now())
        .bind(*request.id.as_uuid())
        .bind(*request.worker.as_uuid())
        .bind(names(request.queues.iter().map(leasehold_core::QueueName::as_str).collect()))
        .bind(only.map(kinds))
        .bind(except.map(kinds))
        .bind(has_all.map(tags))
        .bind(offered.map(tags))
        .bind(request.min_priority.map_or(i16::MAX, record::rank))
        .bind(rows(request.limit))
        .bind(millis(request.lease))
        .bind(request.rated)
        .bind(rows(limits::ENDED_BY_A_CLAIM))
        .fetch_all(session.conn())
        .await?;
    let mut claimed = Claimed::default();
    let mut bad = Vec::new();
    for row in &found {
        let now = Timestamp::from_millis(row.try_get::<Option<i64>, _>(record::STARTED_AT)?.unwrap_or(0));
        if row.try_get::<Option<Uuid>, _>(0)?.is_none() {
            let next: Option<i64> = row.try_get(record::DUE)?;
            claimed.next_due = next.and_then(|next| Claimed::until(Timestamp::from_millis(next), now));
            continue;
        }
        match record::read(row, now) {
            Ok(job) => claimed.jobs.push(leased(request, job)),
            Err(why) => bad.push((why, request.id)),
        }
    }
    set_aside(session, &bad).await?;
    claimed.set_aside = bad.into_iter().map(|(record, _)| record).collect();
    db.signals.tell(claimed.jobs.iter().map(|LeasedJob { job, .. }| Event::Changed {
        job: job.id,
        queue: job.queue.clone(),
        state: State::Running,
    }));
    Ok(claimed)
}

fn leased(request: &Claim, job: JobRecord) -> LeasedJob {
    let (token, lease) = (request.id.token(job.id), job.options.lease.unwrap_or(request.lease));
    LeasedJob::new(job, token, lease)
}

/// Takes records that cannot be read and that run out of the way, as failed (clause B3).
pub(crate) async fn set_aside(session: &mut Session<'_>, bad: &[(SetAside, ClaimId)]) -> Done<()> {
    if bad.is_empty() {
        return Ok(());
    }
    for (record, _) in bad {
        tracing::warn!(job = ?record.job, why = record.why, "a record was set aside");
    }
    let named = bad.iter().filter_map(|(record, claim)| Some((*record.job?.as_uuid(), *claim.as_uuid())));
    let (ids, claims): (Vec<_>, Vec<_>) = named.unzip();
    let db = session.db;
    db.query("SELECT leasehold.set_aside($1, $2, $3, $4)")
        .bind(db.now())
        .bind(ids)
        .bind(claims)
        .bind(record::keep(Retention::default().failed))
        .execute(session.conn())
        .await?;
    Ok(())
}
