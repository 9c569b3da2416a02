//! Runs the fault suite: causes faults in a running installation under load, and checks its
//! promises.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, ValueEnum as _};
use e2e::{
    faults::{
        client::RecordingClient,
        cluster::ServiceCluster,
        journal::Journal,
        report,
        scenarios::{self, Plan, Scenario, ScenarioOutcome},
        settle,
    },
    process::build_program,
};
use tokio::signal::unix::{SignalKind, signal};

/// Kills, freezes, restarts and scales a real installation under steady load, and checks all
/// acknowledgements and answers.
///
/// It starts a Kafka and a PostgreSQL of its own (scripts/real), a producer and three consumers,
/// and removes them at the end. The exit code is 1 if a notification was lost, shown twice, out of
/// order or missing from an answer, or a scenario was not completed.
#[derive(Parser, Debug)]
#[command(
    name = "faults",
    after_help = "Try it:\n  faults --short\n  faults --scenario consumer --rounds 3"
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

    /// Scenarios to run: all, or one of producer, consumer, broker, pause, rolling, scale
    #[arg(long, default_value = "all", value_parser = parse_scenarios)]
    scenario: ScenarioSelection,

    /// Run each scenario once, which takes about three minutes
    #[arg(long)]
    short: bool,

    /// Where to write the report, besides standard output
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// A folder with the programs `producer` and `consumer`, instead of those of this workspace
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct ScenarioSelection(Vec<Scenario>);

fn parse_scenarios(text: &str) -> Result<ScenarioSelection, String> {
    match text {
        "all" => Ok(ScenarioSelection(Scenario::ALL.into())),
        one => Scenario::from_str(one, false).map(|one| ScenarioSelection(vec![one])),
    }
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
    let plan =
        Plan { seed: cli.seed, rounds: if cli.short { 1 } else { cli.rounds }, rate: cli.rate };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let folder = root.join("target/faults");
    let logs = folder.join(plan.seed.to_string());
    // Removes the logs of an earlier run with the same seed.
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let history = folder.join(format!("{}.jsonl", plan.seed));
    let journal =
        Journal::create(&history).map_err(|error| format!("{}: {error}", history.display()))?;
    let journal = Arc::new(journal);

    let programs = move |name: &str| {
        cli.programs.as_ref().map_or_else(|| build_program(name), |folder| folder.join(name))
    };
    journal.print_event("starting Kafka, PostgreSQL, a producer and three consumers");
    let cluster =
        ServiceCluster::start(3, &programs, &logs, plan.seed, Arc::clone(&journal)).await?;
    let client = RecordingClient::new(Arc::new(cluster), Arc::clone(&journal))?;

    let mut outcomes: Vec<ScenarioOutcome> = Vec::new();
    for (number, scenario) in (0..).zip(cli.scenario.0) {
        let outcome = scenarios::run_scenario(scenario, plan, &client, number).await;
        journal.print_event(&report::summary_line(&outcome));
        outcomes.push(outcome);
    }
    journal.print_event("reading all final inboxes");
    for outcome in &outcomes {
        settle::settle(&client.with_history(Arc::clone(&outcome.history))).await;
    }
    let text = report::to_markdown(plan, &outcomes);
    print_report(&text);
    if let Some(file) = cli.report {
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    journal.print_event(&format!("the whole history is in {}", history.display()));
    Ok(report::is_all_well(&outcomes))
}

#[allow(clippy::print_stdout)] // the report is the program's output
fn print_report(text: &str) {
    println!("{text}");
}
