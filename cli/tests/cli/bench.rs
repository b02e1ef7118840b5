use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A store in a folder of its own, and the command that works on it.
pub(crate) struct Bench {
    folder: TempDir,
    url: String,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    /// Its data.
    pub(crate) out: String,
    /// What it said.
    pub(crate) said: String,
}

impl Done {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            said: text(&output.stderr),
        }
    }

    /// What it printed, if it ended so.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.ended(0)
    }

    /// The one word that it printed, as an id.
    pub(crate) fn word(&self) -> &str {
        self.out.trim()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Bench {
    /// With a new SQLite file.
    pub(crate) fn new() -> Self {
        let bench = Self::bare();
        bench.run(["migrate"]).ok();
        bench
    }

    /// With a file that is not there yet.
    pub(crate) fn bare() -> Self {
        Self { folder: TempDir::new().unwrap(), url: "sqlite:jobs.db".into() }
    }

    /// On this store.
    pub(crate) fn on(url: &str) -> Self {
        Self { folder: TempDir::new().unwrap(), url: url.into() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command with these words, in the folder, and with nothing of this process's settings.
    pub(crate) fn command<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        command.args(words).current_dir(self.folder.path()).env("LEASEHOLD_URL", &self.url);
        for name in ["LEASEHOLD_OUTPUT", "LEASEHOLD_TIMEOUT", "LEASEHOLD_CONFIG", "COLUMNS"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn run<'w>(&self, words: impl IntoIterator<Item = &'w str>) -> Done {
        Done::of(&self.command(words).output().unwrap())
    }

    /// The same with this on its standard input.
    pub(crate) fn feed<'w>(&self, words: impl IntoIterator<Item = &'w str>, input: &[u8]) -> Done {
        let mut command = self.command(words);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // It may end without reading all.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        Done::of(&output)
    }

    /// Enqueues a job of the kind "work" and tells its id.
    pub(crate) fn enqueue<'w>(&self, more: impl IntoIterator<Item = &'w str>) -> String {
        let words = ["jobs", "enqueue", "work", "{\"n\":1}"].into_iter().chain(more);
        self.run(words).ok().word().to_owned()
    }

    /// A job as JSON.
    pub(crate) fn job(&self, id: &str) -> serde_json::Value {
        self.run(["-o", "json", "jobs", "show", id]).ok().json()
    }

    /// Writes a program that a shell runs.
    #[cfg(unix)]
    pub(crate) fn program(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}
