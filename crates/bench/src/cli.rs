//! The command line: its subcommands, their flags and their help.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use service::cli::settings::Secret;

use crate::limits;

/// Measures what the services cost, beside limits that do only the work that cannot be avoided.
///
/// Each subcommand starts what it needs (services, limits, Kafka and PostgreSQL, each a process of
/// its own on a free port), lets subject and limits take turns for some rounds after a warm-up,
/// prints a report in Markdown, and removes everything again.
///
/// Cost is the processor time of a process for each operation, from /proc/PID/task/*/schedstat, at a
/// fixed rate that is half of what the slowest party can do. Rates and latencies stand beside it. At
/// the end the aims are listed with the figures of this run.
#[derive(Parser, Debug)]
#[command(
    name = "bench",
    version,
    after_help = "Try it:\n  \
        cargo run --release -p bench -- all --quick\n  \
        cargo run --release -p bench -- send --auth --out target/send\n  \
        cargo run --release -p bench -- read --programs ../other/target/release\n\n\
        --out writes report.md, report.json with every round, and the plots, which are drawn from the JSON.\n\n\
        Kafka and PostgreSQL come from scripts/real (once: scripts/real install), or name your own with\n\
        --kafka-brokers and --database-url; then the broker's processor time is not measured. Close what else\n\
        runs on this machine; a wide spread says that something did."
)]
pub(crate) struct BenchCli {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,

    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Subcommand, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measurement {
    /// POST /send at 64 and 400 connections to 4, 64 and 50,000 recipients, beside the same handler
    /// without Kafka and a bare rdkafka loop, whose costs are added (4 minutes)
    Send,
    /// POST /send of many lines, beside reading and parsing them and a bare rdkafka loop, added
    /// (1 minute)
    Bulk,
    /// GET of a 10-entry inbox in steps: a constant, our server, its layers, the consumer, a token;
    /// and of longer inboxes (2 minutes)
    Read,
    /// From a send to its event on a stream, beside rdkafka's way from produce to consume (1 minute)
    Deliver,
    /// Memory of an idle stream from 1,000 to 10,000, and how late the last event is (1 minute)
    Streams,
    /// Start and memory of a consumer from 100,000 to 1,000,000 notifications, beside rdkafka
    /// reading the same (2 minutes)
    Stored,
    /// A rolling restart of three consumers under 10,000 streams, which resume by cursor (1 minute)
    Restart,
    /// System calls of a send and of a read; needs strace (½ minute)
    Syscalls,
    /// POST /send with every linger and compression, by cost (5 minutes; not part of all)
    Sweep,
}

impl Measurement {
    /// All that belong to a whole run.
    pub(crate) const ALL: [Self; 8] = [
        Self::Send,
        Self::Bulk,
        Self::Read,
        Self::Deliver,
        Self::Streams,
        Self::Stored,
        Self::Restart,
        Self::Syscalls,
    ];
}

#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    #[command(flatten)]
    One(Measurement),
    /// All of these, one after the other (14 minutes; quick: 6)
    All,
    /// Draw the plots of a folder's report.json again
    Plot {
        /// The folder
        folder: PathBuf,
    },
    /// Serve or run a limit
    #[command(subcommand, hide = true)]
    Limit(limits::Limit),
}

/// Flags of all subcommands.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// A short run: fewer and shorter rounds, fewer streams and notifications
    #[arg(long, global = true)]
    pub(crate) quick: bool,

    /// Rounds, after one that only warms up [default: 4; quick: 2]
    #[arg(long, global = true, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// Seconds that a round takes [default: 2; quick: 1]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    seconds: Option<u64>,

    /// Requests that the fixed rate has due a second, for all parties alike [default: half of what
    /// the slowest of them can do]
    #[arg(long, global = true, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,

    /// Run the producer with authentication, and send with a token
    #[arg(long, global = true)]
    pub(crate) auth: bool,

    /// Write report.md, report.json and the plots into this folder, which is made if it is missing
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,

    /// Measure the producer and the consumer of this folder instead of building them
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) programs: Option<PathBuf>,

    /// Kafka to measure against, as host:port, instead of a broker of the run's own. The topics
    /// made there are deleted at the end
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) kafka_brokers: Option<String>,

    /// PostgreSQL to measure against, as a URL, instead of a server of the run's own. The users'
    /// table is made if it is missing, and stays
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) database_url: Option<Secret>,

    /// The script that starts Kafka and PostgreSQL
    #[arg(
        long, global = true, value_name = "FILE", hide_default_value = true,
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/real"),
    )]
    pub(crate) real_script: PathBuf,
}

impl Options {
    /// Counted rounds at a fixed rate.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 2 } else { 4 })
    }

    /// Counted rounds of a closed loop, which only finds the rate; and of starts, which take long.
    pub(crate) fn few_rounds(&self) -> u32 {
        self.rounds().div_ceil(2)
    }

    pub(crate) fn round(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if self.quick { 1 } else { 2 }))
    }
}
