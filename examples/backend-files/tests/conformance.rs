//! The law, judged on folders.

mod harness;

fn main() -> std::process::ExitCode {
    leasehold_conformance::main(harness::InFolders::new())
}
