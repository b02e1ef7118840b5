//! Extends leases: see `Backend::renew`.

use std::collections::HashMap;
use std::time::Duration;

use leasehold_core::backend::{Renew, Renewal, Renewed};
use leasehold_core::{ClaimId, JobId, Progress};
use mongodb::bson::{Document, doc};

use crate::error::Done;
use crate::record::{self, Fields, RUNNING};
use crate::session::{Change, Db, Kept, millis};

pub(crate) async fn renew(db: &Db, request: Renew) -> Done<Vec<Renewed>> {
    if request.renewals.is_empty() {
        return Ok(Vec::new());
    }
    let changes = changes(db, &request.renewals)?;
    db.plain().update(Kept::Jobs, changes).await?.whole()?;
    let jobs = record::ids(request.renewals.iter().map(|renewal| &renewal.job));
    let found = record::load(db, jobs, &["state", "claim", "lease_until", "cancel_requested"]).await?;
    let answer = |renewal: &Renewal| {
        found.get(&renewal.job).and_then(|job| held(job, renewal)).unwrap_or(Renewed::Lost)
    };
    Ok(request.renewals.iter().map(answer).collect())
}

/// One statement for all jobs of a claim whose leases get the same length and that tell no progress.
fn changes(db: &Db, renewals: &[Renewal]) -> Done<Vec<Change>> {
    let mut alike: HashMap<(ClaimId, Duration), Vec<JobId>> = HashMap::new();
    let mut changes = Vec::new();
    for renewal in renewals {
        let claim = renewal.token.claim(renewal.job);
        match &renewal.progress {
            None => alike.entry((claim, renewal.lease)).or_default().push(renewal.job),
            Some(progress) => changes.push(change(db, claim, renewal.lease, &[renewal.job], Some(progress))?),
        }
    }
    for ((claim, lease), jobs) in alike {
        changes.push(change(db, claim, lease, &jobs, None)?);
    }
    Ok(changes)
}

fn change(
    db: &Db,
    claim: ClaimId,
    lease: Duration,
    jobs: &[JobId],
    progress: Option<&Progress>,
) -> Done<Change> {
    let filter = record::held(record::ids(jobs), claim.as_uuid());
    let until = doc! {"$add": [db.now(), millis(lease)]};
    let mut fields = doc! {"lease_until": {"$max": ["$lease_until", until]}};
    let mut bytes = 0;
    if let Some(progress) = progress {
        let text = serde_json::to_string(progress)?;
        bytes = text.len();
        fields.insert("progress", doc! {"$literal": text});
    }
    Ok(Change { bytes, ..Change::many(filter, vec![doc! {"$set": fields}]) })
}

/// What a job that is held under this very token says.
fn held(job: &Document, renewal: &Renewal) -> Option<Renewed> {
    let fields = Fields(job);
    let claim = renewal.token.claim(renewal.job);
    let same = fields.uuid("claim").ok()?? == *claim.as_uuid();
    let until = fields.moment("lease_until").ok()??;
    let cancel_requested = fields.flag("cancel_requested").ok()?;
    (same && job.get_str("state").ok() == Some(RUNNING)).then_some(Renewed::Held { until, cancel_requested })
}
