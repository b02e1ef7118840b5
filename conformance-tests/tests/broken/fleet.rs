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

    pub(super) async fn put_badly(&self, deadline: Deadline, mut request: PutRegister) -> Result<()> {
        let named = Registers::named(request.space, request.name.clone());
        let there = self.inner.registers(deadline, named).await?.registers.pop();
        let there = there.map(|register| register.version);
        match self.defect {
            Defect::WritesOverRegisters if there != Some(request.version) => request.expected = there,
            Defect::RefusesARepeatedRegister if there != request.expected => {
                return Err(Error::new(ErrorKind::Conflict, "somebody has written it"));
            }
            Defect::WritesLocksOnce if there.is_some() && request.space == Space::Lock => return Ok(()),
            Defect::MixesSpaces => request.space = Space::Schedule,
            Defect::KeepsRegistersForEver => request.expires = None,
            _ => {}
        }
        self.inner.put_register(deadline, request).await
    }

    pub(super) async fn delete_badly(&self, deadline: Deadline, mut request: DeleteRegister) -> Result<bool> {
        if self.has(Defect::DeletesWhatWasWrittenSince) {
            request.expected = None;
        }
        self.inner.delete_register(deadline, request).await
    }

    pub(super) async fn registers_badly(
        &self,
        deadline: Deadline,
        mut request: Registers,
    ) -> Result<RegisterPage> {
        let (due, space) = (request.due, request.space);
        request.due &= !self.has(Defect::FiresTicksEarly);
        if self.has(Defect::MixesSpaces) {
            request.space = Space::Schedule;
        }
        let mut page = self.inner.registers(deadline, request).await?;
        page.registers.retain(|register| !due || register.next.is_some());
        if self.has(Defect::MixesSpaces) {
            page.registers.iter_mut().for_each(|register| register.space = space);
        }
        if self.has(Defect::TellsAnotherHour) {
            page.hour = page.registers.iter().filter_map(|register| register.next).max().unwrap_or_default();
        }
        Ok(page)
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
