use futures::TryStreamExt;
use leasehold_core::backend::Filter;
use leasehold_core::flow::{Flow, FlowState, OnParentFailure};
use leasehold_core::layer::Operation;
use leasehold_core::{ErrorKind, Keep, Limits, State};
use leasehold_memory::Memory;
use tokio::time::{sleep, timeout};

use super::*;
use crate::probe::{Fate, Probe};
use crate::store;

#[tokio::test(start_paused = true)]
async fn flows_hold_where_little_is_taken_at_once() {
    let mut limits = Limits::default();
    (limits.batch, limits.page, limits.payload_bytes) = (10, 10, 2_048);
    let store = Store::with_limits(Arc::new(Memory::new()), limits);
    for links in 0..150 {
        let mut flow = Flow::new("small").unwrap();
        let parts = flow.add_all(jobs(links.max(25))).unwrap();
        let steps: Vec<_> = parts.steps().step_by(2).take(links / 2).collect();
        flow.after(steps).add(job("ok")).unwrap();
        flow.after_end(parts).add(job("look")).unwrap();
        let enqueued = store.flows().enqueue(&flow).await;
        assert_eq!(enqueued.unwrap(), flow.id(), "with a plan of {links} links");
        let parents = attempt_parents(&store, &flow).await;
        assert_eq!(parents, links.max(25));
        let members = store.flows().members(flow.id(), 0, 20).await.unwrap();
        assert_eq!(members.len(), 20);
    }
}

/// How many parents of the flow's last job are found.
async fn attempt_parents(store: &Store, flow: &Flow) -> usize {
    let member = leasehold_core::flow::Member { flow: flow.id(), index: flow.len() as u32 - 1 };
    store.flows().parents(member).try_collect::<Vec<_>>().await.unwrap().len()
}

