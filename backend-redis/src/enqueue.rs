//! Takes jobs in: see `Backend::enqueue`.

use leasehold_core::backend::{Enqueue, EnqueueAnswer, Enqueued};
use leasehold_core::{Error, JobId, NewJob, limits};
use redis::{Cmd, Value};

use crate::error::{Done, corrupt};
use crate::record;
use crate::scripts::ENQUEUE;
use crate::session::Db;

pub(crate) async fn enqueue(db: &Db, request: Enqueue) -> Done<Vec<Enqueued>> {
    let mut command = db.command(&ENQUEUE);
    push(&mut command, &request.jobs)?;
    let answers: Vec<Value> = db.run_command(&ENQUEUE, &command).await?;
    read(request.jobs.iter().map(|job| job.id), answers)
}

fn push(command: &mut Cmd, jobs: &[NewJob]) -> Done<()> {
    command.arg(jobs.len()).arg(limits::REPLACEMENTS);
    jobs.iter().try_for_each(|job| record::push_new(command, job))
}

/// What the script said of each job: what became of it, or who holds its key.
fn read(jobs: impl ExactSizeIterator<Item = JobId>, answers: Vec<Value>) -> Done<Vec<Enqueued>> {
    if jobs.len() != answers.len() {
        return Err(corrupt("an enqueue answered for other jobs"));
    }
    let one = |(job, answer): (JobId, Value)| {
        Ok(match answer {
            Value::Int(1) => Enqueued { job, answer: EnqueueAnswer::Created },
            Value::Int(0) => Enqueued { job, answer: EnqueueAnswer::Existing },
            other => {
                let other: String = redis::from_redis_value(other)?;
                match other.strip_prefix("replaced ") {
                    Some(holder) => Enqueued { job: holder.parse()?, answer: EnqueueAnswer::Replaced },
                    None => Enqueued { job: other.parse()?, answer: EnqueueAnswer::Held },
                }
            }
        })
    };
    jobs.zip(answers).map(one).collect()
}

/// What was added to a pipeline of the caller's: makes answers of what comes back for it.
#[derive(Debug, Clone)]
pub struct Enqueueing {
    jobs: Vec<JobId>,
}

impl Enqueueing {
    /// What became of each job, in order, by what the server answered to this part of the pipeline.
    ///
    /// # Errors
    /// What the server refused the part for, and [`Corrupt`](leasehold_core::ErrorKind::Corrupt) if it is not the
    /// answer to this part.
    pub fn read(&self, answer: Value) -> Result<Vec<Enqueued>, Error> {
        let answers = answer.extract_error().map_err(crate::error::Fault::from);
        let answers = answers.and_then(|answers| Ok(redis::from_redis_value::<Vec<Value>>(answers)?));
        answers.and_then(|answers| read(self.jobs.iter().copied(), answers)).map_err(|fault| fault.told(true))
    }
}

/// The part of a pipeline that takes jobs in.
pub(crate) fn command(db: &Db, jobs: &[NewJob]) -> Done<(Cmd, Enqueueing)> {
    // By its text: a server that has lost the script would refuse this part of a transaction, and run the others.
    let mut command = ENQUEUE.by_text();
    db.begin(&mut command);
    push(&mut command, jobs)?;
    Ok((command, Enqueueing { jobs: jobs.iter().map(|job| job.id).collect() }))
}
