use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::held::{Cause, Entry};
use super::shared::Shared;
use crate::backend::Verdict;
use crate::client::jittered;
use crate::flow::{Known, Member};
use crate::id::{FlowId, JobId};

/// How many flows are led on at once.
const BESIDE: usize = 16;
/// How many ends of jobs may wait to be followed up; those beyond are found when their flows are looked at as a whole.
const WAITING: usize = 100_000;

/// Ends of jobs of flows that this worker heard of, to be followed up.
#[derive(Default)]
pub(super) struct Heard {
    ends: Mutex<Ends>,
    more: Notify,
    /// Told when a flow was led on, so that jobs may be due.
    pub(super) led: Notify,
}

#[derive(Default)]
struct Ends {
    /// What is left to be followed up of each flow, also while it is led on: what comes meanwhile goes together.
    flows: HashMap<FlowId, Vec<(u32, Known)>>,
    /// Those of them that are not led on right now, whoever came first.
    next: VecDeque<FlowId>,
    waiting: usize,
    /// Whether it was looked for flows that are due, and is not right now.
    looked: bool,
}

impl Heard {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a job ended.
    fn hear(&self, member: Member, known: Known) {
        let mut ends = self.ends();
        let Ends { flows, next, waiting, .. } = &mut *ends;
        if *waiting < WAITING {
            *waiting += 1;
            let ended = flows.entry(member.flow).or_insert_with(|| {
                next.push_back(member.flow);
                Vec::new()
            });
            ended.push((member.index, known));
            self.more.notify_one();
        }
    }

    /// Whether nothing is left to be followed up, and it was looked for what others left.
    pub(super) fn is_quiet(&self) -> bool {
        let ends = self.ends();
        ends.flows.is_empty() && ends.looked
    }

    /// A flow to be led on, and what ended of it; none if there is none that is not.
    fn take(&self) -> Option<(FlowId, Vec<(u32, Known)>)> {
        let mut ends = self.ends();
        let flow = ends.next.pop_front()?;
        let ended = std::mem::take(ends.flows.entry(flow).or_default());
        ends.waiting -= ended.len();
        Some((flow, ended))
    }

    /// Notes that a flow was led on.
    fn led(&self, flow: FlowId) {
        let mut ends = self.ends();
        let Ends { flows, next, .. } = &mut *ends;
        if let Slot::Occupied(ended) = flows.entry(flow) {
            if ended.get().is_empty() {
                ended.remove();
            } else {
                next.push_back(flow);
            }
        }
        drop(ends);
        self.led.notify_waiters();
    }
}

/// Leads flows on, until `done`: at once where a job of this worker's ended, and from time to time those that are due (clause
/// F9).
pub(super) async fn flows(shared: Arc<Shared>, done: CancellationToken) {
    tokio::join!(shared.lead_on(&done), shared.look_after_flows(&done));
}

impl Shared {
    async fn lead_on(&self, done: &CancellationToken) {
        let mut led = FuturesUnordered::new();
        loop {
            while led.len() < BESIDE
                && let Some((flow, ended)) = self.heard.take()
            {
                led.push(async move {
                    if let Err(error) = self.store.flows().settled(flow, &ended).await {
                        tracing::warn!(%error, %flow, "a flow could not be led on yet");
                    }
                    flow
                });
            }
            tokio::select! {
                Some(flow) = led.next() => self.heard.led(flow),
                () = self.heard.more.notified() => {}
                () = done.cancelled(), if self.heard.ends().flows.is_empty() => return,
            }
        }
    }

    async fn look_after_flows(&self, done: &CancellationToken) {
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = done.cancelled() => return,
                () = tokio::time::sleep_until(next) => {}
            }
            self.heard.ends().looked = false;
            let flows = self.store.flows();
            // One of several workers on a store of one process is enough.
            let looks = flows.drive_if_due(self.config.recovery.mul_f64(0.8));
            let looked = done.run_until_cancelled(looks).await;
            self.heard.ends().looked = true;
            self.heard.led.notify_waiters();
            if looked.is_none() {
                return;
            }
            next = Instant::now() + jittered(self.config.recovery);
        }
    }

    /// Notes what became of a job under a lease, if it is one of a flow.
    pub(super) fn hear_of(&self, entry: &Entry, verdict: &Verdict) {
        let Some(member) = entry.member else { return };
        // What somebody asked to cancel ends where it would go on.
        let asked = || (entry.cause() == Some(Cause::CancelRequested)).then_some(Known::Cancelled);
        let Some(known) = Known::by(verdict).or_else(asked) else { return };
        if entry.is_again {
            self.store.flow_cache().doubt(member.flow);
        }
        self.heard.hear(member, known);
    }

    /// The same of a job that was taken back, if it is one of a flow that this process knows.
    pub(super) fn hear_of_lost(&self, job: JobId, verdict: &Verdict) {
        if let Some((flow, index)) = FlowId::of_member(job)
            && matches!(verdict, Verdict::Fail { .. })
            && self.store.flow_cache().has(flow)
        {
            self.heard.hear(Member { flow, index }, Known::Failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_take_turns() {
        let (heard, flows) = (Heard::default(), [FlowId::generate(), FlowId::generate(), FlowId::generate()]);
        let end = |flow: usize, index| heard.hear(Member { flow: flows[flow], index }, Known::Succeeded);
        for index in 0..2 {
            (0..3).for_each(|flow| end(flow, index));
        }
        // Each goes behind all others once it was led on, however much of it comes.
        for round in 2..20 {
            for (flow, expected) in flows.into_iter().enumerate() {
                let (taken, ended) = heard.take().unwrap();
                assert_eq!((taken, ended.len()), (expected, if round == 2 { 2 } else { 1 }));
                end(flow, round);
                heard.led(taken);
            }
        }
        // One that is led on is not led on by another.
        let (taken, _) = heard.take().unwrap();
        end(0, 30);
        assert_eq!((taken, heard.take().unwrap().0, heard.take().unwrap().0), (flows[0], flows[1], flows[2]));
        assert!(heard.take().is_none());
        flows.iter().for_each(|flow| heard.led(*flow));
        assert_eq!(heard.take().unwrap(), (flows[0], vec![(30, Known::Succeeded)]));
        heard.led(flows[0]);
        assert!(heard.take().is_none() && heard.ends().flows.is_empty() && heard.ends().waiting == 0);
    }
}
