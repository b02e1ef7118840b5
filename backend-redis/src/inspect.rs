//! Shows jobs and counts: see `Backend::find`, `list` and `counts`.

use leasehold_core::backend::{Age, Counts, Cursor, Filter, Find, List, Order, Page, QueueCounts, SetAside};
use leasehold_core::{Error, JobId, JobRecord, QueueName, State, Timestamp};
use redis::{Cmd, Value};

use crate::error::Done;
use crate::record::{self, Hash};
use crate::scripts::{COUNTS, FIND, LIST};
use crate::session::{Db, moment};

/// How many jobs one run of a script looks at: the server does nothing else meanwhile.
pub(crate) const LOOKS: usize = 1_000;
/// How many runs one call makes to fill a page, which may be short for it, and says so.
const RUNS: usize = 20;

pub(crate) async fn find(db: &Db, request: Find) -> Done<Vec<Option<JobRecord>>> {
    let push = |command: &mut Cmd, id: &JobId| {
        command.arg(id.to_string());
        Ok(())
    };
    let found: Vec<(i64, Option<Hash>)> = db.run_parts(&FIND, |_| {}, &request.ids, push).await?;
    let read = |(id, (now, hash)): (&JobId, (i64, Option<Hash>))| {
        let job = hash.map(|hash| record::read(&id.to_string(), &hash, moment(now))).transpose();
        Ok(job.map_err(Error::from)?)
    };
    request.ids.iter().zip(found).map(read).collect()
}

/// The hour, jobs, and after which place to go on.
type Walked = (i64, Vec<(String, Value)>, Option<(i64, String)>);

pub(crate) async fn list(db: &Db, request: List) -> Done<Page> {
    let mut after = request.after.as_ref().map(|cursor| cursor.age(request.order)).transpose()?;
    let mut page = Page::default();
    for _ in 0..RUNS {
        let left = request.limit - page.jobs.len() - page.unreadable.len();
        let mut command = db.command(&LIST);
        push_walk(&mut command, &request.filter, request.order, after, left)?;
        let (now, jobs, next): Walked = db.run_command(&LIST, &command).await?;
        jobs.into_iter().try_for_each(|(id, value)| show(&mut page, &id, value, moment(now)))?;
        after = next.map(age).transpose()?;
        if after.is_none() || page.jobs.len() + page.unreadable.len() >= request.limit {
            break;
        }
    }
    page.next = after.map(|age| Cursor::after(request.order, age));
    Ok(page)
}

/// Puts a job on the page; in place of a record there may be a word on why there is none.
fn show(page: &mut Page, id: &str, value: Value, now: Timestamp) -> Done<()> {
    if let Value::BulkString(why) = value {
        let why = String::from_utf8_lossy(&why).into_owned();
        page.unreadable.push(SetAside { job: id.parse().ok(), why });
        return Ok(());
    }
    let hash: Hash = redis::from_redis_value(value)?;
    page.push(record::read(id, &hash, now));
    Ok(())
}

/// What a walk over the jobs needs to know.
pub(crate) fn push_walk(
    command: &mut Cmd,
    filter: &Filter,
    order: Order,
    after: Option<Age>,
    limit: usize,
) -> Done<()> {
    let edge = |moment: Option<Timestamp>, none: &str| {
        moment.map_or_else(|| none.to_owned(), |moment| moment.as_millis().to_string())
    };
    command.arg(serde_json::to_string(filter)?);
    command.arg(edge(filter.enqueued_from, "-inf")).arg(edge(filter.enqueued_until, "+inf"));
    command.arg(u8::from(order == Order::NewestFirst));
    command.arg(edge(after.map(|(at, _)| at), ""));
    command.arg(after.map_or_else(String::new, |(_, id)| id.to_string()));
    command.arg(limit).arg(LOOKS);
    Ok(())
}

/// The place after which a walk goes on.
pub(crate) fn age((at, id): (i64, String)) -> Done<Age> {
    Ok((moment(at), id.parse()?))
}

/// A queue, its jobs in the states in their order, how many were ever taken in and removed, and the oldest due time.
type Counted = (String, [u64; 6], u64, u64, Option<i64>);

pub(crate) async fn counts(db: &Db, request: Counts) -> Done<Vec<QueueCounts>> {
    let push = |command: &mut Cmd| {
        command.arg(u8::from(request.queues.is_some()));
        request.queues.iter().flatten().for_each(|queue| {
            command.arg(queue.as_str());
        });
    };
    let counted: Vec<Counted> = db.run(&COUNTS, push).await?;
    let mut counts = counted.into_iter().map(queue_counts).collect::<Done<Vec<_>>>()?;
    counts.sort_by(|a, b| a.queue.cmp(&b.queue));
    Ok(counts)
}

fn queue_counts((queue, states, enqueued, deleted, oldest): Counted) -> Done<QueueCounts> {
    let mut counts = QueueCounts::empty(QueueName::new(queue)?);
    counts.states = State::ALL.into_iter().zip(states).filter(|(_, jobs)| *jobs > 0).collect();
    (counts.enqueued, counts.deleted) = (enqueued, deleted);
    counts.oldest_due = oldest.map(moment);
    Ok(counts)
}
