//! One job, one worker, one result.
use leasehold::worker::{Args, Json};
use leasehold::{JobArgs, Worker};
use serde::{Deserialize, Serialize};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

impl JobArgs for Greet {
    const KIND: &'static str = "greet";
}

async fn greet(Args(greet): Args<Greet>) -> Result<Json<String>, String> {
    Ok(Json(format!("Hello, {}!", greet.name)))
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let store = leasehold::connect("memory:").await?; // or "sqlite:jobs.db"
    let worker = Worker::builder(&store).queue("greetings").handle(Greet::KIND, greet).build()?.start();

    let job = store.queue("greetings")?.enqueue(Greet { name: "world".into() }).await?;
    let done = store.wait(job, Duration::from_secs(10)).await?;
    println!("{}: {:?}", done.state, done.result.map(|result| result.parse::<String>()));

    worker.stop().await.map(drop)
}
