use leasehold_core::backend::{Admit, Admitted, Arrival};
use leasehold_core::{Result, Timestamp};

use crate::enqueue::has_room;
use crate::record::Row;
use crate::schema::Tables;

pub(crate) fn admit(tables: &mut Tables, now: Timestamp, request: Admit) -> Result<Vec<Admitted>> {
    has_room(tables, request.jobs.iter().map(|arrival| arrival.job.id))?;
    Ok(request.jobs.into_iter().map(|arrival| one(tables, now, arrival)).collect())
}

fn one(tables: &mut Tables, now: Timestamp, Arrival { mut job, logs }: Arrival) -> Admitted {
    let id = job.id;
    job.look(now);
    if tables.slot(id).is_some() {
        return Admitted::Existing;
    }
    if let Some(key) = job.held_key(now) {
        if let Some(holder) = tables.key_holder(key, now) {
            return Admitted::Held(holder);
        }
        let unique = job.options.unique.as_ref();
        // A period began when the job was enqueued.
        unique.into_iter().for_each(|unique| tables.take_key(unique, id, job.enqueued_at));
    }
    let queue = tables.queue(&job.queue);
    tables.add(Row::new(job, queue), now);
    logs.into_iter().for_each(|line| tables.logs.take_in(id, line, &tables.config));
    Admitted::Created
}
