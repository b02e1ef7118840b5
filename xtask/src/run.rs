use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What went wrong with a chore.
pub(crate) type Trouble = Box<dyn std::error::Error>;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Runs cargo in the workspace, showing what it runs.
pub(crate) fn cargo(arguments: &[&str]) -> Result<(), Trouble> {
    cargo_with(arguments, &[])
}

/// Runs cargo in the workspace with variables set, showing what it runs.
pub(crate) fn cargo_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<(), Trouble> {
    let shown: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    eprintln!("\n== {}cargo {}", shown.concat(), arguments.join(" "));
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(root()).envs(variables.iter().copied());
    let status = command.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`cargo {}` failed: {status}", arguments.join(" ")).into())
    }
}

/// Runs this very chore again, built with a feature that most chores do without.
#[cfg(not(all(feature = "matrix", feature = "soak")))]
pub(crate) fn again_with(built: &[&str]) -> Result<(), Trouble> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    cargo(&[&["run", "--quiet", "--package", "xtask"], built, &["--"], &arguments].concat())
}

/// What a command prints, if it runs and succeeds.
pub(crate) fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).current_dir(root()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
