//! Changes jobs and queues on an operator's behalf, and removes what is over: see `Backend::amend`, `set_queue`,
//! `queues` and `prune`.

use leasehold_core::backend::{
    Action, Amend, AmendAnswer, Amended, Cursor, Order, Prune, Pruned, QueueRecord, QueueSettings, Select,
    SetQueue,
};
use leasehold_core::{JobId, QueueName};
use redis::Cmd;

use crate::error::{Done, corrupt};
use crate::inspect::{age, push_walk};
use crate::record;
use crate::scripts::{AMEND, PRUNE, QUEUES, SET_QUEUE};
use crate::session::{Db, millis, moment};

/// How many jobs one run of the script removes: the server does nothing else meanwhile.
const REMOVED: usize = 500;

/// A job, what became of it, and what more there is to say.
type Answer = (String, String, Option<String>);

pub(crate) async fn amend(db: &Db, request: Amend) -> Done<Amended> {
    let Amend { select, action, preview } = &request;
    match select {
        Select::Ids(ids) => {
            let head = |command: &mut Cmd| push_action(command, action, *preview, false);
            let push = |command: &mut Cmd, id: &JobId| {
                command.arg(id.to_string());
                Ok(())
            };
            let answers: Vec<Answer> = db.run_parts(&AMEND, head, ids, push).await?;
            Ok(Amended { jobs: answers.into_iter().map(read).collect::<Done<_>>()?, next: None })
        }
        Select::Matching { filter, as_of, after, limit } => {
            let (mut filter, order) = (filter.clone(), Order::OldestFirst);
            filter.enqueued_until = Some(filter.enqueued_until.map_or(*as_of, |until| until.min(*as_of)));
            let after = after.as_ref().map(|cursor| cursor.age(order)).transpose()?;
            let mut command = db.command(&AMEND);
            push_action(&mut command, action, *preview, true);
            push_walk(&mut command, &filter, order, after, *limit)?;
            let (answers, next): (Vec<Answer>, Option<(i64, String)>) =
                db.run_command(&AMEND, &command).await?;
            let next = next.map(age).transpose()?.map(|age| Cursor::after(order, age));
            Ok(Amended { jobs: answers.into_iter().map(read).collect::<Done<_>>()?, next })
        }
    }
}

fn push_action(command: &mut Cmd, action: &Action, preview: bool, matching: bool) {
    let with_due = |due| {
        let (rule, millis) = record::due(due);
        (rule.to_owned(), millis)
    };
    let (name, (with, millis)) = match action {
        Action::Cancel => ("cancel", (String::new(), 0)),
        Action::Requeue { due } => ("requeue", with_due(*due)),
        Action::Delete => ("delete", (String::new(), 0)),
        Action::Move { queue } => ("move", (queue.to_string(), 0)),
        Action::Reprioritise { priority } => ("reprioritise", (priority.to_string(), 0)),
        Action::Postpone { due } => ("postpone", with_due(*due)),
        Action::Unpark { due } => ("unpark", with_due(*due)),
        Action::CancelParked => ("cancel_parked", (String::new(), 0)),
        Action::Withdraw => ("withdraw", (String::new(), 0)),
        Action::Restore => ("restore", (String::new(), 0)),
        Action::DeleteEnded { by } => ("delete_ended", (String::new(), by.as_millis())),
    };
    command.arg(name).arg(with).arg(millis).arg(u8::from(preview)).arg(u8::from(matching));
}

fn read((job, answer, more): Answer) -> Done<(JobId, AmendAnswer)> {
    let more = more.unwrap_or_default();
    let answer = match answer.as_str() {
        "applied" => AmendAnswer::Applied,
        "already" => AmendAnswer::AlreadyApplied,
        "requested" => AmendAnswer::Requested,
        "refused" => {
            AmendAnswer::Refused(more.parse().map_err(|_| corrupt(format!("there is no state {more:?}")))?)
        }
        "held" => AmendAnswer::Held(more.parse()?),
        "absent" => AmendAnswer::NotFound,
        other => return Err(corrupt(format!("a script answered {other:?}"))),
    };
    Ok((job.parse()?, answer))
}

pub(crate) async fn set_queue(db: &Db, request: SetQueue) -> Done<()> {
    let settings = serde_json::to_string(&request.settings)?;
    let paused = u8::from(request.settings.pause.is_some());
    let rated = u8::from(request.settings.rate.is_some());
    db.run(&SET_QUEUE, |command| {
        command.arg(request.queue.as_str()).arg(settings).arg(paused).arg(rated);
    })
    .await
}

pub(crate) async fn queues(db: &Db) -> Done<Vec<QueueRecord>> {
    let found: Vec<(String, String)> = db.run(&QUEUES, |_| {}).await?;
    let mut queues = found.into_iter().map(queue).collect::<Done<Vec<_>>>()?;
    queues.sort_by(|a, b| a.queue.cmp(&b.queue));
    Ok(queues)
}

/// A queue's settings stand behind the moment at which they were set.
fn queue((name, kept): (String, String)) -> Done<QueueRecord> {
    let name = QueueName::new(name)?;
    let Some((at, settings)) = kept.split_once('\n') else {
        return Ok(QueueRecord::new(name, QueueSettings::default(), None));
    };
    let settings = serde_json::from_str(settings).map_err(corrupt)?;
    Ok(QueueRecord::new(name, settings, Some(moment(at.parse().map_err(corrupt)?))))
}

pub(crate) async fn prune(db: &Db, request: Prune) -> Done<Pruned> {
    let mut pruned = Pruned::default();
    let mut workers_after = millis(request.workers_after).to_string();
    loop {
        let part =
            REMOVED.min(request.limit.saturating_sub(usize::try_from(pruned.jobs).unwrap_or(usize::MAX)));
        let registers_part = REMOVED
            .min(request.limit.saturating_sub(usize::try_from(pruned.registers).unwrap_or(usize::MAX)));
        let removed = db
            .run(&PRUNE, |command| {
                command.arg(part).arg(std::mem::take(&mut workers_after)).arg(registers_part);
            })
            .await;
        let (jobs, workers, registers, more): (u64, u64, u64, bool) =
            removed.map_err(|fault| if pruned.jobs > 0 { fault.in_part() } else { fault })?;
        pruned.jobs += jobs;
        pruned.workers += workers;
        pruned.registers += registers;
        pruned.more = more;
        if !more || jobs + registers == 0 {
            return Ok(pruned);
        }
    }
}
