use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
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
    flows: HashMap<FlowId, Flow>,
    waiting: usize,
    /// Whether it was looked for flows that are due, and is not right now.
    looked: bool,
}

/// What is left to be followed up of a flow. One is led on at once, and what comes meanwhile goes together.
#[derive(Default)]
struct Flow {
    ended: Vec<(u32, Known)>,
    led: bool,
}

impl Heard {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a job ended.
    fn hear(&self, member: Member, known: Known) {
        let mut ends = self.ends();
        if ends.waiting < WAITING {
            ends.waiting += 1;
            ends.flows.entry(member.flow).or_default().ended.push((member.index, known));
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
        let (flow, of) = ends.flows.iter_mut().find(|(_, of)| !of.led)?;
        of.led = true;
        let taken = (*flow, std::mem::take(&mut of.ended));
        ends.waiting -= taken.1.len();
        Some(taken)
    }

    /// Notes that a flow was led on.
    fn led(&self, flow: FlowId) {
        if let Slot::Occupied(mut of) = self.ends().flows.entry(flow) {
            of.get_mut().led = false;
            if of.get().ended.is_empty() {
                of.remove();
            }
        }
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
        let known = match verdict {
            Verdict::Succeed { .. } => Known::Succeeded,
            Verdict::Fail { .. } => Known::Failed,
            Verdict::Cancel { .. } => Known::Cancelled,
            Verdict::Retry { .. } | Verdict::Release { .. }
                if entry.cause() == Some(Cause::CancelRequested) =>
            {
                Known::Cancelled
            }
            Verdict::Retry { .. } | Verdict::Release { .. } => return,
        };
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
