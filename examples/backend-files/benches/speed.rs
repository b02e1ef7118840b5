//! How fast it is, beside the store in memory: `cargo bench -p leasehold-backend-files -- --quick`.

#[path = "../tests/harness/mod.rs"]
mod harness;

fn main() -> std::process::ExitCode {
    leasehold_bench::main(harness::InFolders::new())
}
