//! The command line: its subcommands and their help.

use clap::{Parser, Subcommand};

use crate::{
    deliver::DeliverArgs,
    fanout::FanoutArgs,
    fill::FillArgs,
    growth::GrowthArgs,
    limits,
    options::{LoadArgs, LoopArgs, Options},
};

/// Measures the services beside a limit that they cannot beat, in the same run.
///
/// Each subcommand starts what it needs (services, Kafka and PostgreSQL, all on free ports), lets
/// subject and limit take turns for some rounds after a warm-up, prints a report in Markdown, and
/// removes everything again. The ratio of the two is the result: absolute figures say more about
/// the machine, whose processors the load generator and the servers share.
///
/// A closed loop sends the next request when the last one is answered, and measures throughput. An
/// open loop sends at a fixed rate, and measures how long a request takes from when it was due.
/// With --out FOLDER the report is kept there with its figures and curves.
#[derive(Parser, Debug)]
#[command(
    name = "bench",
    version,
    after_help = "Try it:\n  \
        cargo run --release -p bench -- all --quick\n  \
        cargo run --release -p bench -- send --connections 256 --rate 5000 --out target/send\n  \
        cargo run --release -p bench -- growth notifications --most 10000000\n\n\
        What --out writes: report.md, report.json, and of the subcommands that draw curves\n  \
        send, read          <name>-percentiles.svg, <name>-concurrency.svg\n  \
        deliver             deliver-percentiles.svg\n  \
        rebuild             rebuild-over-time.svg\n  \
        growth              growth-users.svg and so on, one for each that grows\n\n\
        Kafka and PostgreSQL come from scripts/real (once: scripts/real install), or name your own with\n\
        --kafka-brokers and --database-url. Close what else runs on this machine; the report says how\n\
        busy it was, and a wide spread says the same."
)]
pub(crate) struct BenchCli {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,

    #[command(flatten)]
    pub(crate) options: Options,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    /// POST /send, beside the same handler without Kafka and a bare rdkafka loop: a closed loop, an
    /// open one, and throughput by connections (4 minutes; quick: 1)
    Send(#[command(flatten)] LoopArgs),
    /// POST /send of many lines over one connection, beside a bare rdkafka loop (1 minute)
    Bulk(#[command(flatten)] LoadArgs),
    /// GET of a 10-entry inbox, beside axum returning the same bytes from a constant: the same
    /// three parts as send (3 minutes; quick: 1)
    Read(#[command(flatten)] LoopArgs),
    /// From a send to its event on a stream, beside rdkafka's own way from produce to consume, in
    /// an open loop (2 minutes; quick: 1)
    Deliver(#[command(flatten)] DeliverArgs),
    /// Thousands of streams: what an idle one costs, and how late the last event is (1 minute)
    Fanout(#[command(flatten)] FanoutArgs),
    /// A consumer's start on a full topic, beside rdkafka reading the topic and dropping it, with
    /// the records of both over time (1 minute)
    Rebuild(#[command(flatten)] FillArgs),
    /// Memory of a stored notification, beside its JSON (1 minute)
    Memory(#[command(flatten)] FillArgs),
    /// All of these, one after the other (13 minutes; quick: less than 5)
    // In seconds, rounds with their warm-up × length × parties. send: 6×5×3 + 4×5×3 + 5×3×2×3 = 240;
    // bulk: 6×5×2 = 60; read: 6×5×2 + 4×5×2 + 5×3×2×2 = 160; deliver: 6×6×3 = 108; fanout: 6×9 = 54;
    // rebuild: 6×7 = 42; memory: 6×2×7 = 84; starts, fills and connecting: some 60. Together 808.
    // Quick: send 24 + 12 + 15, bulk 16, read 16 + 8 + 10, deliver 36, fanout 32, rebuild 16,
    // memory 40, the rest 40. Together 265; a run with few records and streams took 222.
    All {
        #[command(flatten)]
        loops: LoopArgs,
        #[command(flatten)]
        fill: FillArgs,
        #[command(flatten)]
        deliver: DeliverArgs,
        #[command(flatten)]
        fanout: FanoutArgs,
    },
    /// What one more costs when there are many: users, notifications, partitions, streams, bytes
    /// (12 minutes; quick: 3)
    Growth(#[command(flatten)] GrowthArgs),
    /// POST /send with every linger and compression: throughput, latency and processor time
    /// (6 minutes; quick: 2)
    Sweep,
    /// Serve a limit
    #[command(subcommand, hide = true)]
    Limit(limits::Limit),
}
