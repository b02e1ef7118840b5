//! What other processes do in a run: this program again, with words that no user needs.

use std::process::Stdio;

use leasehold_core::Limits;
use leasehold_core::client::Store;
use leasehold_core::worker::Worker;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::Trouble;
use crate::counted::Counted;
use crate::stores::Place;
use crate::target::Target;
use crate::workloads::rounds::claim_all;

/// A part in a run.
#[derive(Debug, Clone, clap::Subcommand)]
#[command(hide = true)]
pub(crate) enum Child {
    /// Claims and settles until nothing is left.
    #[command(hide = true)]
    Drain {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        claimers: usize,
        #[arg(long)]
        batch: usize,
    },
    /// Is a worker of a queue in which nothing ever is.
    #[command(hide = true)]
    Idle {
        #[command(flatten)]
        place: Place,
    },
}

impl Child {
    /// Says when it is ready, waits until it is told to go, and says how many jobs it settled.
    #[cfg_attr(
        not(feature = "stores"),
        allow(dead_code, reason = "a stranger's store is measured in one process")
    )]
    pub(crate) async fn play(&self) -> Result<(), Trouble> {
        let (Self::Drain { place, .. } | Self::Idle { place }) = self;
        let backend = place.open().await?;
        match self {
            Self::Drain { claimers, batch, .. } => {
                let target: std::sync::Arc<dyn Target> = std::sync::Arc::new(Counted::calls_of(backend));
                println!("ready");
                tokio::io::stdin().read_u8().await?;
                println!("{}", claim_all(&target, None, *claimers, *batch).await?);
            }
            Self::Idle { .. } => {
                let store = Store::with_limits(backend, Limits::default());
                let worker = Worker::builder(&store).queue("idle").handle("never", || async {}).build()?;
                let worker = worker.start();
                println!("ready");
                // The end of the pipe is the end of whoever started this.
                let _ = tokio::io::stdin().read_u8().await;
                worker.stop().await?;
            }
        }
        Ok(())
    }

    fn arguments(&self) -> Vec<String> {
        match self {
            Self::Drain { place, claimers, batch } => {
                let more = [format!("--claimers={claimers}"), format!("--batch={batch}")];
                ["drain".to_owned()].into_iter().chain(place.arguments()).chain(more).collect()
            }
            Self::Idle { place } => ["idle".to_owned()].into_iter().chain(place.arguments()).collect(),
        }
    }

    /// Another process that plays this part, as soon as it is ready.
    pub(crate) async fn start(&self) -> Result<Process, Trouble> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(self.arguments()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("a child's output is a pipe")?;
        let mut process = Process { child, output: BufReader::new(output).lines() };
        process.line().await?;
        Ok(process)
    }
}

/// A process that plays a part. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: tokio::process::Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) async fn go(&mut self) -> Result<(), Trouble> {
        let input = self.child.stdin.as_mut().ok_or("a child's input is a pipe")?;
        input.write_all(b"\n").await?;
        Ok(input.flush().await?)
    }

    /// What it says next.
    pub(crate) async fn line(&mut self) -> Result<String, Trouble> {
        self.output.next_line().await?.ok_or_else(|| "a process of the run ended early".into())
    }

    /// Lets it end by itself.
    pub(crate) async fn stop(mut self) -> Result<(), Trouble> {
        drop(self.child.stdin.take());
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { Err(format!("a process of the run failed: {status}").into()) }
    }
}
