//! What a guide shows of a file is in that file.

use std::path::Path;

use crate::run::{Trouble, root};

/// Finds what guides show of files and is not there. A fence that begins with a language and `file=PATH` shows some lines
/// of that file in a row, in whatever indentation.
pub(crate) fn excerpts(faults: &mut Vec<String>) -> Result<(), Trouble> {
    for entry in std::fs::read_dir(root().join("docs/guide"))? {
        let guide = entry?.path();
        let text = std::fs::read_to_string(&guide)?;
        for (file, lines) in shown(&text) {
            let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            if !occurs(&lines, &source) {
                let name = guide.strip_prefix(root()).unwrap_or(Path::new("")).display();
                let first = lines.first().unwrap_or(&"");
                faults.push(format!("{name}: {file} has no such lines as those from {first:?} on"));
            }
        }
    }
    Ok(())
}

/// The files of which a guide shows something, and what.
fn shown(guide: &str) -> Vec<(&str, Vec<&str>)> {
    let mut found = Vec::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        let fence = line.strip_prefix("```").and_then(|fence| fence.split_once(" file="));
        if let Some((_, file)) = fence {
            found.push((file, lines.by_ref().take_while(|line| *line != "```").collect()));
        }
    }
    found
}

fn occurs(lines: &[&str], source: &str) -> bool {
    let trimmed = |lines: &[&str]| lines.iter().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
    let (wanted, source) = (trimmed(lines), trimmed(&source.lines().collect::<Vec<_>>()));
    !wanted.is_empty() && source.windows(wanted.len()).any(|part| part == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_shown() {
        let guide =
            "text\n```rust file=a.rs\nlet a = 1;\n```\n```sh\nls\n```\n```toml file=a.toml\na = 1\n```\n";
        assert_eq!(shown(guide), [("a.rs", vec!["let a = 1;"]), ("a.toml", vec!["a = 1"])]);
    }

    #[test]
    fn lines_occur_in_a_row_or_not_at_all() {
        let source = "fn f() {\n    a();\n\n    b();\n}\n";
        assert!(occurs(&["a();", "", "b();"], source));
        for other in [&["a();", "b();"][..], &["c();"], &[]] {
            assert!(!occurs(other, source), "{other:?}");
        }
    }
}
