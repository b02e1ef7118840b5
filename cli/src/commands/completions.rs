use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::{say, stdout};

/// Prints the completions for a shell.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold completions bash > /etc/bash_completion.d/leasehold\n  leasehold completions zsh > ~/.zfunc/_leasehold"
)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

/// Writes the manual's pages, one for each command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  leasehold man\n  leasehold man --to /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The folder they are written to; without it the main page is printed
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub(crate) fn run(command: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(command.shell, &mut Cli::command(), "leasehold", &mut text);
    let mut out = stdout();
    out.write_all(&text)?;
    Ok(out.flush()?)
}

pub(crate) fn man(command: &Man) -> Result<(), Failure> {
    let Some(folder) = &command.to else {
        let mut out = stdout();
        clap_mangen::Man::new(Cli::command()).render(&mut out)?;
        return Ok(out.flush()?);
    };
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    say(&format!("the pages are in {}", folder.display()));
    Ok(())
}
