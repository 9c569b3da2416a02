//! The flags that several subcommands share, and their defaults.

use std::{path::PathBuf, time::Duration};

use service::cli::settings::Secret;

use crate::load::LoadProfile;

/// Flags of all subcommands.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// A short run: fewer and shorter rounds, wherever their number or length is not given
    #[arg(long, global = true)]
    pub(crate) quick: bool,

    /// Rounds, after one that only warms up [default: 5, of open loops 3, of each of many sizes 2;
    /// quick: 3, 1, 1]
    #[arg(long, global = true, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// Write report.md, report.json (every figure, round by round) and the charts as SVG into this
    /// folder, which is made if it is missing. The report goes to standard output in any case
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,

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
    /// Counted rounds of a closed loop.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    /// Counted rounds of an open loop, whose histograms are merged.
    pub(crate) fn open_loop_rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    /// Counted rounds for each of many sizes or settings.
    pub(crate) fn rounds_per_size(&self) -> u32 {
        self.open_loop_rounds().min(2)
    }
}

/// Connections and length of a round.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct LoadArgs {
    /// Connections, each with one request at a time; for a bare loop, records in flight
    #[arg(long, default_value_t = 64, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) connections: u16,

    /// Seconds that a round takes [default: 5; quick: 2]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    seconds: Option<u64>,
}

impl LoadArgs {
    /// A closed loop with this many connections.
    pub(crate) fn closed_loop(&self, quick: bool) -> LoadProfile {
        let seconds = self.seconds.unwrap_or(if quick { 2 } else { 5 });
        LoadProfile::closed(self.connections.into(), Duration::from_secs(seconds))
    }
}

/// A closed loop, and the rate of an open one.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct LoopArgs {
    #[command(flatten)]
    pub(crate) load: LoadArgs,

    /// Requests that the open loop has due a second, for all parties alike [default: half of what
    /// the slowest of them did in the closed loop]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: Option<u32>,
}
