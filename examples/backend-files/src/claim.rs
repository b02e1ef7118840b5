use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use leasehold_core::backend::{Claim, Claimed};
use leasehold_core::{JobId, LeasedJob, LimitKey, QueueName, Result, Timestamp};

use crate::schema::{By, Change, START, Tables};

pub(crate) fn claim(tables: &mut Tables, now: Timestamp, request: Claim) -> Result<Claimed> {
    let mut claimed = Claimed { set_aside: tables.tell(), ..Claimed::default() };
    if let Some((_, jobs)) = tables.claims.get(&request.id) {
        claimed.jobs = jobs.iter().filter_map(|id| still_held(tables, &request, *id)).collect();
        return Ok(claimed);
    }
    let jobs = choose(tables, now, &request);
    claimed.jobs = jobs.iter().filter_map(|id| lease(tables, now, &request, *id)).collect();
    if !jobs.is_empty() {
        tables.change(Change::Claimed(request.id, now, jobs));
    }
    Ok(claimed)
}

/// A job that this very claim was given before, if it still runs under it.
fn still_held(tables: &Tables, request: &Claim, id: JobId) -> Option<LeasedJob> {
    let token = request.id.token(id);
    let job = tables.held(id, token)?.job.clone();
    let lease = job.options.lease.unwrap_or(request.lease);
    Some(LeasedJob::new(job, token, lease))
}

/// The best jobs that match, best first. It walks past what does not match, which takes time but blocks nothing.
fn choose(tables: &Tables, now: Timestamp, request: &Claim) -> Vec<JobId> {
    let is_open =
        |name: &&QueueName| tables.queues.get(name).is_some_and(|q| q.settings.gives(request.rated));
    let queues: BTreeSet<&QueueName> = request.queues.iter().filter(is_open).collect();
    let least = request.min_priority.unwrap_or(i16::MIN);
    let waiting =
        tables.between(By::Place(Reverse(i16::MAX), START), By::Place(Reverse(least), Timestamp::MAX));
    let mut taken: HashMap<&LimitKey, usize> = HashMap::new();
    let matches = waiting.map(|(_, row)| &row.job).filter(|job| {
        job.due <= now
            && queues.contains(&job.queue)
            && request.kinds.takes(&job.kind)
            && request.tags.takes(&job.options.tags)
            && job.options.limit.as_ref().is_none_or(|limit| {
                let by = || By::Limit(limit.key.clone());
                let running = taken.entry(&limit.key).or_insert_with(|| tables.between(by(), by()).count());
                let has_room = *running < limit.max as usize;
                *running += usize::from(has_room);
                has_room
            })
    });
    matches.map(|job| job.id).take(request.limit).collect()
}

fn lease(tables: &mut Tables, now: Timestamp, request: &Claim, id: JobId) -> Option<LeasedJob> {
    let mut row = tables.jobs.get(&id)?.clone();
    let token = request.id.token(id);
    let lease = row.job.options.lease.unwrap_or(request.lease);
    row.job.start(request.worker, lease, now);
    (row.token, row.logged) = (Some(token), 0);
    let leased = LeasedJob::new(row.job.clone(), token, lease);
    tables.put(row);
    Some(leased)
}
