//! The law of the Leasehold job queue: what every backend has to do, and how it is found out.
//!
//! One behaviour of the [contract](leasehold_core::backend) is one [`Case`], with the clauses that it proves and
//! a name that completes "a backend ...": `gives_each_job_to_one_worker`. To have a backend judged, ours or
//! yours, write a [`Harness`], a method that opens it on a clock which the cases move, and call [`main`] from a
//! test target with `harness = false`:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//!
//! ```no_run
//! use std::collections::HashMap;
//! use std::process::ExitCode;
//! use std::sync::{Arc, Mutex};
//!
//! use leasehold_conformance::{CannotRun, Harness, Place};
//! use leasehold_core::Backend;
//! use leasehold_memory::Memory;
//!
//! /// Opening a store in memory again is cloning it, so the stores are kept by place.
//! #[derive(Default)]
//! struct InMemory(Mutex<HashMap<String, Memory>>);
//!
//! #[async_trait::async_trait]
//! impl Harness for InMemory {
//!     async fn open(&self, place: &Place) -> Result<Arc<dyn Backend>, CannotRun> {
//!         let mut stores = self.0.lock().map_err(|_| CannotRun::missing("the map of stores"))?;
//!         let make = || place.clock.clone().map_or_else(Memory::new, Memory::on_clock);
//!         Ok(Arc::new(stores.entry(place.name.clone()).or_insert_with(make).clone()))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     leasehold_conformance::main(InMemory::default())
//! }
//! ```
//!
//! No case names a store, reads the host's clock or sleeps: time passes when a case moves the clock. A case that
//! needs more than the store's [`Capabilities`](leasehold_core::backend::Capabilities) is reported as ignored,
//! with the reason; what this machine lacks is reported in the same way, and fails in a [`STRICT`] run. Who wants to
//! know case by case how a run went sets [`REPORT`]. The history of a storm that broke something is kept: see [`KEEP`].
//!
//! Where a store can be reached from several processes, [`Harness::elsewhere`] says how, and the cases start this very
//! program again, to kill, freeze and skew it. With the feature `failpoints` they also end a process at each
//! [`CutPoint`]: those of the core, and those that the backend marks by
//! [`fail_point!`](leasehold_core::fail_point) and names in [`Harness::cut_points`].
//!
//! In reading order: `cases` holds the tables and the cases, area by area; `bench` the verbs that they are
//! written in; `processes` what is done with several processes.

mod case;
mod clause;
mod harness;
mod keep;
mod options;
mod report;
mod run;

mod bench;
pub mod history;

mod breach;
mod cases;
mod model;
mod processes;

pub use case::{CASE_BOUND, Case, Report};
pub use clause::{Clause, Need};
pub use harness::{CannotRun, Far, Harness, Place, Reach};
pub use keep::KEEP;
pub use options::{CASES, ENOUGH_TICKS, FLOW, FLOW_JOBS, SEED, SEQUENCES, TICKS};
pub use processes::{CutPoint, Effect, Skew, Step};
pub use report::{Line, REPORT, read_reports};
pub use run::{STRICT, main, main_on};

/// Every case, in the order of the contract.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    cases::TABLES.iter().copied().flatten()
}

/// The case of this name, such as `gives_each_job_to_one_worker`.
pub fn case(name: &str) -> Option<&'static Case> {
    cases().find(|case| case.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strum::VariantArray;

    use super::*;

    #[test]
    fn every_clause_has_a_case() {
        for clause in Clause::VARIANTS {
            assert!(cases().any(|case| case.clauses.contains(clause)), "no case judges {clause}");
        }
    }

    #[test]
    fn every_case_has_a_name_of_its_own_and_a_sentence() {
        let names: BTreeSet<_> = cases().map(|case| case.name).collect();
        assert_eq!(names.len(), cases().count());
        for case in cases() {
            assert!(case.sentence.ends_with('.'), "{}: {:?}", case.name, case.sentence);
            assert!(!case.full_name().contains(char::is_whitespace), "{}", case.full_name());
        }
    }

    #[test]
    fn a_case_is_found_by_its_name() {
        let found = case("gives_each_job_to_one_worker").map(Case::full_name);
        assert_eq!(found.as_deref(), Some("consuming::gives_each_job_to_one_worker[C1]"));
    }
}
