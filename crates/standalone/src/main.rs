//! The program `standalone`.

use std::process::ExitCode;

use service::cli::program;
use standalone::settings::StandaloneCli;

fn main() -> ExitCode {
    program::run_program("standalone", |cli: &StandaloneCli| &cli.shared, standalone::run)
}
