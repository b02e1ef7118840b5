use futures::{StreamExt, TryStreamExt};

use super::{Store, Trip};
use crate::backend::{Action, Admit, Admitted, Amend, AmendAnswer, Arrival, LogLine, LogSource, Select};
use crate::error::Result;
use crate::id::JobId;
use crate::job::{Due, JobRecord, Payload, State};
use crate::time::Timestamp;

/// How many bytes of payloads, results and lines go in one call.
const BYTES: usize = 4 << 20;
/// How many logs are read beside each other.
const BESIDE: usize = 8;

/// What the other store said of one job.
pub(super) enum Fate {
    Taken,
    There,
    Held(JobId),
}

impl Trip {
    /// Brings jobs to the other store as they are; answers one item each.
    pub(super) async fn carry(&mut self, jobs: Vec<JobRecord>) -> Result<Vec<(JobRecord, Fate)>> {
        let mut fates = Vec::with_capacity(jobs.len());
        for arrivals in parts(self.with_logs(jobs).await?, self.order.to.limits().batch) {
            self.check_lock()?;
            let lines: Vec<u64> = arrivals.iter().map(|arrival| arrival.logs.len() as u64).collect();
            let jobs: Vec<JobRecord> = arrivals.iter().map(|arrival| arrival.job.clone()).collect();
            let answers = self.admit(arrivals).await?;
            for ((job, lines), answer) in jobs.into_iter().zip(lines).zip(answers) {
                let fate = match answer {
                    Admitted::Created => {
                        self.account.lines += lines;
                        Fate::Taken
                    }
                    Admitted::Existing => Fate::There,
                    Admitted::Held(holder) => Fate::Held(holder),
                    Admitted::Refused(error) => return Err(error),
                };
                fates.push((job, fate));
            }
        }
        Ok(fates)
    }

    pub(super) async fn admit(&self, jobs: Vec<Arrival>) -> Result<Vec<Admitted>> {
        let to = &self.order.to;
        to.backend().admit(to.deadline(), Admit { jobs }).await
    }

    /// The jobs, each with its log. One that never began has none.
    async fn with_logs(&self, jobs: Vec<JobRecord>) -> Result<Vec<Arrival>> {
        let read = |job: JobRecord| async {
            let logs = if job.started_at.is_some() { self.log_of(job.id).await? } else { Vec::new() };
            Ok(Arrival { job, logs })
        };
        futures::stream::iter(jobs).map(read).buffered(BESIDE).try_collect().await
    }

    async fn log_of(&self, job: JobId) -> Result<Vec<LogLine>> {
        let from = &self.order.from;
        let (mut lines, mut after, limit) = (Vec::new(), 0, from.limits().page);
        loop {
            let page = from.logs(LogSource::Job(job), after, limit).await?.lines;
            let is_last = page.len() < limit;
            after = page.last().map_or(after, |line| line.sequence);
            lines.extend(page);
            // More than one call takes never goes: the latest are worth more.
            let over = lines.len().saturating_sub(self.order.to.limits().batch);
            lines.drain(..over);
            if is_last {
                return Ok(lines);
            }
        }
    }

    /// Sees to it that jobs which the other store has already go on there as they would have here: one that a copy parked is
    /// due when it was due here; and one that ended there before it was sent round again here is replaced, and so is one that
    /// was withdrawn there by a move which brought it here and was cut off.
    pub(super) async fn bring_up_to_date(&mut self, jobs: &[&JobRecord]) -> Result<()> {
        let found = self.order.to.find_all(jobs.iter().map(|job| job.id).collect()).await?;
        for (job, there) in jobs.iter().zip(found) {
            let Some(there) = there else { continue };
            if there.is_parked() && job.state.is_waiting() && !job.is_parked() {
                amend(&self.order.to, vec![job.id], Action::Unpark { due: Due::At(job.due) }).await?;
            } else if there.is_withdrawn() || (there.generation < job.generation && there.state.is_terminal())
            {
                self.replace(job, there.finished_at.unwrap_or_default()).await?;
            }
        }
        Ok(())
    }

    async fn replace(&mut self, job: &JobRecord, by: Timestamp) -> Result<()> {
        let told = amend(&self.order.to, vec![job.id], Action::DeleteEnded { by }).await?;
        if told.iter().all(|(_, answer)| *answer == AmendAnswer::Applied) {
            let arrivals = self.with_logs(vec![job.clone()]).await?;
            self.check_lock()?;
            self.admit(arrivals).await?;
        }
        Ok(())
    }
}

/// Changes these jobs of a store; answers one item each.
pub(super) async fn amend(
    store: &Store,
    jobs: Vec<JobId>,
    action: Action,
) -> Result<Vec<(JobId, AmendAnswer)>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let request = Amend { select: Select::Ids(jobs), action, preview: false };
    Ok(store.backend().amend(store.deadline(), request).await?.jobs)
}

/// Cuts jobs into parts none of which is too much for one call.
fn parts(arrivals: Vec<Arrival>, most_lines: usize) -> Vec<Vec<Arrival>> {
    let (mut parts, mut bytes, mut lines) = (vec![Vec::new()], 0, 0);
    for arrival in arrivals {
        let (job, logs) = (&arrival.job, &arrival.logs);
        let said: usize = logs.iter().map(|line| line.message.len()).sum();
        let size = job.payload.len() + job.result.as_ref().map_or(0, Payload::len) + said;
        (bytes, lines) = (bytes + size, lines + logs.len());
        let is_full = bytes > BYTES || lines > most_lines;
        if let Some(part) = parts.last_mut().filter(|part| !is_full || part.is_empty()) {
            part.push(arrival);
        } else {
            (bytes, lines) = (size, logs.len());
            parts.push(vec![arrival]);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// A job as it goes to another store: one that was withdrawn waits there again, for the reason that it waited for.
pub(super) fn as_it_was(mut job: JobRecord, before: Option<&JobRecord>) -> JobRecord {
    if job.is_withdrawn() {
        (job.state, job.finished_at) = (State::Queued, None);
        job.reason = before.filter(|before| before.due == job.due).and_then(|before| before.reason);
    }
    job
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Level, NewLine};
    use crate::job::JobOptions;
    use crate::{Kind, QueueName};

    fn arrival(bytes: usize, lines: usize) -> Arrival {
        let (queue, kind, at) = (QueueName::default(), Kind::new("work").unwrap(), Timestamp::default());
        let (id, payload) = (JobId::generate(), Payload::from(vec![0; bytes]));
        let job = JobRecord::new(id, queue, kind, payload, JobOptions::default(), at, at);
        let said = || NewLine { level: Level::Info, message: "said".into() };
        let logs = (0..lines).map(|n| LogLine::new(n as u64, id, 1, None, at, said())).collect();
        Arrival { job, logs }
    }

    #[test]
    fn no_part_is_too_much_for_one_call() {
        let sizes = |arrivals, most| parts(arrivals, most).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(Vec::new(), 9), Vec::<usize>::new());
        assert_eq!(sizes((0..4).map(|_| arrival(0, 3)).collect(), 7), [2, 2]);
        // One that is too much by itself still goes: the store says what it thinks of it.
        assert_eq!(sizes(vec![arrival(BYTES + 1, 0), arrival(1, 0)], 9), [1, 1]);
        assert_eq!(sizes(vec![arrival(1, 0), arrival(BYTES, 0), arrival(1, 0)], 9), [1, 1, 1]);
        assert_eq!(sizes((0..3).map(|_| arrival(BYTES / 2, 0)).collect(), 9), [2, 1]);
    }
}
