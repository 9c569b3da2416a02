//! Runs the fault suite: causes faults in a running installation under load, and checks its
//! promises.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use e2e::{
    faults::{
        client::RecordingClient,
        cluster::{ServiceCluster, Topology},
        disk::SmallDisk,
        journal::Journal,
        report,
        scenario::Scenario,
        scenarios::{self, Plan, ScenarioOutcome},
        settle,
    },
    process::build_program,
};
use tokio::signal::unix::{SignalKind, signal};

/// Kills, freezes, restarts, scales and cuts off parts of a real installation under steady load,
/// and checks all acknowledgements, answers and streams.
///
/// It starts Kafkas of its own (scripts/real), of one broker or of three, a PostgreSQL, a producer
/// and three consumers, and removes them at the end. The exit code is 1 if a notification was lost,
/// shown twice, out of order or missing from an answer or a stream, if a receipt had no effect, or
/// if a scenario was not completed.
#[derive(Parser, Debug)]
#[command(
    name = "faults",
    after_help = "Try it:\n  faults --short\n  faults --scenario consumer,cut --rounds 3"
)]
struct FaultsCli {
    /// Seed of all random choices
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,

    /// Rounds of each scenario
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Sends a second; there are half as many reads
    #[arg(long, default_value_t = 200, value_name = "RATE", value_parser = clap::value_parser!(u32).range(2..=5000))]
    rate: u32,

    /// Live streams that are open meanwhile
    #[arg(long, default_value_t = 500, value_name = "COUNT")]
    streams: usize,

    /// Scenarios to run, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    scenario: Vec<Scenario>,

    /// Run one scenario of each family once, which takes about five minutes
    #[arg(long)]
    short: bool,

    /// Where to write the report, besides standard output
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// A folder with the programs `producer` and `consumer`, instead of those of this workspace
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = FaultsCli::parse();
    // An interrupt drops the suite, and with it every process and server.
    let outcome = tokio::select! {
        outcome = run_suite(cli) => outcome,
        signal = await_interrupt() => Err(format!("ended by {signal}")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn await_interrupt() -> &'static str {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// Returns true if there is no violation.
async fn run_suite(cli: FaultsCli) -> Result<bool, String> {
    let rounds = if cli.short { 1 } else { cli.rounds };
    let plan = Plan { seed: cli.seed, rounds, rate: cli.rate, streams: cli.streams };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let folder = root.join("target/faults");
    let logs = folder.join(plan.seed.to_string());
    // Removes the logs of an earlier run with the same seed.
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let history = folder.join(format!("{}.jsonl", plan.seed));
    let journal =
        Journal::create(&history).map_err(|error| format!("{}: {error}", history.display()))?;
    let suite = Suite { plan, logs, programs: cli.programs, journal: Arc::new(journal) };

    let chosen = match cli.scenario {
        chosen if !chosen.is_empty() => chosen,
        _ if cli.short => Scenario::SHORT.into(),
        _ => Scenario::ALL.into(),
    };
    let mut outcomes: Vec<ScenarioOutcome> = Vec::new();
    // The scenarios of one installation run one after the other in it.
    let mut rest: Vec<_> = (0..).zip(chosen).collect();
    while let Some((_, first)) = rest.first() {
        let topology = first.topology();
        let (these, others) =
            rest.into_iter().partition(|(_, scenario)| scenario.topology() == topology);
        rest = others;
        suite.run_installation(topology, these, &mut outcomes).await?;
    }
    let text = report::to_markdown(plan, &outcomes);
    print_report(&text);
    if let Some(file) = cli.report {
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    suite.journal.print_event(&format!("the whole history is in {}", history.display()));
    Ok(report::is_all_well(&outcomes))
}

struct Suite {
    plan: Plan,
    logs: PathBuf,
    programs: Option<PathBuf>,
    journal: Arc<Journal>,
}

impl Suite {
    /// Starts an installation, and runs these numbered scenarios in it.
    async fn run_installation(
        &self,
        topology: Topology,
        scenarios: Vec<(i64, Scenario)>,
        outcomes: &mut Vec<ScenarioOutcome>,
    ) -> Result<(), String> {
        if topology.small_disks
            && let Err(why) = SmallDisk::mount(1)
        {
            self.journal.print_event(&format!(
                "NOT RUN: full disks, because none can be mounted ({why}); run it as root"
            ));
            return Ok(());
        }
        self.journal.print_event(&format!(
            "starting a Kafka of {} broker(s), PostgreSQL, a producer and {} consumers",
            topology.brokers, topology.consumers
        ));
        let name = match topology {
            Topology { small_disks: true, .. } => "small-disks".to_owned(),
            Topology { brokers, .. } => format!("brokers-{brokers}"),
        };
        let logs = self.logs.join(name);
        std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
        let programs = |name: &str| {
            self.programs.as_ref().map_or_else(|| build_program(name), |folder| folder.join(name))
        };
        let journal = Arc::clone(&self.journal);
        let cluster =
            ServiceCluster::start(topology, &programs, &logs, self.plan.seed, journal).await?;
        let client = RecordingClient::new(Arc::new(cluster), Arc::clone(&self.journal))?;
        let mut first = outcomes.len();
        for (number, scenario) in scenarios {
            if scenario.removes_records() {
                // Their inboxes were read at their own end.
                first = outcomes.len();
            }
            let outcome = scenarios::run_scenario(scenario, self.plan, &client, number).await;
            self.journal.print_event(&report::summary_line(&outcome));
            outcomes.push(outcome);
        }
        self.journal.print_event("reading all final inboxes");
        for outcome in &outcomes[first..] {
            settle::settle(&client.with_history(Arc::clone(&outcome.history))).await;
        }
        Ok(())
    }
}

#[allow(clippy::print_stdout)] // the report is the program's output
fn print_report(text: &str) {
    println!("{text}");
}
