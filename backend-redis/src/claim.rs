//! Gives jobs out under leases: see `Backend::claim`.

use leasehold_core::backend::{Claim, Claimed, KindRule, SetAside, TagRule};
use leasehold_core::{ClaimId, LeasedJob, limits};
use redis::Cmd;

use crate::error::Done;
use crate::record::{self, Hash};
use crate::scripts::{CLAIM, SET_ASIDE};
use crate::session::{Db, millis, moment};

/// The hour, when the next job is due, jobs as they were before they were leased, what was set aside, and whether the
/// claim is a repetition: then the jobs are as they are now.
type Answer = (i64, Option<i64>, Vec<(String, Hash)>, Vec<String>, bool);

pub(crate) async fn claim(db: &Db, request: Claim) -> Done<Claimed> {
    if request.limit == 0 {
        return Ok(Claimed::default());
    }
    let answer: Answer = db.run(&CLAIM, |command| push(command, &request)).await?;
    let (now, next_due, jobs, aside, repeated) = answer;
    let now = moment(now);
    let mut claimed =
        Claimed { next_due: next_due.and_then(|due| Claimed::until(moment(due), now)), ..Claimed::default() };
    let unusable = |id: String| SetAside { job: id.parse().ok(), why: "its record is no job's".into() };
    claimed.set_aside.extend(aside.into_iter().map(unusable));
    let mut bad = Vec::new();
    for (id, hash) in jobs {
        match record::read(&id, &hash, now) {
            Ok(mut job) => {
                let lease = job.options.lease.unwrap_or(request.lease);
                if !repeated {
                    job.start(request.worker, lease, now);
                }
                let token = request.id.token(job.id);
                claimed.jobs.push(LeasedJob::new(job, token, lease));
            }
            Err(why) => {
                bad.push((id, request.id));
                claimed.set_aside.push(why);
            }
        }
    }
    set_aside(db, &bad).await?;
    Ok(claimed)
}

fn push(command: &mut Cmd, request: &Claim) {
    command.arg(request.id.to_string()).arg(request.worker.to_string()).arg(millis(request.lease));
    command.arg(request.limit).arg(request.min_priority.map_or_else(String::new, |least| least.to_string()));
    let none_of_these = std::collections::BTreeSet::new();
    let (rule, kinds) = match &request.kinds {
        KindRule::Any => ("any", &none_of_these),
        KindRule::Only(kinds) => ("only", kinds),
        KindRule::Except(kinds) => ("except", kinds),
    };
    let no_tags = std::collections::BTreeSet::new();
    let (tag_rule, tags) = match &request.tags {
        TagRule::Any => ("any", &no_tags),
        TagRule::JobHasAll(tags) => ("job", tags),
        TagRule::WorkerHasAll(tags) => ("worker", tags),
    };
    command.arg(rule).arg(tag_rule).arg(millis(limits::CLAIM_MEMORY)).arg(u8::from(request.rated));
    command.arg(limits::ENDED_BY_A_CLAIM);
    let queues = request.queues.iter().cloned().collect();
    record::push_all(command, &queues, |queue| queue.as_str());
    record::push_all(command, kinds, |kind| kind.as_str());
    record::push_all(command, tags, |tag| tag.as_str());
}

/// Takes records that cannot be read out of the way, as failed (clause B3).
pub(crate) async fn set_aside(db: &Db, bad: &[(String, ClaimId)]) -> Done<()> {
    if bad.is_empty() {
        return Ok(());
    }
    db.run(&SET_ASIDE, |command| {
        command.arg(record::kept_aside());
        for (job, claim) in bad {
            command.arg(job).arg(claim.to_string());
        }
    })
    .await
}
