//! Takes jobs of another store in: see `Backend::admit`.

use leasehold_core::backend::{Admit, Admitted, Arrival, EnqueueAnswer, Event};
use leasehold_core::{JobRecord, Timestamp};

use crate::error::Done;
use crate::session::{Session, given};
use crate::{enqueue, logs, record, schema};

const BRING: &str =
    "SELECT leasehold.bring($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";

/// Runs in a transaction: jobs are enqueued, and brought to where they stand.
pub(crate) async fn admit(session: &mut Session<'_>, request: &Admit) -> Done<Vec<Admitted>> {
    let now = schema::now(session).await?;
    let seen = |arrival: &Arrival| {
        let mut arrival = arrival.clone();
        arrival.job.look(now);
        arrival
    };
    let jobs: Vec<Arrival> = request.jobs.iter().map(seen).collect();
    let new: Vec<_> = jobs.iter().map(|arrival| arrival.newcomer(now)).collect();
    let told = enqueue::insert(session.db, session.conn(), &new, Some(Vec::new())).await?.0;
    let (mut answers, mut created) = (Vec::with_capacity(jobs.len()), Vec::new());
    for (arrival, told) in jobs.iter().zip(told) {
        answers.push(match told.answer {
            EnqueueAnswer::Created => {
                created.push(arrival);
                Admitted::Created
            }
            EnqueueAnswer::Held => Admitted::Held(told.job),
            _ => Admitted::Existing,
        });
    }
    if !created.is_empty() {
        bring(session, &created).await?;
        logs::admit(session, &created).await?;
        tell(session, &created);
    }
    Ok(answers)
}

async fn bring(session: &mut Session<'_>, arrivals: &[&Arrival]) -> Done<()> {
    fn all<T>(arrivals: &[&Arrival], of: impl Fn(&JobRecord) -> T) -> Vec<T> {
        arrivals.iter().map(|arrival| of(&arrival.job)).collect()
    }
    let mut written: (Vec<String>, Vec<Option<String>>, Vec<Option<String>>) = Default::default();
    for Arrival { job, .. } in arrivals {
        written.0.push(record::options_text(&job.options)?);
        written.1.push(job.progress.as_ref().map(serde_json::to_string).transpose()?);
        let history = job.history.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        written.2.push(if history.is_empty() { None } else { Some(serde_json::to_string(&history)?) });
    }
    let (options, progresses, histories) = written;
    let millis = |of: fn(&JobRecord) -> Option<Timestamp>| {
        given(all(arrivals, |job| of(job).map(Timestamp::as_millis)))
    };
    let scope = |job: &JobRecord| job.options.unique.as_ref().map(|unique| enqueue::scope(unique.scope));
    let until = |job: &JobRecord| {
        let span = scope(job)?.1?;
        Some(job.enqueued_at.plus(std::time::Duration::from_millis(span.cast_unsigned())).as_millis())
    };
    session
        .db
        .query(BRING)
        .bind(all(arrivals, |job| *job.id.as_uuid()))
        .bind(options)
        .bind(all(arrivals, |job| record::code(job.state)))
        .bind(given(all(arrivals, |job| job.reason.map(|reason| reason.to_string()))))
        .bind(all(arrivals, |job| job.attempt.cast_signed()))
        .bind(all(arrivals, |job| job.crashes.cast_signed()))
        .bind(all(arrivals, |job| job.generation.cast_signed()))
        .bind(all(arrivals, |job| job.enqueued_at.as_millis()))
        .bind(millis(|job| job.started_at))
        .bind(millis(|job| job.finished_at))
        .bind(millis(|job| job.expires_at))
        .bind(given(all(arrivals, |job| job.worker.map(|worker| *worker.as_uuid()))))
        .bind(given(progresses))
        .bind(given(all(arrivals, |job| job.result.as_ref().map(|result| result.as_bytes().to_vec()))))
        .bind(given(histories))
        .bind(given(all(arrivals, |job| Some(job.last_failure()?.class.clone()))))
        .bind(given(all(arrivals, |job| scope(job).map(|(scope, _)| scope))))
        .bind(given(all(arrivals, until)))
        .execute(session.conn())
        .await?;
    Ok(())
}

fn tell(session: &Session<'_>, arrivals: &[&Arrival]) {
    session.db.signals.tell(arrivals.iter().flat_map(|Arrival { job, .. }| {
        let queue = || job.queue.clone();
        let waits = job.state.is_waiting().then(|| Event::Waiting { queue: queue() });
        waits.into_iter().chain([Event::Changed { job: job.id, queue: queue(), state: job.state }])
    }));
}
