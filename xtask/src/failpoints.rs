//! Every failpoint is in the crash matrix, and the matrix names no other.

use std::collections::BTreeSet;

/// Where failpoints may be, and the table that names them.
const TABLES: &[(&[&str], &str)] = &[
    (&["core/src/", "conformance-tests/src/"], "conformance-tests/src/processes/matrix.rs"),
    (&["backend-memory/src/"], "backend-memory/tests/conformance.rs"),
    (&["backend-sqlite/src/"], "backend-sqlite/tests/conformance.rs"),
    (&["backend-mongo/src/"], "backend-mongo/tests/conformance.rs"),
    (&["examples/backend-files/src/"], "examples/backend-files/tests/harness/mod.rs"),
    (&["backend-postgres/src/"], "backend-postgres/tests/conformance.rs"),
    (&["backend-redis/src/"], "backend-redis/tests/conformance.rs"),
];
/// Where failpoints are made, and tried.
const MAKER: &str = "core/src/failpoints.rs";

/// What is wrong with the failpoints of these files, each a path and a text.
pub(crate) fn faults(files: &[(String, String)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, text) in files.iter().filter(|(file, _)| file != MAKER) {
        let known = TABLES.iter().any(|(folders, _)| folders.iter().any(|folder| file.starts_with(folder)));
        if !known && !points(text).is_empty() && !file.starts_with("xtask/") {
            faults.push(format!("{file}: has a failpoint, and no table of the crash matrix is for it"));
        }
    }
    for (folders, table) in TABLES {
        let within = |file: &str| folders.iter().any(|folder| file.starts_with(folder)) && file != MAKER;
        let sources = files.iter().filter(|(file, _)| within(file));
        let has: BTreeSet<&str> = sources.flat_map(|(_, text)| points(text)).collect();
        let tables = files.iter().filter(|(file, _)| file == table);
        let named: BTreeSet<&str> = tables.flat_map(|(_, text)| names(text)).collect();
        faults.extend(
            has.difference(&named).map(|point| format!("{table}: the failpoint {point} is in no cell")),
        );
        faults.extend(named.difference(&has).map(|point| format!("{table}: there is no failpoint {point}")));
        let tables = files.iter().filter(|(file, _)| file == table);
        let idle = tables.flat_map(|(_, text)| idle(text));
        faults.extend(idle.map(|point| format!("{table}: no step comes by {point}, so it is in no cell")));
    }
    faults
}

/// The names of failpoints in a source, in whatever brackets and on whatever line they stand.
fn points(text: &str) -> Vec<&str> {
    let begun = text.split("fail_point!").skip(1);
    let literals = begun.filter_map(|rest| {
        rest.trim_start().strip_prefix(['(', '[', '{'])?.trim_start().strip_prefix('"')?.split('"').next()
    });
    literals.collect()
}

/// The cut points of a table that name no step: themselves, or by a list that is empty.
fn idle(text: &str) -> Vec<&str> {
    let lists = text.split("const ").skip(1).filter_map(|rest| rest.split_once(": &[Step] ="));
    let empty = |list: &str| {
        list.trim_start().strip_prefix("&[").is_some_and(|rest| rest.trim_start().starts_with(']'))
    };
    let empty_lists: Vec<&str> = lists.filter(|(_, list)| empty(list)).map(|(name, _)| name).collect();
    let mut found = Vec::new();
    for arguments in text.split("CutPoint::new(").skip(1).filter_map(|rest| rest.split(')').next()) {
        // A name, an effect, the steps.
        let mut parts = arguments.splitn(3, ',');
        let (Some(name), Some(_), Some(steps)) = (parts.next(), parts.next(), parts.next()) else { continue };
        if empty(steps) || empty_lists.contains(&steps.trim().trim_end_matches(',')) {
            found.push(name.trim().trim_matches('"'));
        }
    }
    found
}

/// The names in a table: texts of the form `what::when`.
fn names(text: &str) -> Vec<&str> {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let name = |text: &&str| text.split_once("::").is_some_and(|(what, when)| word(what) && word(when));
    text.split('"').skip(1).step_by(2).filter(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(source: &str, table: &str) -> Vec<(String, String)> {
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        vec![file("backend-sqlite/src/writer.rs", source), file("backend-sqlite/tests/conformance.rs", table)]
    }

    #[test]
    fn a_failpoint_and_its_cell_belong_together() {
        let (point, cell) =
            (r#"fail_point!("write::acted");"#, r#"CutPoint::new("write::acted", Effect::All)"#);
        assert_eq!(faults(&files(point, cell)), Vec::<String>::new());
        assert_eq!(faults(&files(point, "")).len(), 1);
        assert_eq!(faults(&files("", cell)).len(), 1);
    }

    #[test]
    fn a_failpoint_is_seen_on_whatever_line_its_name_stands() {
        for point in ["fail_point!(\n    \"write::acted\"\n);", "fail_point! [ \"write::acted\" ];"] {
            assert_eq!(points(point), ["write::acted"]);
            assert_eq!(faults(&files(point, "")).len(), 1);
        }
        assert_eq!(points("mark it by `fail_point!`, and \"name\" it"), Vec::<&str>::new());
    }

    #[test]
    fn a_cut_point_by_which_no_step_comes_is_in_no_cell() {
        let point = r#"fail_point!("write::acted");"#;
        for steps in ["&[]", "\n    &[ ],\n", "NONE", "NONE,"] {
            let cell = format!("CutPoint::new(\"write::acted\", Effect::All, {steps});");
            let found = faults(&files(point, &format!("const NONE: &[Step] = &[];\n{cell}")));
            assert!(
                matches!(&found[..], [one] if one.contains("no step comes by write::acted")),
                "{found:?}"
            );
        }
        for steps in ["Step::ALL", "&[Step::Claim]", "SOME"] {
            let cell = format!("CutPoint::new(\"write::acted\", Effect::All, {steps}).others_wait(),");
            let table = format!("const NONE: &[Step] = &[];\nconst SOME: &[Step] = &[Step::Tick];\n{cell}");
            assert_eq!(faults(&files(point, &table)), Vec::<String>::new(), "{steps}");
        }
    }
}
