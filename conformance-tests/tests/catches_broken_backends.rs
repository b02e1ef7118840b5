//! The suite itself is judged: each known defect is caught by the case that is named for it, the sound store
//! passes that case, and the checker of histories finds those defects that show under load.

mod broken;

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_conformance::history::Invariant::{self, I1, I2, I3, I4, I5, I6, I8, I9};
use leasehold_conformance::{Case, Harness, Report, case};
use strum::VariantArray;

use crate::broken::{Defect, Nothing, Ours};

fn named(defect: Defect) -> &'static Case {
    let name = defect.caught_by();
    case(name).unwrap_or_else(|| panic!("there is no case {name}"))
}

#[test]
fn each_defect_is_caught_by_the_case_that_is_named_for_it() {
    let mut missed = Vec::new();
    for &defect in Defect::VARIANTS {
        let case = named(defect);
        match case.judge(Ours::with(defect)) {
            Report::Broken(how) if !how.contains("hangs") && !how.contains("panicked") => {}
            other => missed.push(format!("{defect} by {}: {other:?}", case.name)),
        }
    }
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

#[test]
fn the_sound_store_passes_those_cases() {
    let names: BTreeSet<_> = Defect::VARIANTS.iter().map(|defect| defect.caught_by()).collect();
    assert_eq!(names.len(), Defect::VARIANTS.len(), "each defect has a case of its own");
    for name in names {
        let report = case(name).unwrap().judge(Ours::sound());
        assert_eq!(report, Report::Kept, "{name}");
    }
}

/// The defects that a recorded history shows, and one of the invariants by which it does.
const SEEN_IN_HISTORIES: &[(Defect, &[Invariant])] = &[
    (Defect::LosesOneOfABatch, &[I1]),
    (Defect::AltersPayloads, &[I2]),
    (Defect::ReversesPriorities, &[I2]),
    (Defect::HandsAJobOutTwice, &[I3]),
    (Defect::RecoversLiveLeases, &[I3]),
    (Defect::AcceptsAStaleRecovery, &[I3, I4]),
    (Defect::AcceptsAStaleRenewal, &[I4]),
    (Defect::AcceptsAStaleSettlement, &[I4]),
    (Defect::AcceptsAStaleLogLine, &[I4]),
    (Defect::RefusesALateHolder, &[I4]),
    (Defect::AnswersLostToARepeatedSettlement, &[I4]),
    (Defect::ResurrectsEndedJobs, &[I5]),
    (Defect::ForgetsAnAttempt, &[I3, I6]),
    (Defect::GivesBackTheAttemptOfACrash, &[I3, I6]),
    (Defect::RetriesTooEarly, &[I8]),
    (Defect::IgnoresDueTimes, &[I9]),
];

/// A storm leaves much to chance, so each defect has several to show itself in.
const STORMS: usize = 6;

#[test]
fn a_recorded_storm_shows_what_is_wrong() {
    let storm = case("keeps_its_word_in_a_storm_of_workers").unwrap();
    let mut missed = Vec::new();
    for (defect, invariants) in SEEN_IN_HISTORIES {
        let shows = |how: &str| invariants.iter().any(|one| how.contains(&format!("{one} broken")));
        let reports: Vec<Report> = (0..STORMS).map(|_| storm.judge(Ours::with(*defect))).collect();
        let shown = reports.iter().any(|report| matches!(report, Report::Broken(how) if shows(how)));
        if !shown {
            missed.push(format!("{defect}, which should show as {invariants:?}: {:?}", reports[0]));
        }
    }
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

#[test]
fn a_storm_over_the_sound_store_shows_nothing() {
    for name in [
        "keeps_its_word_in_a_storm_of_workers",
        "keeps_its_word_while_answers_are_lost",
        "keeps_its_word_while_calls_are_dropped",
        "keeps_its_word_under_operators",
    ] {
        for _ in 0..5 {
            assert_eq!(case(name).unwrap().judge(Ours::sound()), Report::Kept, "{name}");
        }
    }
}

/// What a store that keeps nothing may rightly pass: it asks for nothing to be kept.
const EMPTY_HANDED: &[&str] =
    &["tells_its_durability", "takes_an_empty_batch", "shows_an_empty_log_where_there_is_none"];

#[test]
fn a_store_that_keeps_nothing_passes_no_case() {
    let nothing: Arc<dyn Harness> = Arc::new(Nothing);
    let passed: Vec<&str> = leasehold_conformance::cases()
        .filter(|case| !matches!(case.judge(Arc::clone(&nothing)), Report::Broken(_)))
        .map(|case| case.name)
        .collect();
    assert_eq!(passed, EMPTY_HANDED);
}
