//! The commands: a noun each, and one file for each.

pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod dev;
pub(crate) mod doctor;
pub(crate) mod errors;
pub(crate) mod flows;
pub(crate) mod jobs;
pub(crate) mod migrate;
#[cfg(unix)]
pub(crate) mod pool;
pub(crate) mod queues;
pub(crate) mod schedules;
pub(crate) mod stats;
pub(crate) mod top;
pub(crate) mod transfer;
pub(crate) mod why;
pub(crate) mod work;
pub(crate) mod workers;

use leasehold::{Limits, Store};

use crate::args::{Cli, Command};
use crate::config::Settings;
use crate::failure::Failure;
use crate::output::Output;

/// What a command has at hand.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
}

impl Context {
    /// The store, with its tables, whatever of them there was.
    pub(crate) async fn store(&self) -> Result<Store, Failure> {
        let url = self.settings.url()?;
        if let Some(file) = missing_file(url) {
            let why = format!("there is no file {file}; `leasehold migrate` makes it, or correct --url");
            return Err(Failure::not_found(why));
        }
        self.new_store().await
    }

    /// The same, where it may be new.
    pub(crate) async fn new_store(&self) -> Result<Store, Failure> {
        let store = self.bare_store().await?;
        store.setup().await?;
        Ok(store)
    }

    /// The store as it is.
    pub(crate) async fn bare_store(&self) -> Result<Store, Failure> {
        let backend = leasehold::open(self.settings.url()?).await?;
        Ok(Store::with_limits(backend, Limits::default()).patience(self.settings.timeout.value))
    }
}

/// The file that a URL names and that is not there: who mistypes it is not to get an empty store.
pub(crate) fn missing_file(url: &str) -> Option<&str> {
    let file = url.strip_prefix("sqlite:")?.split('?').next()?;
    let file = file.strip_prefix("//").unwrap_or(file);
    (!file.is_empty() && file != ":memory:" && !std::path::Path::new(file).exists()).then_some(file)
}

pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    let settings = Settings::read(&cli.global)?;
    let output = Output { format: settings.output.value };
    let context = Context { settings, output };
    match cli.command {
        Command::Jobs(command) => jobs::run(command, &context).await,
        Command::Queues(command) => queues::run(command, &context).await,
        Command::Workers(command) => workers::run(command, &context).await,
        Command::Schedules(command) => schedules::run(command, &context).await,
        Command::Flows(command) => flows::run(command, &context).await,
        Command::Errors(command) => errors::run(command, &context).await,
        Command::Stats(command) => stats::run(command, &context).await,
        Command::Top(command) => Box::pin(top::run(command, &context)).await,
        Command::Bench(command) => bench::run(command, &context).await,
        Command::Why(command) => why::run(command, &context).await,
        Command::Work(command) => Box::pin(work::run(command, &context)).await,
        #[cfg(unix)]
        Command::Pool(command) => pool::run(command, &context).await,
        Command::Dev(command) => Box::pin(dev::run(command, &context)).await,
        Command::Doctor(command) => doctor::run(command, &context).await,
        Command::Copy(command) => transfer::copy(command, &context).await,
        Command::Move(command) => transfer::move_all(command, &context).await,
        Command::Migrate(command) => migrate::run(command, &context).await,
        Command::Config(command) => config::run(&command, &context),
        Command::Completions(command) => completions::run(&command),
        Command::Man(command) => completions::man(&command),
    }
}
