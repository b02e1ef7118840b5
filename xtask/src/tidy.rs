use std::path::{Path, PathBuf};

use crate::run::{Trouble, root};

/// The longest a source file may be.
const LINES: usize = 500;
/// The example of a backend, which is to be read at one go, and how much code it may be: lines of its `src` that are
/// neither blank nor comments alone.
const EXAMPLE: (&str, usize) = ("examples/backend-files/src/", 1_100);
/// The examples for who comes from another queue, and the longest that one may be.
const SHORT: (&str, usize) = ("examples/coming-from/", 80);
/// The files that every backend may have; another one needs its reason here.
const BACKEND_FILES: &[&str] = &[
    "lib",
    "config",
    "store",
    "schema",
    "record",
    "enqueue",
    "admit",
    "claim",
    "renew",
    "replace",
    "settle",
    "recover",
    "logs",
    "inspect",
    "control",
    "registers",
    "workers",
    "watch",
    "error",
];
/// Files that one backend has alone, and why.
const OWN_FILES: &[(&str, &str)] = &[
    ("backend-files", "journal"),
    ("backend-sqlite", "writer"),
    ("backend-mongo", "session"),
    ("backend-mongo", "candidates"),
    ("backend-mongo", "heads"),
    ("backend-mongo", "hour"),
    ("backend-mongo", "turns"),
    ("backend-mongo", "limits"),
    ("backend-mongo", "transition"),
    ("backend-mongo", "capped"),
    ("backend-mongo", "changes"),
    ("backend-mongo", "log_head"),
    ("backend-mongo", "tail"),
    ("backend-postgres", "session"),
    ("backend-postgres", "pool"),
    ("backend-postgres", "upkeep"),
    ("backend-redis", "scripts"),
    ("backend-redis", "session"),
];
/// Files without which a folder is no backend.
const BACKEND_MUST: &[&str] = &["lib", "store", "enqueue", "claim", "renew", "settle", "recover"];
/// Names that must not stand in the core or in the suite.
const STORES: &[&str] = &["sqlite", "sqlx", "mongo", "postgres", "redis", "valkey"];
/// Words that unfinished work is marked by.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "FIXME", "XXX", "#[ignore"];

/// Checks the rules of this house that no compiler knows.
pub(crate) fn tidy() -> Result<(), Trouble> {
    eprintln!("\n== tidy");
    let mut faults = Vec::new();
    let mut files = Vec::new();
    for file in sources()? {
        let text = std::fs::read_to_string(&file)?;
        let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        let mut fault = |what: String| faults.push(format!("{shown}: {what}"));
        let lines = text.lines().count();
        let most = if shown.starts_with(SHORT.0) { SHORT.1 } else { LINES };
        if lines > most {
            fault(format!("{lines} lines; the most is {most}"));
        }
        if shown.starts_with("core/src") || shown.starts_with("conformance-tests/src") {
            let lower = text.to_lowercase();
            STORES
                .iter()
                .filter(|store| lower.contains(**store))
                .for_each(|store| fault(format!("names {store}")));
        }
        // This file names the words it looks for.
        if !shown.starts_with("xtask/") {
            UNFINISHED
                .iter()
                .filter(|word| text.contains(**word))
                .for_each(|word| fault(format!("has {word}")));
            if text.contains("SystemTime::now") && shown != "core/src/time.rs" {
                fault("reads the host's clock; take a `Clock`".into());
            }
        }
        let library = ["src", "core/src", "backend-"].iter().any(|folder| shown.starts_with(folder));
        let code = |line: &&str| !line.trim_start().starts_with("//");
        if library
            && shown.contains("src/")
            && text.lines().filter(code).any(|line| line.contains("println!("))
        {
            fault("a library prints; use `tracing`".into());
        }
        if shown.starts_with("conformance-tests/src/cases") && text.contains("sleep(") {
            fault("a case sleeps; move the manual clock".into());
        }
        files.push((shown, text));
    }
    let (example, most) = EXAMPLE;
    let code: usize =
        files.iter().filter(|(file, _)| file.starts_with(example)).map(|(_, text)| code_lines(text)).sum();
    if code == 0 || code > most {
        faults.push(format!("{example}: {code} lines of code; the most is {most}"));
    }
    faults.extend(crate::failpoints::faults(&files));
    backends(&mut faults)?;
    crate::excerpts::excerpts(&mut faults)?;
    crate::links::links(&files, &mut faults)?;
    if faults.is_empty() { Ok(()) } else { Err(format!("tidy found:\n  {}", faults.join("\n  ")).into()) }
}

/// How many lines of a source are neither blank nor comments alone.
fn code_lines(text: &str) -> usize {
    let code = |line: &&str| !line.trim_start().starts_with("//") && !line.trim().is_empty();
    text.lines().filter(code).count()
}

/// Every backend has the same file names.
fn backends(faults: &mut Vec<String>) -> Result<(), Trouble> {
    let entries = std::fs::read_dir(root())?.chain(std::fs::read_dir(root().join("examples"))?);
    for entry in entries {
        let folder = entry?.path();
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.starts_with("backend-") {
            continue;
        }
        let mut has = Vec::new();
        for file in std::fs::read_dir(folder.join("src"))? {
            let path = file?.path();
            has.push(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default());
        }
        for file in &has {
            let own = OWN_FILES.iter().any(|(backend, own)| *backend == name && own == file);
            if !own && !BACKEND_FILES.contains(&file.as_str()) {
                faults.push(format!("{name}/src/{file}: no other backend has such a file"));
            }
        }
        for must in BACKEND_MUST.iter().filter(|must| !has.iter().any(|file| file == *must)) {
            faults.push(format!("{name}/src/{must}.rs is missing"));
        }
    }
    Ok(())
}

/// Every source file that is not ignored.
fn sources() -> Result<Vec<PathBuf>, Trouble> {
    let mut found = Vec::new();
    for entry in ignore::Walk::new(root()) {
        let path = entry?.into_path();
        if path.extension().is_some_and(|extension| extension == "rs") && path.is_file() {
            found.push(path);
        }
    }
    if found.iter().any(|path| path.ends_with(Path::new("core/src/lib.rs"))) {
        Ok(found)
    } else {
        Err("no sources found; is this the workspace?".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_code_is_neither_blank_nor_a_comment_alone() {
        assert_eq!(code_lines("//! It.\n\nuse a;\n    // So.\n    \nfn f() {} // And so.\n"), 2);
    }
}
