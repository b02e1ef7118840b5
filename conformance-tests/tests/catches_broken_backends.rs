//! The suite itself is judged: each known defect is caught by the case that is named for it, the sound store
//! passes that case, and the checker of histories finds those defects that show under load.

mod broken;

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_conformance::history::Invariant::{
    self, I1, I2, I3, I4, I5, I6, I8, I9, I10, I11, I12, I13, I14, I15, I17, I18, Linear,
};
use leasehold_conformance::{CannotRun, Case, Harness, Place, Report, case};
use leasehold_core::Backend;
use strum::VariantArray;

use crate::broken::{Defect, Nothing, Ours};

fn named(defect: Defect) -> &'static Case {
    let name = defect.caught_by();
    case(name).unwrap_or_else(|| panic!("there is no case {name}"))
}

/// The clauses that a report says are broken.
fn blamed(how: &str) -> Vec<String> {
    let clauses = how.strip_prefix("breaks ").and_then(|rest| rest.split_once(": "));
    clauses.map_or_else(Vec::new, |(clauses, _)| clauses.split(", ").map(str::to_owned).collect())
}

#[test]
fn each_defect_is_caught_by_the_case_that_is_named_for_it_and_the_clause_is_named() {
    let mut missed = Vec::new();
    for &defect in Defect::VARIANTS {
        let case = named(defect);
        let clause = defect.breaks().to_string();
        match case.judge(Ours::with(defect)) {
            Report::Broken(how)
                if !how.contains("hangs") && !how.contains("panicked") && blamed(&how).contains(&clause) => {}
            other => missed.push(format!("{defect}, which breaks {clause}, by {}: {other:?}", case.name)),
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

/// Opens what another harness opens, and can do nothing else.
struct OpensOnly(Arc<dyn Harness>);

#[async_trait::async_trait]
impl Harness for OpensOnly {
    async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
        self.0.open(place).await
    }
}

#[test]
fn a_store_is_not_believed_to_be_durable_if_nothing_shows_it() {
    let case = named(Defect::ClaimsToBeDurable);
    let report = case.judge(Arc::new(OpensOnly(Ours::with(Defect::ClaimsToBeDurable))));
    let shown = "it says D3, which nothing shows";
    assert!(matches!(&report, Report::Broken(how) if how.contains(shown)), "{report:?}");
    assert_eq!(case.judge(Arc::new(OpensOnly(Ours::sound()))), Report::Kept);
}

const CALM: &str = "keeps_its_word_in_a_storm_of_workers";
const OPERATED: &str = "keeps_its_word_under_operators";

/// The defects that a recorded history shows, the storm in which it does, and one of the invariants by which.
const SEEN_IN_HISTORIES: &[(Defect, &str, &[Invariant])] = &[
    (Defect::LosesOneOfABatch, CALM, &[I1]),
    (Defect::AltersPayloads, CALM, &[I2]),
    (Defect::ReversesPriorities, CALM, &[I2]),
    (Defect::HandsAJobOutTwice, CALM, &[I3]),
    (Defect::HandsAJobOutTwice, CALM, &[Linear]),
    (Defect::RecoversLiveLeases, CALM, &[I3]),
    (Defect::AcceptsAStaleRecovery, CALM, &[I3, I4]),
    (Defect::AcceptsAStaleRenewal, CALM, &[I4]),
    (Defect::AcceptsAStaleRenewal, CALM, &[Linear]),
    (Defect::AcceptsAStaleSettlement, CALM, &[I4]),
    (Defect::AcceptsAStaleSettlement, CALM, &[Linear]),
    (Defect::AcceptsAStaleLogLine, CALM, &[I4]),
    (Defect::RefusesALateHolder, CALM, &[I4]),
    (Defect::AnswersLostToARepeatedSettlement, CALM, &[I4]),
    (Defect::ResurrectsEndedJobs, CALM, &[I5]),
    (Defect::ForgetsAnAttempt, CALM, &[I3, I6]),
    (Defect::GivesBackTheAttemptOfACrash, CALM, &[I3, I6]),
    (Defect::SpendsAttemptsOnRelease, CALM, &[I6]),
    (Defect::CountsNoCrash, CALM, &[I6]),
    (Defect::RetriesTooEarly, CALM, &[I8]),
    (Defect::IgnoresDueTimes, CALM, &[I9]),
    (Defect::GivesInTheWrongOrder, CALM, &[I10]),
    (Defect::ForgetsUniqueKeys, CALM, &[I11]),
    (Defect::HidesACancellation, OPERATED, &[I12]),
    (Defect::ForgetsDeletedJobs, OPERATED, &[I13]),
    (Defect::TellsMoreThanAsked, CALM, &[I14]),
    (Defect::UsesTheCallersClock, CALM, &[I15]),
    (Defect::IgnoresLimits, CALM, &[I17]),
    (Defect::IgnoresPauses, OPERATED, &[I17]),
    (Defect::WritesOverRegisters, CALM, &[I18]),
];

/// A storm leaves much to chance, so each defect has several to show itself in.
const STORMS: usize = 20;

#[test]
fn a_recorded_storm_shows_what_is_wrong() {
    let mut missed = Vec::new();
    for (defect, storm, invariants) in SEEN_IN_HISTORIES {
        let storm = case(storm).unwrap();
        let shows = |how: &str| invariants.iter().any(|one| how.contains(&format!("{one} broken")));
        let mut last = Report::Kept;
        let shown = (0..STORMS).any(|_| {
            last = storm.judge(Ours::with(*defect));
            matches!(&last, Report::Broken(how) if shows(how))
        });
        if !shown {
            missed.push(format!("{defect}, which should show as {invariants:?}: {last:?}"));
        }
    }
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

/// Some of the defects that random sequences show, a few of each kind of call.
const SEEN_IN_SEQUENCES: &[Defect] = &[
    Defect::TakesARetriedEnqueueTwice,
    Defect::ForgetsUniqueKeys,
    Defect::AltersPayloads,
    Defect::ReversesPriorities,
    Defect::IgnoresOwnLeases,
    Defect::MakesEveryLimitAMutex,
    Defect::AcceptsAStaleRenewal,
    Defect::AcknowledgesByIdOnly,
    Defect::RetriesTooEarly,
    Defect::ReleasesToTheEnd,
    Defect::AnswersLostToARepeatedSettlement,
    Defect::RecoversLiveLeases,
    Defect::CountsNoCrash,
    Defect::CancelsARunningJobAtOnce,
    Defect::CancelsWhatWasUnparked,
    Defect::UnparksWhatWaitsForItsRetry,
    Defect::RequeuesWithOldAttempts,
    Defect::DeletesRunningJobs,
    Defect::PrunesTooEarly,
    Defect::SkipsAJobBetweenPages,
    Defect::CountsTheScheduledAsQueued,
    Defect::FiresTicksEarly,
];

#[test]
fn random_sequences_show_what_is_wrong_in_few_steps() {
    const FEW: usize = 20;
    let sequences = case("answers_as_the_reference_does").unwrap();
    let mut missed = Vec::new();
    for defect in SEEN_IN_SEQUENCES {
        match sequences.judge(Ours::with(*defect)) {
            Report::Broken(how) if steps_left(&how).is_some_and(|steps| steps <= FEW) => {}
            other => missed.push(format!("{defect}: {other:?}")),
        }
    }
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

/// How many steps are left of the sequence that a report shows.
fn steps_left(how: &str) -> Option<usize> {
    how.split_once("alone, of which ")?.1.split_whitespace().next()?.parse().ok()
}

#[test]
fn a_storm_over_the_sound_store_shows_nothing() {
    for name in
        [CALM, "keeps_its_word_while_answers_are_lost", "keeps_its_word_while_calls_are_dropped", OPERATED]
    {
        for _ in 0..5 {
            assert_eq!(case(name).unwrap().judge(Ours::sound()), Report::Kept, "{name}");
        }
    }
}

/// What a store that keeps nothing may rightly pass, beside what judges the client's side: it asks for nothing to be
/// kept.
const EMPTY_HANDED: &[&str] =
    &["tells_its_durability", "takes_an_empty_batch", "shows_an_empty_log_where_there_is_none"];

#[test]
fn a_store_that_keeps_nothing_passes_no_case() {
    let nothing: Arc<dyn Harness> = Arc::new(Nothing);
    let passed: Vec<&str> = leasehold_conformance::cases()
        .filter(|case| !case.clients_side && case.judge(Arc::clone(&nothing)) == Report::Kept)
        .map(|case| case.name)
        .collect();
    assert_eq!(passed, EMPTY_HANDED);
}
