//! Makes a worker of any command: `process STORE QUEUE KIND COMMAND [ARGUMENT...]`.
//!
//! ```sh
//! echo hello | cargo run --features process --example process -- sqlite:jobs.db default count
//! cargo run --features process --example process -- sqlite:jobs.db default count sh -c 'wc -c >&3'
//! ```
//!
//! Each job of that kind is one run of the command, with the payload as its input. Ctrl-C stops the worker when
//! the commands that run have ended.
#[cfg(unix)]
use leasehold::{Kind, NewJob, Payload, Worker, worker::Process};

#[cfg(unix)]
const USAGE: &str = "process STORE QUEUE KIND COMMAND [ARGUMENT...]
process STORE QUEUE KIND < PAYLOAD, to enqueue a job";

#[cfg(unix)]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(store), Some(queue), Some(kind)) = (words.next(), words.next(), words.next()) else {
        return Err(USAGE.into());
    };
    let store = leasehold::connect(&store).await?;
    let Some(program) = words.next() else {
        let payload = std::io::read_to_string(std::io::stdin())?;
        let job = NewJob::new(Kind::new(kind)?, Payload::from(payload));
        println!("{}", store.queue(queue)?.enqueue(job).await?);
        return Ok(());
    };
    let command = Process::new(program).args(words);
    let worker = Worker::builder(&store).queue(queue).handle(&kind, command).build()?;
    let stopper = worker.stopper();
    let running = worker.start();
    tokio::signal::ctrl_c().await?;
    stopper.stop();
    println!("{:?}", running.join().await?);
    Ok(())
}

#[cfg(not(unix))]
fn main() {
    println!("programs as handlers are for Unix");
}
