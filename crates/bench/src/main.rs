//! `bench`: measures the services beside a limit in the same run on the same machine, and reports
//! ratios. It makes no absolute claims, and no test depends on it.
//!
//! The modules in the order in which a run meets them:
//! - [`cli`], [`options`], [`site`]: flags, and what a run takes place in;
//! - [`instance`], [`subjects`]: the processes that are measured, and those that they need;
//! - [`records`], [`client_settings`], [`kafka`], [`fill`]: what is written, and bare rdkafka;
//! - [`connection`], [`effort`], [`pace`], [`load`]: closed and open loops of HTTP requests;
//! - [`listeners`]: those who follow a stream;
//! - [`limits`]: servers that do almost nothing;
//! - [`rounds`], [`loops`]: subject and limits take turns;
//! - [`send`], [`bulk`], [`read`], [`deliver`], [`fanout`], [`rebuild`], [`memory`],
//!   [`growth`], [`sweep`]: one a subcommand;
//! - [`meter`], [`progress`], [`figures`], [`percentiles`]: samples, medians, spreads, ratios;
//! - [`chart`], [`scale`], [`plot`]: curves;
//! - [`report`], [`publish`]: all that as Markdown, JSON and SVG.

mod cli;
mod options;
mod site;
mod instance;
mod subjects;
mod records;
mod client_settings;
mod kafka;
mod fill;
mod connection;
mod effort;
mod pace;
mod load;
mod listeners;
mod limits;
mod rounds;
mod loops;
mod send;
mod bulk;
mod read;
mod deliver;
mod fanout;
mod rebuild;
mod memory;
mod growth;
mod sweep;
mod meter;
mod progress;
mod figures;
mod percentiles;
mod chart;
mod scale;
mod plot;
mod report;
mod publish;

use std::{
    error::Error,
    fmt::Display,
    io::{Write as _, stderr},
    process::ExitCode,
};

use clap::Parser as _;
use service::cli::shutdown;

use cli::{Cli, Command};
use fill::Filled;
use report::{Report, Section};
use site::Site;

/// What a measurement returns. A text for people is all that a failed one needs.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = start(cli) {
        say(error);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn start(cli: Cli) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    if let Command::Limit(limit) = cli.command {
        // As many threads as a service has.
        runtime = tokio::runtime::Builder::new_multi_thread();
        return runtime.enable_all().build()?.block_on(limit.serve());
    }
    // One thread that starts and waits; the load has threads of its own.
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(async {
        let interrupted = shutdown::cancel_on_signal();
        tokio::select! {
            outcome = measure(cli) => outcome,
            // Whatever was started ends as the measurement is dropped.
            () = interrupted.cancelled() => Err("interrupted".into()),
        }
    });
    // A loop that blocks its thread ends with the process, not before.
    runtime.shutdown_background();
    outcome
}

async fn measure(cli: Cli) -> Result<()> {
    let mut report = Report::new(cli.options.quick);
    if !report.release {
        say("a debug build: the figures will be worthless. Use cargo run --release -p bench");
    }
    let mut site = Site::open(cli.options.clone())?;
    let outcome = sections(&mut site, &cli.command, &mut report.sections).await;
    // What was measured before something failed is still worth reading.
    if !report.sections.is_empty() {
        publish::publish(&report, cli.options.out.as_deref())?;
    }
    let closed = site.close().await;
    outcome.and(closed)
}

async fn sections(site: &mut Site, command: &Command, sections: &mut Vec<Section>) -> Result<()> {
    if let Command::Send { load, pace } | Command::All { load, pace, .. } = command {
        sections.push(send::run(site, load, pace).await?);
    }
    if let Command::Bulk(load) | Command::All { load, .. } = command {
        sections.push(bulk::run(site, load).await?);
    }
    if let Command::Read { load, pace } | Command::All { load, pace, .. } = command {
        sections.push(read::run(site, load, pace).await?);
    }
    if let Command::Deliver(deliver) | Command::All { deliver, .. } = command {
        sections.push(deliver::run(site, deliver).await?);
    }
    if let Command::Fanout(fanout) | Command::All { fanout, .. } = command {
        sections.push(fanout::run(site, fanout).await?);
    }
    if let Command::Rebuild(fill) | Command::Memory(fill) | Command::All { fill, .. } = command {
        let filled = Filled::make(site, fill).await?;
        if !matches!(command, Command::Memory(_)) {
            sections.push(rebuild::run(site, &filled).await?);
        }
        if !matches!(command, Command::Rebuild(_)) {
            sections.push(memory::run(site, &filled).await?);
        }
    }
    if let Command::Growth(growth) = command {
        growth::run(site, growth, sections).await?;
    }
    if let Command::Sweep = command {
        sections.push(sweep::run(site).await?);
    }
    Ok(())
}

/// Progress, and what went wrong: for the person who waits, on standard error. Nobody may be there.
fn say(what: impl Display) {
    let _ = writeln!(stderr(), "bench: {what}");
}
