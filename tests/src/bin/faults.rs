//! Breaks a running installation again and again, under load, and says whether it kept its promises.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, ValueEnum as _};
use e2e::{
    faults::{
        client::Client,
        cluster::Cluster,
        journal::Journal,
        report,
        scenarios::{self, Outcome, Plan, Scenario},
        settle,
    },
    process::program,
};
use tokio::signal::unix::{SignalKind, signal};

/// Kills, freezes, restarts and scales a real installation under steady load, and checks everything
/// that was acknowledged and shown meanwhile.
///
/// It starts a Kafka and a PostgreSQL of its own (scripts/real), a producer and three consumers, and
/// removes them at the end. The exit code is 1 when something was lost, shown twice, out of order,
/// missing from an answer, or not done at all.
#[derive(Parser, Debug)]
#[command(
    name = "faults",
    after_help = "Try it:\n  faults --short\n  faults --scenario consumer --rounds 3"
)]
struct Cli {
    /// Every random choice follows from it
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,

    /// How often each scenario does what it does
    #[arg(long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// Sends a second; half as many inboxes are read besides
    #[arg(long, default_value_t = 200, value_name = "RATE", value_parser = clap::value_parser!(u32).range(2..=5000))]
    rate: u32,

    /// What to do: all, or one of producer, consumer, broker, pause, rolling, scale
    #[arg(long, default_value = "all", value_parser = scenarios_of)]
    scenario: Scenarios,

    /// Each scenario once, which takes about three minutes
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
struct Scenarios(Vec<Scenario>);

fn scenarios_of(text: &str) -> Result<Scenarios, String> {
    match text {
        "all" => Ok(Scenarios(Scenario::ALL.into())),
        one => Scenario::from_str(one, false).map(|one| Scenarios(vec![one])),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // Whichever ends first: what the other held is dropped, and with it every process and server.
    let outcome = tokio::select! {
        outcome = run(cli) => outcome,
        signal = interrupted() => Err(format!("ended by {signal}")),
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

async fn interrupted() -> &'static str {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "an interrupt",
        _ = terminate.recv() => "a request to end",
    }
}

/// Whether all is well.
async fn run(cli: Cli) -> Result<bool, String> {
    let plan =
        Plan { seed: cli.seed, rounds: if cli.short { 1 } else { cli.rounds }, rate: cli.rate };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let folder = root.join("target/faults");
    let logs = folder.join(plan.seed.to_string());
    // The logs of an earlier run with the same seed would only confuse.
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let history = folder.join(format!("{}.jsonl", plan.seed));
    let journal =
        Journal::create(&history).map_err(|error| format!("{}: {error}", history.display()))?;
    let journal = Arc::new(journal);

    let programs = move |name: &str| {
        cli.programs.as_ref().map_or_else(|| program(name), |folder| folder.join(name))
    };
    journal.say("starting Kafka, PostgreSQL, a producer and three consumers");
    let cluster = Cluster::start(3, &programs, &logs, plan.seed, Arc::clone(&journal)).await?;
    let client = Client::new(Arc::new(cluster), Arc::clone(&journal))?;

    let mut outcomes: Vec<Outcome> = Vec::new();
    for (number, scenario) in (0..).zip(cli.scenario.0) {
        let outcome = scenarios::run(scenario, plan, &client, number).await;
        journal.say(&report::line(&outcome));
        outcomes.push(outcome);
    }
    journal.say("reading everything once more");
    for outcome in &outcomes {
        settle::settle(&client.with(Arc::clone(&outcome.history))).await;
    }
    let text = report::markdown(plan, &outcomes);
    print(&text);
    if let Some(file) = cli.report {
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    journal.say(&format!("the whole history is in {}", history.display()));
    Ok(report::all_well(&outcomes))
}

#[allow(clippy::print_stdout)] // it is what the program is run for
fn print(text: &str) {
    println!("{text}");
}
