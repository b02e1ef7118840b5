//! What our pages point at is there: files, headings, and the tests that the guide names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::run::{Trouble, root};

/// The page whose tables name tests, and in which column, from 0.
const NAMES: (&str, usize) = ("docs/guide/features.md", 3);

/// Finds links to files and headings that are not there, and names of tests that no source has. `sources` are the files
/// of code, by path.
pub(crate) fn links<'a>(sources: &'a [(String, String)], faults: &mut Vec<String>) -> Result<(), Trouble> {
    let mut pages = BTreeMap::new();
    let root = root().canonicalize()?;
    for entry in ignore::Walk::new(&root) {
        let path = entry?.into_path();
        if path.extension().is_some_and(|extension| extension == "md") && path.is_file() {
            let text = std::fs::read_to_string(&path)?;
            pages.insert(path, text);
        }
    }
    for (page, text) in &pages {
        let shown = page.strip_prefix(&root).unwrap_or(page).display();
        let dead = targets(text).into_iter().filter(|target| !is_there(page, target, &pages));
        faults.extend(dead.map(|target| format!("{shown}: nothing is at {target}")));
    }
    let (page, column) = NAMES;
    let guide = pages.get(&root.join(page)).map_or("", String::as_str);
    let declared = |(file, text): &'a (String, String)| functions(text).map(|name| (name, file.as_str()));
    let known: BTreeSet<(&str, &str)> = sources.iter().flat_map(declared).collect();
    let missing = names(guide, column).into_iter().filter(|name| !is_declared(name, &known));
    faults.extend(missing.map(|name| format!("{page}: no test is called {name}")));
    Ok(())
}

/// Whether a link of a page leads somewhere. What is on other hosts is not looked at.
fn is_there(page: &Path, target: &str, pages: &BTreeMap<PathBuf, String>) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { page.to_owned() } else { page.with_file_name("").join(file) };
    let Ok(path) = path.canonicalize() else { return false };
    heading.is_empty() || pages.get(&path).is_some_and(|text| headings(text).any(|known| known == heading))
}

/// The lines of a page that are not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// What a page links to.
fn targets(text: &str) -> Vec<&str> {
    prose(text)
        .flat_map(|line| line.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)))
        .collect()
}

/// The headings of a page, as links name them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let named = |heading: &str| {
        let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    prose(text).filter(|line| line.starts_with('#')).map(move |line| named(line.trim_start_matches('#')))
}

/// Whether there is such a test: `file::test`, or the bare name of a case of the conformance suite.
fn is_declared(name: &str, known: &BTreeSet<(&str, &str)>) -> bool {
    let (module, name) = name.split_once("::").unwrap_or(("conformance-tests/src/cases", name));
    let within = |file: &str| {
        format!("/{file}").contains(&format!("/{module}/")) || file.ends_with(&format!("/{module}.rs"))
    };
    known.iter().any(|(known, file)| *known == name && within(file))
}

/// The code in a column of a page's tables.
fn names(text: &str, column: usize) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text).filter(|line| line.starts_with('|')) {
        let line = line.replace("\\|", "");
        let code =
            line.split('|').nth(column + 1).into_iter().flat_map(|cell| cell.split('`').skip(1).step_by(2));
        found.extend(code.map(str::to_owned));
    }
    found
}

/// The functions that a source declares.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.split("fn ").skip(1).filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "# A *page*, with `code`\nsee [a](b.md#c) and [d](e)\n```\n[x](y)\n```\n| n | `a::b` | `c`, `d` |\n";

    #[test]
    fn finds_links_headings_and_names() {
        assert_eq!(targets(PAGE), ["b.md#c", "e"]);
        assert_eq!(headings(PAGE).collect::<Vec<_>>(), ["a-page-with-code"]);
        assert_eq!(names(PAGE, 1), ["a::b"]);
        assert_eq!(names(PAGE, 2), ["c", "d"]);
        assert_eq!(functions("async fn a() {}\npub fn b<T>()").collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_test_is_in_the_file_that_it_is_said_to_be_in() {
        let known = BTreeSet::from([
            ("a", "core/tests/b.rs"),
            ("c", "core/tests/d/e.rs"),
            ("f", "conformance-tests/src/cases/g.rs"),
        ]);
        for good in ["b::a", "d::c", "e::c", "f"] {
            assert!(is_declared(good, &known), "{good}");
        }
        for bad in ["a", "b::c", "d::f", "x"] {
            assert!(!is_declared(bad, &known), "{bad}");
        }
    }

    #[test]
    fn a_link_leads_to_a_file_or_a_heading_or_nowhere() {
        let page = root().join("README.md");
        let pages = BTreeMap::from([(page.canonicalize().unwrap_or(page.clone()), PAGE.to_owned())]);
        for good in [
            "docs/contract.md",
            "#a-page-with-code",
            "README.md#a-page-with-code",
            "https://nowhere.example/",
        ] {
            assert!(is_there(&page, good, &pages), "{good}");
        }
        for bad in ["docs/none.md", "#none", "README.md#none"] {
            assert!(!is_there(&page, bad, &pages), "{bad}");
        }
    }
}
