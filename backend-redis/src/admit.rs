//! Takes jobs of another store in: see `Backend::admit`.

use leasehold_core::backend::{Admit, Admitted, Arrival};
use redis::Value;

use crate::error::{Done, corrupt};
use crate::scripts::ADMIT;
use crate::session::Db;
use crate::{logs, record};

pub(crate) async fn admit(db: &Db, request: &Admit) -> Done<Vec<Admitted>> {
    let mut command = db.command(&ADMIT);
    logs::push_caps(db, &mut command);
    command.arg(request.jobs.len());
    for Arrival { job, logs } in &request.jobs {
        record::push_admitted(&mut command, job)?;
        logs::push_lines(&mut command, logs);
    }
    let answers: Vec<Value> = db.run_command(&ADMIT, &command).await?;
    if answers.len() != request.jobs.len() {
        return Err(corrupt("an admission answered for other jobs"));
    }
    answers.into_iter().map(read).collect()
}

fn read(answer: Value) -> Done<Admitted> {
    Ok(match answer {
        Value::Int(1) => Admitted::Created,
        Value::Int(0) => Admitted::Existing,
        holder => Admitted::Held(redis::from_redis_value::<String>(holder)?.parse()?),
    })
}
