//! `bench`: measures the services beside a limit in the same run on the same machine, and reports
//! ratios. It makes no absolute claims, and no test depends on it.
//!
//! The modules in the order in which a run meets them:
//! - [`cli`], [`options`]: subcommands and flags;
//! - [`http`], [`process`]: the measured processes, and HTTP connections to them;
//! - [`records`], [`kafka`]: what is written, and bare rdkafka clients;
//! - [`testbed`], [`fill`]: Kafka, PostgreSQL, topics and programs of a run;
//! - [`meter`], [`schedule`], [`load`], [`loops`]: closed and open loops, in turns;
//! - [`figures`], [`percentiles`], [`chart`], [`axis`], [`plot`], [`report`]: medians, ratios,
//!   curves, and the report in Markdown, JSON and SVG;
//! - [`limits`]: HTTP servers that do almost nothing;
//! - the subcommands.

mod cli;
mod options;
mod http;
mod process;
mod records;
mod kafka;
mod testbed;
mod fill;
mod meter;
mod schedule;
mod load;
mod figures;
mod percentiles;
mod chart;
mod axis;
mod plot;
mod report;
mod loops;
mod limits;
mod send;
mod bulk;
mod read;
mod deliver;
mod fanout;
mod rebuild;
mod memory;
mod growth;
mod sweep;

use std::{
    error::Error,
    fmt::Display,
    io::{Write as _, stderr},
    process::ExitCode,
};

use clap::Parser as _;
use service::cli::shutdown;

use cli::{BenchCli, BenchCommand as Command};
use fill::FilledTopic;
use options::LoopArgs;
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
    if let Command::Limit(limit) = cli.command {
        // As many threads as a service has.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        return runtime.enable_all().build()?.block_on(limit.serve());
    }
    // This thread only starts processes and waits; the load has threads of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let interrupted = shutdown::cancel_on_signal();
        tokio::select! {
            outcome = measure_and_publish(cli) => outcome,
            // Dropping the measurement ends the processes that it started.
            () = interrupted.cancelled() => Err("interrupted".into()),
        }
    });
    // Do not wait for a loop that blocks its thread: it ends with the process.
    runtime.shutdown_background();
    outcome
}

async fn measure_and_publish(cli: BenchCli) -> Result<()> {
    let mut report = BenchReport::new(cli.options.quick);
    if !report.release {
        print_status(
            "a debug build: the figures will be worthless. Use cargo run --release -p bench",
        );
    }
    let mut testbed = Testbed::start(cli.options.clone())?;
    let outcome = measure(&mut testbed, &cli.command, &mut report.sections).await;
    // Publish the sections that were finished before an error, too.
    if !report.sections.is_empty() {
        report.publish(cli.options.out.as_deref())?;
    }
    let cleaned_up = testbed.delete_topics().await;
    outcome.and(cleaned_up)
}

async fn measure(
    testbed: &mut Testbed,
    command: &Command,
    sections: &mut Vec<Section>,
) -> Result<()> {
    if let Command::Send(loops) | Command::All { loops, .. } = command {
        sections.push(send::measure(testbed, loops).await?);
    }
    if let Command::Bulk(load) | Command::All { loops: LoopArgs { load, .. }, .. } = command {
        sections.push(bulk::measure(testbed, load).await?);
    }
    if let Command::Read(loops) | Command::All { loops, .. } = command {
        sections.push(read::measure(testbed, loops).await?);
    }
    if let Command::Deliver(deliver) | Command::All { deliver, .. } = command {
        sections.push(deliver::measure(testbed, deliver).await?);
    }
    if let Command::Fanout(fanout) | Command::All { fanout, .. } = command {
        sections.push(fanout::measure(testbed, fanout).await?);
    }
    if let Command::Rebuild(fill) | Command::Memory(fill) | Command::All { fill, .. } = command {
        let filled = FilledTopic::from_args(testbed, fill).await?;
        if !matches!(command, Command::Memory(_)) {
            sections.push(rebuild::measure(testbed, &filled).await?);
        }
        if !matches!(command, Command::Rebuild(_)) {
            sections.push(memory::measure(testbed, &filled).await?);
        }
    }
    if let Command::Growth(growth) = command {
        growth::measure(testbed, growth, sections).await?;
    }
    if let Command::Sweep = command {
        sections.push(sweep::measure(testbed).await?);
    }
    Ok(())
}

/// Writes a line of progress or an error to standard error. A closed standard error is ignored.
fn print_status(line: impl Display) {
    let _ = writeln!(stderr(), "bench: {line}");
}
