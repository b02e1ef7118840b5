use crate::run::{Trouble, cargo, cargo_with, output};
use crate::tidy::tidy;

/// Runs what a change must pass beside the tests.
pub(crate) fn check() -> Result<(), Trouble> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"])?;
    cargo(&["clippy", "--workspace", "--lib", "--no-default-features", "--", "-D", "warnings"])?;
    cargo_with(&["doc", "--workspace", "--all-features", "--no-deps"], &[("RUSTDOCFLAGS", "-D warnings")])?;
    tidy()?;
    guards()?;
    deny()
}

/// Mends what can be mended by itself.
pub(crate) fn fix() -> Result<(), Trouble> {
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--fix",
        "--allow-dirty",
        "--allow-staged",
    ])?;
    cargo(&["fmt", "--all"])
}

/// Dependencies that must not be: package, what it must not depend on, why.
const GUARDS: &[(&str, &str, &str)] = &[
    ("leasehold-core", "leasehold-", "the core names no store"),
    ("leasehold-core", "sqlx", "the core names no store"),
    ("leasehold-memory", "sqlx", "a store in memory needs no database"),
    ("leasehold-memory", "leasehold-sqlite", "backends do not know each other"),
    ("leasehold-sqlite", "leasehold-memory", "backends do not know each other"),
    ("leasehold-conformance", "sqlx", "the suite knows no store"),
    ("leasehold-conformance", "leasehold-sqlite", "the suite knows no store"),
    ("leasehold-sqlite", "leasehold-mongo", "backends do not know each other"),
    ("leasehold-mongo", "leasehold-sqlite", "backends do not know each other"),
    ("leasehold-mongo", "openssl v", "TLS is rustls"),
    ("leasehold-postgres", "leasehold-sqlite", "backends do not know each other"),
    ("leasehold-postgres", "libsqlite3-sys", "one store, one database"),
    ("leasehold-postgres", "openssl v", "TLS is rustls"),
    ("leasehold-redis", "leasehold-mongo", "backends do not know each other"),
    ("leasehold-redis", "leasehold-sqlite", "backends do not know each other"),
    ("leasehold-redis", "openssl v", "TLS is rustls"),
    ("leasehold", "openssl v", "TLS is rustls"),
    ("leasehold", "fail v", "only tests have failpoints"),
    ("leasehold-core", "fail v", "only tests have failpoints"),
    ("leasehold-memory", "fail v", "only tests have failpoints"),
    ("leasehold-sqlite", "fail v", "only tests have failpoints"),
    ("leasehold-mongo", "fail v", "only tests have failpoints"),
    ("leasehold-postgres", "fail v", "only tests have failpoints"),
    ("leasehold-redis", "fail v", "only tests have failpoints"),
    ("leasehold-bench", "fail v", "only tests have failpoints"),
    ("leasehold-backend-files", "fail v", "only tests have failpoints"),
];

/// Packages that know of this project only the core, as those of outsiders.
const OUTSIDERS: &[&str] = &["leasehold-backend-files"];

/// Dependencies point one way.
fn guards() -> Result<(), Trouble> {
    eprintln!("\n== dependency guards");
    for (package, forbidden, why) in GUARDS {
        if let Some(found) = dependencies(package)?.lines().find(|line| line.starts_with(forbidden)) {
            return Err(format!("{package} depends on {found}: {why}").into());
        }
    }
    for package in OUTSIDERS {
        let all = dependencies(package)?;
        let ours: Vec<&str> = all.lines().filter(|line| line.starts_with("leasehold")).collect();
        if ours.iter().any(|line| !line.starts_with("leasehold-core ")) || ours.is_empty() {
            return Err(format!("{package} depends on {ours:?}: an outsider needs the core alone").into());
        }
    }
    Ok(())
}

/// What a package depends on in a build that is no test, one package a line.
fn dependencies(package: &str) -> Result<String, Trouble> {
    let tree = ["tree", "--package", package, "--edges", "normal", "--prefix", "none"];
    let tree =
        output(env!("CARGO"), &tree).ok_or_else(|| format!("`cargo tree --package {package}` failed"))?;
    let (_, dependencies) = tree.split_once('\n').unwrap_or_default();
    Ok(dependencies.to_owned())
}

/// Licences, bans and sources. Advisories need a database from the network and are checked apart.
fn deny() -> Result<(), Trouble> {
    if output(env!("CARGO"), &["deny", "--version"]).is_none() {
        return Err("cargo-deny is missing; `cargo install --locked cargo-deny` brings it".into());
    }
    cargo(&["deny", "--all-features", "check", "licenses", "bans", "sources"])
}
