use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::stride::Stride;
use crate::flow::{FlowRecord, FlowState, Plan, Progress};
use crate::id::FlowId;

/// How many flows are remembered, and how many bytes all of them may take but for one.
const FLOWS: usize = 1_000;
const BYTES: usize = 64 << 20;

/// What this process knows of flows that go on. What it forgets it reads again.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    flows: Mutex<Known>,
    /// When it was last looked for flows that are due.
    looked: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Known {
    flows: HashMap<FlowId, (Arc<Live>, u64)>,
    bytes: usize,
    uses: u64,
}

/// A flow that goes on, as far as this process knows.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: FlowId,
    /// How often it was retried when this was read.
    pub(super) round: u32,
    pub(super) stride: Stride,
    /// Whether it may have been retried since.
    doubted: AtomicBool,
    cancelling: AtomicBool,
    progress: Mutex<Progress>,
}

impl Live {
    pub(super) fn new(record: &FlowRecord, plan: Plan) -> Self {
        let cancelling = AtomicBool::new(record.body.state == FlowState::Cancelling);
        let (id, round, progress) = (record.id, record.body.round, Mutex::new(Progress::new(plan)));
        Self { id, round, stride: Stride::default(), doubted: AtomicBool::new(false), cancelling, progress }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    pub(super) fn trust(&self) {
        self.doubted.store(false, Ordering::Relaxed);
    }

    /// Whether nothing is to be let go any more.
    pub(super) fn is_cancelling(&self) -> bool {
        self.cancelling.load(Ordering::Relaxed)
    }

    pub(super) fn cancel(&self) {
        self.cancelling.store(true, Ordering::Relaxed);
    }
}

impl Cache {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, flow: FlowId) -> Option<Arc<Live>> {
        let mut known = self.known();
        known.uses += 1;
        let uses = known.uses;
        let (live, used) = known.flows.get_mut(&flow)?;
        *used = uses;
        Some(live.clone())
    }

    /// Notes that a job was sent round again, and so the whole flow maybe: what is known of it is compared with the store first.
    pub(crate) fn doubt(&self, flow: FlowId) {
        if let Some((live, _)) = self.known().flows.get(&flow) {
            live.doubted.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it knows this flow.
    pub(crate) fn has(&self, flow: FlowId) -> bool {
        self.known().flows.contains_key(&flow)
    }

    /// Remembers a flow, unless it does already; then what is known of it is answered.
    pub(super) fn add(&self, live: Live) -> Arc<Live> {
        let mut known = self.known();
        known.uses += 1;
        let uses = known.uses;
        let size = live.progress().bytes();
        if let Some((there, _)) = known.flows.get(&live.id) {
            return there.clone();
        }
        while known.flows.len() >= FLOWS || (known.bytes + size > BYTES && !known.flows.is_empty()) {
            let oldest = known.flows.iter().min_by_key(|(_, (_, used))| *used).map(|(flow, _)| *flow);
            oldest.into_iter().for_each(|flow| known.remove(flow));
        }
        let live = Arc::new(live);
        known.bytes += size;
        known.flows.insert(live.id, (live.clone(), uses));
        live
    }

    pub(super) fn remove(&self, flow: FlowId) {
        self.known().remove(flow);
    }

    /// Whether nobody in this process has looked for so long; then the caller is to.
    pub(super) fn is_time(&self, since: Duration) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = looked.is_none_or(|at| at.elapsed() >= since);
        if is_time {
            *looked = Some(Instant::now());
        }
        is_time
    }
}

impl Known {
    fn remove(&mut self, flow: FlowId) {
        if let Some((live, _)) = self.flows.remove(&flow) {
            self.bytes -= live.progress().bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Register;
    use crate::flow::{Body, Row};
    use crate::job::Retention;
    use crate::time::Timestamp;

    fn live(jobs: u32) -> Live {
        let plan = Plan::of([Row { jobs, ..Row::default() }], jobs).unwrap();
        let hour = Timestamp::from_millis(0);
        let body = Body::new("test".into(), &plan, Retention::default(), hour);
        let put = body.put(FlowId::generate(), None, None).unwrap();
        Live::new(&Register::from(put).try_into().unwrap(), plan)
    }

    #[test]
    fn forgets_what_was_not_used_for_longest() {
        let cache = Cache::default();
        let (a, b) = (cache.add(live(1)).id, cache.add(live(1)).id);
        for _ in 0..FLOWS {
            cache.get(a);
            cache.add(live(1));
        }
        assert!(cache.has(a) && !cache.has(b));
        // Many of them take more than all may.
        let large = (0..70).map(|_| cache.add(live(1_000_000)).id).collect::<Vec<_>>();
        let there = large.iter().filter(|flow| cache.has(**flow)).count();
        assert!(!cache.has(a) && !cache.has(large[0]) && cache.has(large[69]));
        assert!(there > 50 && cache.known().bytes <= BYTES, "{there} of them take {}", cache.known().bytes);
    }
}
