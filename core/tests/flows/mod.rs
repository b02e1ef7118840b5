//! Flows on the store in memory, in virtual time.

mod ends;
mod faults;
mod odds;
mod running;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_core::flow::{Flow, FlowRecord};
use leasehold_core::policy::BoxError;
use leasehold_core::worker::RunningWorker;
use leasehold_core::{Attempt, FlowId, JobRecord, NewJob, State, Store, Worker};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);

/// A job that does what its arguments say: `ok`, `fail`, or `slow`.
fn job(does: &str) -> NewJob {
    NewJob::dynamic("do", does).unwrap().max_attempts(1)
}

fn jobs(count: usize) -> Vec<NewJob> {
    vec![job("ok"); count]
}

/// In which order jobs began, by number.
type Began = Arc<Mutex<Vec<u32>>>;

fn working(store: &Store, began: &Began) -> RunningWorker {
    let began = began.clone();
    let handler = move |attempt: Attempt| {
        let began = began.clone();
        async move {
            began.lock().unwrap().push(attempt.flow().unwrap().index);
            match attempt.job().payload.parse::<String>()?.as_str() {
                "fail" => return Err("as it was told".into()),
                "slow" => attempt.cancelled().await,
                _ => {}
            }
            Ok::<(), BoxError>(())
        }
    };
    Worker::builder(store).handle("do", handler).build().unwrap().start()
}

/// Runs a flow to its end; tells in which order its jobs began.
async fn run(store: &Store, flow: &Flow) -> (FlowRecord, Vec<u32>) {
    let began = Began::default();
    let worker = working(store, &began);
    let id = store.flows().enqueue(flow).await.unwrap();
    let ended = store.flows().wait(id, HOUR).await.unwrap();
    worker.stop().await.unwrap();
    let began = std::mem::take(&mut *began.lock().unwrap());
    (ended, began)
}

async fn members(store: &Store, flow: FlowId) -> Vec<JobRecord> {
    let members = store.flows().members(flow, 0, 1_000).await.unwrap();
    members.into_iter().map(|member| member.job.unwrap()).collect()
}

async fn states(store: &Store, flow: FlowId) -> Vec<State> {
    members(store, flow).await.iter().map(|job| job.state).collect()
}

fn place(began: &[u32]) -> BTreeMap<u32, usize> {
    began.iter().zip(0..).map(|(job, place)| (*job, place)).collect()
}
