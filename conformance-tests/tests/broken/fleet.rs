//! Defects of the fleet, of schedules and of events.

use futures::StreamExt;
use futures::stream::BoxStream;
use leasehold_core::backend::*;
use leasehold_core::{Backend, Deadline, Error, ErrorKind, Result};

use super::{Broken, Defect};

impl Broken {
    pub(super) async fn check_in_badly(&self, deadline: Deadline, mut request: CheckIn) -> Result<CheckedIn> {
        match self.defect {
            Defect::KeysWorkersByName => {
                let name = request.info.name.clone();
                request.worker = *self.shadow().names.entry(name).or_insert(request.worker);
            }
            Defect::KeepsTheFirstWord => {
                let first = request.info.clone();
                request.info = self.shadow().said.entry(request.worker).or_insert(first).clone();
            }
            Defect::ForgetsWhatLeaversSaid if request.leaving => request.info.log.clear(),
            _ => {}
        }
        let mut answer = self.inner.check_in(deadline, request).await?;
        answer.stop &= !self.has(Defect::NeverAsksToStop);
        Ok(answer)
    }

    pub(super) async fn workers_badly(
        &self,
        deadline: Deadline,
        request: Workers,
    ) -> Result<Vec<WorkerRecord>> {
        let mut workers = self.inner.workers(deadline, request).await?;
        for worker in &mut workers {
            match self.defect {
                Defect::NeverShowsAWorkerLost => worker.lost = false,
                Defect::ShowsLeaversLost => worker.lost |= worker.left,
                _ => {}
            }
        }
        Ok(workers)
    }

    pub(super) async fn put_badly(&self, deadline: Deadline, mut request: PutSchedule) -> Result<()> {
        let all = Schedules { due: false, after: None, limit: 1_000 };
        let all = self.inner.schedules(deadline, all).await?;
        let there = all.into_iter().find(|schedule| schedule.name == request.name);
        let there = there.map(|schedule| schedule.version);
        match self.defect {
            Defect::WritesOverSchedules if there != Some(request.version) => request.expected = there,
            Defect::RefusesARepeatedSchedule if there != request.expected => {
                return Err(Error::new(ErrorKind::Conflict, "somebody has written it"));
            }
            _ => {}
        }
        self.inner.put_schedule(deadline, request).await
    }

    pub(super) async fn schedules_badly(
        &self,
        deadline: Deadline,
        mut request: Schedules,
    ) -> Result<Vec<Schedule>> {
        let due = request.due;
        request.due &= !self.has(Defect::FiresTicksEarly);
        let mut schedules = self.inner.schedules(deadline, request).await?;
        schedules.retain(|schedule| !due || schedule.next.is_some());
        Ok(schedules)
    }

    pub(super) async fn watch_badly(
        &self,
        deadline: Deadline,
        mut request: Watch,
    ) -> Result<BoxStream<'static, Event>> {
        match self.defect {
            Defect::EndsItsEvents => return Ok(Box::pin(futures::stream::empty())),
            Defect::TellsMoreThanAsked => request.queues = None,
            Defect::TellsEverybodyOfLines => request.logs = true,
            _ => {}
        }
        let events = self.inner.watch(deadline, request).await?;
        let defect = self.defect;
        let told = move |event: &Event| match defect {
            Defect::SwallowsCancellations => !matches!(event, Event::CancelRequested { .. }),
            Defect::SwallowsGaps => *event != Event::Gap,
            _ => true,
        };
        Ok(Box::pin(events.filter(move |event| std::future::ready(told(event)))))
    }
}
