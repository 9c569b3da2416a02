//! The program `standalone`.

use std::process::ExitCode;

use service::cli::program;
use standalone::settings::StandaloneCli;
use tikv_jemallocator::Jemalloc;

/// Replaces `malloc` as well, which librdkafka and SQLite call. Measured: docs/performance.md.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    program::run_program("standalone", |cli: &StandaloneCli| &cli.shared, standalone::run)
}
