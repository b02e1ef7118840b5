//! What the MongoDB backend is meant to reach, beside what it reached.

use crate::report::{Report, Row};
use crate::stores::Kind;
use crate::workloads::Name;

pub(crate) const HEAD: [&str; 4] = ["aim", "where", "reached", "met"];

/// One line for each aim and each place where the run measured it.
pub(crate) fn judge(report: &Report) -> Vec<[String; 4]> {
    let rows: Vec<&Row> = report.rows.iter().filter(|row| row.kind == Kind::Mongo).collect();
    let mut lines = Vec::new();
    for row in rows.iter().filter(|row| row.name == Name::EndToEnd && row.batch >= 100) {
        let place = format!("{}, {} claimers, batches of {}", row.case, row.claimers, row.batch);
        if let Some(times) = row.of_naive() {
            lines.push(least("30 x the naive loop", &place, times, 30.0));
        }
        if let Some(share) = row.of_limit() {
            let (aim, share_wanted) =
                if row.batch >= 500 { ("0.55 of the limit", 0.55) } else { ("0.35 of the limit", 0.35) };
            lines.push(least(aim, &place, share, share_wanted));
        }
    }
    lines.extend(rows.iter().filter_map(|many| crowded(&rows, many)));
    for row in rows.iter().filter(|row| {
        row.name == Name::Flat && row.case.starts_with("flat claim") && row.case.ends_with("wait")
    }) {
        if let Some(cost) =
            row.of_limit().filter(|_| !row.case.contains(" 1,000 wait")).map(|speed| 1.0 / speed)
        {
            let place = format!("{}, batches of {}", row.case, row.batch);
            lines.push(most("claims cost 1.3 x those with 1,000 waiting", &place, cost, 1.3));
        }
    }
    for row in rows.iter().filter(|row| row.name == Name::Idle && !row.case.contains(" 0 ")) {
        if let Some(speed) = row.of_limit() {
            lines.push(least("0.95 of the speed alone", &row.case, speed, 0.95));
        }
    }
    for wait in report.waits.iter().filter(|wait| wait.kind == Kind::Mongo) {
        lines.push(most("5 ms at the median", "wake", wait.millis(0.5), 5.0));
        lines.push(most("25 ms at the 99th percentile", "wake", wait.millis(0.99), 25.0));
    }
    for asked in report.asked.iter().filter(|asked| asked.kind == Kind::Mongo) {
        lines.push(most("1 query per poll interval", "idle", asked.per_second(), 1.0));
    }
    lines
}

/// Many claimers are together no slower than four.
fn crowded(rows: &[&Row], many: &Row) -> Option<[String; 4]> {
    let rounds = [Name::ClaimSettle, Name::EndToEnd].contains(&many.name);
    let same = |row: &&&Row| row.name == many.name && row.batch == many.batch && row.claimers == 4;
    let few = rows.iter().find(same).filter(|_| rounds && many.claimers >= 64)?;
    let ratio = many.sample.jobs_per_second() / few.sample.jobs_per_second();
    let place = format!("{}, {} claimers, batches of {}", many.case, many.claimers, many.batch);
    Some(least("1.0 of the speed of 4 claimers", &place, ratio, 1.0))
}

fn least(aim: &str, place: &str, reached: f64, wanted: f64) -> [String; 4] {
    line(&format!("at least {aim}"), place, reached, reached >= wanted, wanted)
}

fn most(aim: &str, place: &str, reached: f64, wanted: f64) -> [String; 4] {
    line(&format!("at most {aim}"), place, reached, reached <= wanted, wanted)
}

fn line(aim: &str, place: &str, reached: f64, met: bool, wanted: f64) -> [String; 4] {
    let met = if met { "yes".to_owned() } else { format!("no: {:.2} of it", reached / wanted) };
    [aim.to_owned(), place.to_owned(), format!("{reached:.2}"), met]
}
