//! Which clauses each backend keeps, and what it can do: tables made of what the conformance runs wrote down.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_conformance::{Case, Clause, Line, Report, cases, read_reports};
use leasehold_core::backend::{Capabilities, Durability};
use strum::{EnumMessage, VariantArray};

use crate::MatrixOptions;
use crate::run::{Trouble, root};
use crate::test::{judge, reports};

/// A backend of this workspace.
struct Backend {
    /// What it calls itself.
    name: &'static str,
    url: &'static str,
    feature: &'static str,
    /// The kinds of servers that it is judged on: as its harness calls them, and as readers are told.
    on: &'static [(&'static str, &'static str)],
}

/// Every backend that is judged.
const BACKENDS: &[Backend] = &[
    Backend { name: "memory", url: "`memory:`", feature: "`memory` (default)", on: &[("", "memory")] },
    Backend { name: "sqlite", url: "`sqlite:FILE`", feature: "`sqlite` (default)", on: &[("", "SQLite")] },
    Backend {
        name: "mongo",
        url: "`mongodb://HOSTS/DB`",
        feature: "`mongo`",
        on: &[
            ("three_nodes", "MongoDB, three nodes"),
            ("one_node", "MongoDB, replica set of one"),
            ("standalone", "MongoDB, standalone"),
        ],
    },
    Backend {
        name: "postgres",
        url: "`postgres://HOST/DB`",
        feature: "`postgres`",
        on: &[("", "PostgreSQL")],
    },
    Backend { name: "redis", url: "`redis://HOST`", feature: "`redis`", on: &[("", "Redis")] },
    Backend { name: "files", url: "none", feature: "none: an example", on: &[("", "plain files")] },
];

/// The page that is made as a whole, and how it begins.
const PAGE: &str = "docs/matrix.md";
const HEAD: &str = "# What each store keeps

`cargo xtask matrix` writes this page from runs of the conformance suite; `cargo xtask test` fails when it is stale.

Beside a clause of [the contract](contract.md) stands ✓ and how many cases prove it on a store. What a store cannot keep
it says in its capabilities, and the suite reports the cases as *not supported*: then it is so many of how many, and why.
Cases that judge the client's side of a call alone, which is the same before every store, run with the others and are not
counted here.
";

/// A page that must have the table of stores; others may.
const README: &str = "README.md";

/// What stands around the table of stores in other pages. Between the first two may stand the name of a backend, for its
/// rows alone.
const BEGIN: &str = "<!-- matrix:begin";
const CLOSE: &str = "-->\n";
const END: &str = "<!-- matrix:end -->";

/// Prints the tables, and writes the pages in which they stand or says that these are stale.
pub(crate) fn matrix(options: &MatrixOptions) -> Result<(), Trouble> {
    if !options.last {
        crate::servers::servers()?;
        judge(&[vec!["test", "--workspace", "--all-features", "--test", "conformance"]])?;
    }
    let lines = read_reports(reports())?;
    let matrix = Matrix::new(&lines)?;
    println!("{}", matrix.clauses()?);
    let mut stale = Vec::new();
    for (page, wanted) in matrix.pages()? {
        let path = root().join(&page);
        if std::fs::read_to_string(&path).unwrap_or_default() == wanted {
            continue;
        }
        if !options.check {
            std::fs::write(path, wanted)?;
            eprintln!("written: {page}");
        }
        stale.push(page);
    }
    if options.check && !stale.is_empty() {
        let stale = stale.join(", ");
        return Err(format!("stale: {stale}; `cargo xtask matrix --last` writes what this run found").into());
    }
    Ok(())
}

/// What is known of all backends.
struct Matrix<'a>(Vec<Column<'a>>);

/// What is known of a backend on one kind of server.
struct Column<'a> {
    of: &'static Backend,
    title: &'static str,
    capabilities: Capabilities,
    reports: BTreeMap<&'a str, &'a Report>,
}

impl<'a> Matrix<'a> {
    fn new(lines: &'a [Line]) -> Result<Self, Trouble> {
        for line in lines {
            let on = |of: &Backend| of.on.iter().any(|(on, _)| *on == line.server);
            let known = |name: &str| BACKENDS.iter().any(|of| of.name == name && on(of));
            let name = line.backend.as_ref().map(|backend| backend.backend.as_str());
            let went_wrong = matches!(line.report, Report::Broken(_) | Report::CannotRun(_));
            if went_wrong || !name.is_some_and(known) {
                return Err(format!("a line of no use, or of a backend that is no column: {line:?}").into());
            }
        }
        let kinds = BACKENDS.iter().flat_map(|of| of.on.iter().map(move |(on, title)| (of, on, title)));
        kinds.map(|(of, on, title)| Column::new(lines, of, on, title)).collect::<Result<_, _>>().map(Self)
    }

    /// The table of clauses.
    fn clauses(&self) -> Result<String, Trouble> {
        let titles = self.0.iter().map(|column| column.title.to_owned());
        let mut judged = table([vec!["clause".to_owned()], titles.collect()].concat());
        for (clause, title) in Clause::VARIANTS.iter().zip(titles_of_clauses()?) {
            let proving: Vec<&Case> = proving(*clause).collect();
            if proving.is_empty() {
                return Err(format!("no case judges {title}").into());
            }
            let cells = self.0.iter().map(|column| column.keeps(&proving));
            judged += &row([vec![title], cells.collect()].concat());
        }
        Ok(format!("## Clauses\n\n{judged}"))
    }

    /// The table of what the stores can do: of one backend, if it is named.
    fn stores(&self, of: &str) -> String {
        let head = [
            "store",
            "URL",
            "feature",
            "durability",
            "batches",
            "your transaction",
            "events",
            "limit keys",
            "counts",
            "clock",
        ];
        let columns = self.0.iter().filter(|column| of.is_empty() || column.of.name == of);
        let rows = columns.map(|column| row(column.can().map(str::to_owned)));
        table(head.map(str::to_owned)) + &rows.collect::<String>()
    }

    /// The pages in which tables stand, as they should be.
    fn pages(&self) -> Result<Vec<(String, String)>, Trouble> {
        let whole = format!("{HEAD}\n{}\n## Stores\n\n{}", self.clauses()?, self.stores(""));
        let mut pages = vec![(PAGE.to_owned(), whole)];
        let mut names = vec![README.to_owned()];
        for entry in std::fs::read_dir(root().join("docs/guide"))? {
            names.push(format!("docs/guide/{}", entry?.file_name().display()));
        }
        names.sort();
        for name in names.into_iter().filter(|name| name.ends_with(".md")) {
            let text = std::fs::read_to_string(root().join(&name))?;
            if name == README && !text.contains(BEGIN) {
                return Err(
                    format!("{name} has no `{BEGIN} {CLOSE}`, where the table of stores belongs").into()
                );
            }
            let filled = self.filled(&text).ok_or_else(|| format!("{name}: a table of stores has no end"))?;
            pages.push((name, filled));
        }
        Ok(pages)
    }

    /// A page with its tables of stores filled in.
    fn filled(&self, mut page: &str) -> Option<String> {
        let mut filled = String::new();
        while let Some((before, after)) = page.split_once(BEGIN) {
            let (of, after) = after.split_once(CLOSE)?;
            let (_, after) = after.split_once(END)?;
            filled.extend([before, BEGIN, of, CLOSE, &self.stores(of.trim()), END]);
            page = after;
        }
        Some(filled + page)
    }
}

impl<'a> Column<'a> {
    fn new(lines: &'a [Line], of: &'static Backend, on: &str, title: &'static str) -> Result<Self, Trouble> {
        let mut capabilities = None;
        let mut reports = BTreeMap::new();
        for line in lines.iter().filter(|line| line.server == on) {
            if let Some(backend) = line.backend.as_ref().filter(|backend| backend.backend == of.name) {
                capabilities = Some(backend.capabilities);
                reports.insert(line.case.as_str(), &line.report);
            }
        }
        if let Some(missing) = cases().find(|case| !reports.contains_key(case.name)) {
            return Err(format!("{title}: nobody has judged {}", missing.full_name()).into());
        }
        let capabilities = capabilities.ok_or_else(|| format!("{title} was not judged"))?;
        Ok(Self { of, title, capabilities, reports })
    }

    /// How many of the cases it keeps, and why not the others.
    fn keeps(&self, proving: &[&Case]) -> String {
        let mut reasons = BTreeSet::new();
        for report in proving.iter().filter_map(|case| self.reports.get(case.name)) {
            if let Report::NotSupported(why) = report {
                reasons.insert(why.trim_start_matches("not supported: "));
            }
        }
        let is_kept = |case: &&&Case| self.reports.get(case.name) == Some(&&Report::Kept);
        let (all, kept) = (proving.len(), proving.iter().filter(is_kept).count());
        let why = reasons.into_iter().collect::<Vec<_>>().join("; ");
        match kept {
            kept if kept == all => format!("✓ {all}"),
            0 => format!("no: {why}"),
            _ => format!("{kept} of {all}: {why}"),
        }
    }

    /// Its row in the table of stores.
    fn can(&self) -> [&'static str; 10] {
        let can = &self.capabilities;
        let either = |can: bool, this: &'static str, that: &'static str| if can { this } else { that };
        [
            self.title,
            self.of.url,
            self.of.feature,
            match can.durability {
                Durability::D0 => "D0: gone with the process",
                Durability::D1 => "D1: survives the crash of any process",
                Durability::D2 => "D2: survives the loss of power",
                Durability::D3 => "D3: survives the loss of any minority of nodes",
            },
            either(can.atomic_batch, "all or nothing", "job by job"),
            either(can.transactions, "yes", "no"),
            match (can.events, can.shared_events) {
                (true, true) => "across processes",
                (true, false) => "within the process",
                (false, _) => "none",
            },
            either(can.strict_limits, "strict", "may be exceeded by claims at the same moment"),
            either(can.exact_counts, "of one moment", "not of one moment while jobs move"),
            either(can.own_clock, "its own", "that of the client's machine"),
        ]
    }
}

/// The cases that prove a clause on a store.
fn proving(clause: Clause) -> impl Iterator<Item = &'static Case> {
    cases().filter(move |case| case.clauses.contains(&clause) && !case.clients_side)
}

/// The clauses as the contract has them, in its order, with their names; one that has none there has that of the code.
fn titles_of_clauses() -> Result<Vec<String>, Trouble> {
    let contract = std::fs::read_to_string(root().join("docs/contract.md"))?;
    let letters: BTreeSet<_> = Clause::VARIANTS.iter().map(|clause| clause.to_string().remove(0)).collect();
    let heads = contract.lines().filter_map(|line| Some(line.strip_prefix("- **")?.split_once("**")?.0));
    let heads: Vec<_> = heads.filter(|head| head.starts_with(|c| letters.contains(&c))).collect();
    let names: Vec<_> = heads.iter().map(|head| head.split_once(' ').unwrap_or((head, ""))).collect();
    if !names
        .iter()
        .map(|(clause, _)| (*clause).to_owned())
        .eq(Clause::VARIANTS.iter().map(Clause::to_string))
    {
        return Err("the clauses in docs/contract.md and in the suite are not the same".into());
    }
    let named = |(clause, &(number, name)): (&Clause, &(&str, &str))| {
        let name = if name.is_empty() { clause.get_documentation().unwrap_or_default() } else { name };
        format!("{number} {}", name.trim_end_matches('.'))
    };
    Ok(Clause::VARIANTS.iter().zip(&names).map(named).collect())
}

/// A table's head. Cells are not filled up to one width, so that another cell is another line and no more.
fn table(head: impl AsRef<[String]>) -> String {
    let head = head.as_ref();
    row(head) + &format!("|{}\n", "---|".repeat(head.len()))
}

fn row(cells: impl AsRef<[String]>) -> String {
    format!("| {} |\n", cells.as_ref().join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(report: impl Fn(usize) -> Report) -> Vec<Line> {
        let kinds = BACKENDS.iter().flat_map(|of| of.on.iter().map(move |(on, _)| (of.name, *on)));
        let of = |(name, on): (&str, &str)| {
            let capabilities = Capabilities::none(Durability::D1);
            let line = |(i, case): (usize, &Case)| {
                serde_json::from_value(serde_json::json!({
                    "server": on,
                    "backend": {"backend": name, "version": "", "location": "", "capabilities": capabilities},
                    "area": case.area(), "case": case.name, "clauses": case.clauses, "report": report(i),
                }))
                .expect("a line")
            };
            cases().enumerate().map(line).collect::<Vec<Line>>()
        };
        kinds.flat_map(of).collect()
    }

    #[test]
    fn the_contract_and_the_suite_have_the_same_clauses() {
        let titles = titles_of_clauses().expect("the contract");
        assert_eq!((titles[0].as_str(), titles.len()), ("P1 Durable", Clause::VARIANTS.len()));
    }

    #[test]
    fn a_cell_says_how_much_is_kept_and_why_not_more() {
        let first =
            |i: usize| if i == 0 { Report::NotSupported("not supported: no".into()) } else { Report::Kept };
        let lines = lines(first);
        let matrix = Matrix::new(&lines).expect("a matrix");
        let proving: Vec<&Case> = cases().take(3).collect();
        let keeps = |n: std::ops::Range<usize>| matrix.0[0].keeps(&proving[n]);
        assert_eq!(
            (keeps(0..1), keeps(0..3), keeps(1..3)),
            ("no: no".into(), "2 of 3: no".into(), "✓ 2".into())
        );
    }

    #[test]
    fn what_judges_the_client_counts_for_no_store() {
        let apart: Vec<&Case> = cases().filter(|case| case.clients_side).collect();
        assert!(!apart.is_empty());
        for clause in Clause::VARIANTS {
            assert!(proving(*clause).count() > 0, "nothing but the client proves {clause}");
            assert!(proving(*clause).all(|case| apart.iter().all(|other| other.name != case.name)));
        }
    }

    #[test]
    fn what_was_not_judged_or_went_wrong_makes_no_table() {
        let mut missing = lines(|_| Report::Kept);
        missing.pop();
        let broken = lines(|i| if i == 7 { Report::Broken("so".into()) } else { Report::Kept });
        for lines in [missing, broken, Vec::new()] {
            assert!(Matrix::new(&lines).is_err());
        }
    }

    #[test]
    fn a_page_is_filled_between_its_marks_alone() {
        let lines = lines(|_| Report::Kept);
        let matrix = Matrix::new(&lines).expect("a matrix");
        let page = |table: &str| format!("a\n{BEGIN} sqlite {CLOSE}{table}{END}\nb\n");
        let filled = matrix.filled(&page("old\n")).expect("an end");
        assert_eq!(filled, page(&matrix.stores("sqlite")));
        assert_eq!(filled.matches("D1").count(), 1);
        assert_eq!(matrix.filled("<!-- matrix:begin -->\n"), None);
    }
}
