use std::ops::{AddAssign, Sub};
use std::time::Duration;

#[cfg(feature = "stores")]
use leasehold_redis::redis::{InfoDict, aio::MultiplexedConnection, cmd, pipe};

use crate::Trouble;

/// What a server did: unlike the time it took, this is the same however busy the machine is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// The processor's time of the thread that runs commands.
    pub(crate) processor: Duration,
    /// Commands that were run, those within scripts too.
    pub(crate) commands: u64,
}

impl Sub for Work {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let processor = self.processor.saturating_sub(before.processor);
        Self { processor, commands: self.commands.saturating_sub(before.commands) }
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, more: Self) {
        self.processor += more.processor;
        self.commands += more.commands;
    }
}

/// Reads what a server has done so far.
#[derive(Clone)]
pub(crate) enum Meter {
    /// Of a store whose server does not tell, or that has none.
    None,
    #[cfg(feature = "stores")]
    Redis(MultiplexedConnection),
}

impl Meter {
    pub(crate) async fn read(&self) -> Result<Option<Work>, Trouble> {
        match self {
            Self::None => Ok(None),
            #[cfg(feature = "stores")]
            Self::Redis(connection) => of_redis(&mut connection.clone()).await.map(Some),
        }
    }
}

/// What was done between two readings.
pub(crate) fn between(before: Option<Work>, after: Option<Work>) -> Option<Work> {
    after.zip(before).map(|(after, before)| after - before)
}

#[cfg(feature = "stores")]
async fn of_redis(connection: &mut MultiplexedConnection) -> Result<Work, Trouble> {
    let (mut processor, mut commands) = (cmd("INFO"), cmd("INFO"));
    processor.arg("cpu");
    commands.arg("commandstats");
    let mut both = pipe();
    both.add_command(processor).add_command(commands);
    let (processor, commands): (InfoDict, String) = both.query_async(connection).await?;
    let seconds = |name: &str| processor.get::<f64>(name).unwrap_or_default();
    let processor = seconds("used_cpu_user_main_thread") + seconds("used_cpu_sys_main_thread");
    let calls = |line: &str| {
        let (name, told) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        // Only what is measured counts, not the measuring.
        let counts = name != "info";
        counts.then_some(told.split_once(',')?.0.parse::<u64>().ok()?)
    };
    let commands = commands.lines().filter_map(calls).sum();
    Ok(Work { processor: Duration::from_secs_f64(processor), commands })
}
