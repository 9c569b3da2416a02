//! `bench`: measures what the services cost beside limits in the same run on the same machine. It
//! makes no absolute claims, and no test depends on it.
//!
//! The modules in the order in which a run meets them:
//! - [`cli`]: subcommands and flags;
//! - [`http`], [`process`], [`cpu`]: the measured processes, HTTP connections to them, and their
//!   processor time;
//! - [`records`], [`kafka`]: what is written, and bare rdkafka clients;
//! - [`testbed`]: Kafka, PostgreSQL, topics and programs of a run;
//! - [`schedule`], [`load`], [`turns`]: closed and open loops, in turns;
//! - [`figures`], [`report`], [`plot`]: medians and ratios; the report, and its plots;
//! - [`limits`]: processes that do only what cannot be avoided;
//! - the subcommands.

mod cli;
mod http;
mod process;
mod cpu;
mod records;
mod kafka;
mod testbed;
mod schedule;
mod load;
mod turns;
mod figures;
mod report;
mod plot;
mod limits;
mod send;
mod bulk;
mod read;
mod deliver;
mod streams;
mod stored;
mod restart;
mod syscalls;
mod sweep;

use std::{
    error::Error,
    fmt::Display,
    io::{Write as _, stderr},
    process::ExitCode,
};

use clap::Parser as _;
use service::cli::shutdown;

use cli::{BenchCli, BenchCommand, Measurement, Options};
use report::{BenchReport, Section};
use testbed::Testbed;

/// Result of a measurement. The error's text goes to the terminal as it is.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    match start_runtime(BenchCli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_status(error);
            ExitCode::FAILURE
        }
    }
}

fn start_runtime(cli: BenchCli) -> Result<()> {
    let measurements = match cli.command {
        BenchCommand::Limit(limit) => {
            // As many threads as a service has.
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            return runtime.enable_all().build()?.block_on(limit.run());
        }
        BenchCommand::Plot { folder } => return plot::draw_report(&folder),
        BenchCommand::One(one) => vec![one],
        BenchCommand::All => Measurement::ALL.to_vec(),
    };
    // This thread only starts processes and waits; the load has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let interrupted = shutdown::cancel_on_signal();
        tokio::select! {
            outcome = measure_and_publish(&measurements, cli.options) => outcome,
            // Dropping the measurement ends the processes that it started.
            () = interrupted.cancelled() => Err("interrupted".into()),
        }
    });
    // Do not wait for a loop that blocks its thread: it ends with the process.
    runtime.shutdown_background();
    outcome
}

async fn measure_and_publish(measurements: &[Measurement], options: Options) -> Result<()> {
    let mut report = BenchReport::new(options.quick);
    if !report.release {
        print_status(
            "a debug build: the figures will be worthless. Use cargo run --release -p bench",
        );
    }
    let mut testbed = Testbed::start(options)?;
    let mut outcome = Ok(());
    for measurement in measurements {
        match measure(&mut testbed, *measurement).await {
            Ok(section) => report.sections.push(section),
            // The others are still worth having.
            Err(error) => {
                print_status(format_args!("{measurement:?}: {error}"));
                outcome = Err(error);
            }
        }
    }
    if !report.sections.is_empty() {
        report.publish(testbed.options.out.as_deref())?;
    }
    let cleaned_up = testbed.delete_topics().await;
    outcome.and(cleaned_up)
}

async fn measure(testbed: &mut Testbed, measurement: Measurement) -> Result<Section> {
    match measurement {
        Measurement::Send => send::measure(testbed).await,
        Measurement::Bulk => bulk::measure(testbed).await,
        Measurement::Read => read::measure(testbed).await,
        Measurement::Deliver => deliver::measure(testbed).await,
        Measurement::Streams => streams::measure(testbed).await,
        Measurement::Stored => stored::measure(testbed).await,
        Measurement::Restart => restart::measure(testbed).await,
        Measurement::Syscalls => syscalls::measure(testbed).await,
        Measurement::Sweep => sweep::measure(testbed).await,
    }
}

/// Writes a line of progress or an error to standard error. A closed standard error is ignored.
fn print_status(line: impl Display) {
    let _ = writeln!(stderr(), "bench: {line}");
}
