use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system in memory, gone when dropped.
pub(crate) struct Mount {
    folder: PathBuf,
    _parent: tempfile::TempDir,
}

impl Mount {
    /// Mounts one. None where that is not allowed, which a strict run does not accept.
    pub(crate) fn new(megabytes: u32) -> Option<Self> {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("mount");
        std::fs::create_dir(&folder).unwrap();
        let mount = Self { folder, _parent: parent };
        if mount.run("mount", &["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]) {
            return Some(mount);
        }
        let strict = std::env::var_os("CONFORMANCE_STRICT").is_some_and(|value| value == "1");
        assert!(!strict, "a file system must be mounted for this test, which takes root");
        eprintln!("skipped: a file system must be mounted for this test, which takes root");
        std::mem::forget(mount);
        None
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets nothing more be written.
    pub(crate) fn make_read_only(&self) {
        assert!(self.run("mount", &["-o", "remount,ro"]), "the file system could not be made read-only");
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        Command::new(program)
            .args(arguments)
            .arg(&self.folder)
            .output()
            .is_ok_and(|done| done.status.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.run("umount", &["-l"]);
    }
}
