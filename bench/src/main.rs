//! Measures the stores of this workspace: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    leasehold_bench::main_on_ours()
}
