//! The steps that concern queues, workers and registers.

use std::time::Duration;

use leasehold_core::backend::{
    CheckIn, DeleteRegister, Pause, Prune, PutRegister, QueueSettings, Registers, SetQueue, Space,
    StopWorkers, Workers,
};
use leasehold_core::policy::Rate;
use leasehold_core::{ErrorKind, VersionId};
use strum::VariantArray;

use super::play::Play;
use super::step::Step;
use crate::bench::in_time;
use crate::breach::{Kept, must_eq};

impl Play {
    pub(super) async fn manage(&mut self, step: &Step) -> Kept {
        match step {
            Step::SetQueue { queue, paused, rated } => self.set_queue(*queue, *paused, *rated).await,
            Step::CheckIn { worker, leaving, lost_after } => {
                self.check_in(*worker, *leaving, *lost_after).await
            }
            Step::StopWorkers { worker } => self.stop_workers(*worker).await,
            Step::PutRegister { name, next, expires, stale, again } => {
                self.put_register(*name, (*next, *expires), *stale, *again).await
            }
            Step::DeleteRegister { name, stale } => self.delete_register(*name, *stale).await,
            _ => Ok(()),
        }
    }

    async fn set_queue(&mut self, queue: u8, paused: bool, rated: bool) -> Kept {
        let pause = paused.then(|| Pause { by: "somebody".into(), reason: "to see".into() });
        let rate = rated.then(|| Rate::new(1, Duration::from_secs(1)));
        let settings = QueueSettings { pause, rate };
        let request = SetQueue { queue: self.names.queue(queue), settings };
        self.t.backend().set_queue(in_time(0), request.clone()).await?;
        self.reference.set_queue(&request);
        let queues = self.t.backend().queues(in_time(0)).await?;
        for queue in self.names.queues() {
            let told = queues.iter().find(|record| record.queue == queue);
            let told = told.map(|record| record.settings.clone()).unwrap_or_default();
            must_eq!(told, self.reference.settings(&queue), "the settings of {queue}");
        }
        Ok(())
    }

    async fn check_in(&mut self, worker: u8, leaving: bool, lost_after: Duration) -> Kept {
        let info = self.names.worker(worker);
        let request = CheckIn { worker: self.workers[usize::from(worker)], info, lost_after, leaving };
        let told = self.t.backend().check_in(in_time(0), request.clone()).await?;
        must_eq!(told, self.reference.check_in(&request));
        self.compare_workers().await
    }

    async fn stop_workers(&mut self, worker: Option<u8>) -> Kept {
        let one = worker.map(|worker| StopWorkers::One(self.workers[usize::from(worker)]));
        let request = one.unwrap_or(StopWorkers::All);
        let told = self.t.backend().stop_workers(in_time(0), request.clone()).await?;
        must_eq!(told, self.reference.stop_workers(&request), "how many were asked to stop");
        self.compare_workers().await
    }

    async fn compare_workers(&self) -> Kept {
        let all = Workers { after: None, limit: 100 };
        let told = self.t.backend().workers(in_time(0), all).await?;
        must_eq!(told, self.reference.workers());
        Ok(())
    }

    async fn put_register(
        &mut self,
        number: u8,
        (next, expires): (Option<Duration>, Option<Duration>),
        stale: bool,
        again: bool,
    ) -> Kept {
        let (space, name) = self.names.register(number);
        let there = self.reference.registers(&Registers::named(space, name.clone())).registers.pop();
        let versions = self.versions.entry(number).or_default();
        let (latest, earlier) = (there.map(|register| register.version), versions.first().copied());
        let version = versions.last().copied().filter(|_| again).unwrap_or_else(VersionId::generate);
        let (body, expected) = (format!("{version}").into(), if stale { earlier } else { latest });
        let later = |span: Option<Duration>| span.map(|span| self.reference.now.plus(span));
        let (next, expires) = (later(next), later(expires));
        let request = PutRegister { space, name, body, next, expires, version, expected };
        let told = self.t.backend().put_register(in_time(0), request.clone()).await;
        let told = match told {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::Conflict => false,
            Err(error) => return Err(error.into()),
        };
        must_eq!(told, self.reference.put_register(&request), "whether {request:?} was written");
        if told && !again {
            self.versions.entry(number).or_default().push(version);
        }
        self.compare_registers().await
    }

    async fn delete_register(&mut self, number: u8, stale: bool) -> Kept {
        let (space, name) = self.names.register(number);
        let earlier = self.versions.get(&number).and_then(|versions| versions.first()).copied();
        let expected = earlier.filter(|_| stale);
        let request = DeleteRegister { expected, ..DeleteRegister::named(space, name) };
        let told = self.t.backend().delete_register(in_time(0), request.clone()).await?;
        must_eq!(told, self.reference.delete_register(&request), "whether a register was there");
        if told {
            self.versions.remove(&number);
        }
        self.compare_registers().await
    }

    async fn compare_registers(&self) -> Kept {
        for space in Space::VARIANTS {
            for request in [Registers::all(*space, 100), Registers::due(*space, 100)] {
                let told = self.t.backend().registers(in_time(0), request.clone()).await?;
                must_eq!(told, self.reference.registers(&request), "the answer to {request:?}");
            }
        }
        Ok(())
    }

    /// Removes what is no job.
    pub(super) async fn clear_rest(&mut self) -> Kept {
        for name in 0..super::step::REGISTERS {
            self.delete_register(name, false).await?;
        }
        for queue in 0..super::step::QUEUES {
            if self.reference.settings(&self.names.queue(queue)) != QueueSettings::default() {
                self.set_queue(queue, false, false).await?;
            }
        }
        let request = Prune { limit: 1, workers_after: Duration::from_secs(60) };
        self.t.backend().prune(in_time(0), request).await?;
        self.reference.prune(&request);
        self.compare_workers().await
    }
}
