//! Jobs that wait for jobs: one fetches a page, its links are followed beside each other, and what came of it is told in the
//! end, whether or not all went well.
//!
//! `cargo run --example flow`, or with a URL: `cargo run --example flow -- sqlite:jobs.db`

use std::time::Duration;

use futures::TryStreamExt;
use leasehold::flow::Flow;
use leasehold::policy::BoxError;
use leasehold::worker::{Args, Json};
use leasehold::{Attempt, JobArgs, NewJob, State, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Fetch(String);
impl JobArgs for Fetch {
    const KIND: &'static str = "fetch";
}

#[derive(Serialize, Deserialize)]
struct Merge;
impl JobArgs for Merge {
    const KIND: &'static str = "merge";
}

#[derive(Serialize, Deserialize)]
struct Tell;
impl JobArgs for Tell {
    const KIND: &'static str = "tell";
}

async fn fetch(Args(Fetch(page)): Args<Fetch>) -> Result<Json<usize>, BoxError> {
    if page.ends_with('3') { Err(format!("{page} is not there").into()) } else { Ok(Json(page.len())) }
}

async fn merge() {
    println!("all pages were fetched");
}

async fn tell(attempt: Attempt) -> leasehold::Result<()> {
    let parents: Vec<_> = attempt.parents().try_collect().await?;
    for job in parents {
        match (job.state, job.result, job.history.last()) {
            (State::Succeeded, Some(size), _) => println!("{}: {:?} bytes", job.id, size.parse::<usize>()?),
            (state, _, failure) => println!("{}: {state}, {:?}", job.id, failure.map(|f| &f.message)),
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let store = leasehold::connect(&url).await?;

    let mut flow = Flow::new("a site")?;
    let home = flow.add(Fetch("home".into()))?;
    let page = |n| NewJob::of(&Fetch(format!("page {n}"))).map(|job| job.max_attempts(1));
    let pages = flow.after(home).add_all((1..=4).map(page).collect::<Result<Vec<_>, _>>()?)?;
    // Cancelled, since one of the pages fails.
    flow.after(pages).add(Merge)?;
    // A callback: it runs when all have ended, however they did.
    flow.after_end(pages).add(Tell)?;

    let worker = Worker::builder(&store).handle("fetch", fetch).handle("merge", merge).handle("tell", tell);
    let worker = worker.build()?.start();
    let id = store.flows().enqueue(&flow).await?;
    let ended = store.flows().wait(id, Duration::from_secs(10)).await?;
    println!("the flow {:?} {}: {:?}", ended.name, ended.state, ended.counts);
    worker.stop().await?;
    Ok(())
}
