use leasehold_core::backend::{Admit, Admitted, Arrival};
use leasehold_core::{Result, Timestamp};

use crate::enqueue::holder;
use crate::record::Row;
use crate::schema::{Change, Tables};

pub(crate) fn admit(tables: &mut Tables, now: Timestamp, request: Admit) -> Result<Vec<Admitted>> {
    Ok(request.jobs.into_iter().map(|arrival| one(tables, now, arrival)).collect())
}

fn one(tables: &mut Tables, now: Timestamp, Arrival { job, mut logs }: Arrival) -> Admitted {
    let id = job.id;
    if tables.jobs.contains_key(&id) {
        return Admitted::Existing;
    }
    if let Some(key) = job.held_key(now).cloned() {
        if let Some(holder) = holder(tables, &key, now) {
            return Admitted::Held(holder);
        }
        tables.change(Change::Key(key, id));
    }
    tables.put(Row::new(job));
    tables.logs.number(&mut logs);
    tables.change(Change::Logged(id, 0, logs));
    Admitted::Created
}
