//! The consumer as a program: reads its settings, listens, runs until it is told to stop.

use std::{error::Error, process::ExitCode};

use consumer::{
    Settings,
    cli::{ConsumerCli, ConsumerCommand, Dlq},
    dead_letters,
};
use event_log::Log;
use model::TopicNames;
use service::{cli::program, cli::shutdown, server::listen};

fn main() -> ExitCode {
    program::run_program("consumer", |cli: &ConsumerCli| &cli.telemetry, run)
}

async fn run(cli: ConsumerCli) -> Result<(), Box<dyn Error>> {
    if let Some(ConsumerCommand::Service(command)) = &cli.command {
        return command.execute(&cli.settings.auth, &[&cli.listen]).await;
    }
    let log = cli.kafka.connect("notifications-consumer")?;
    if let Some(ConsumerCommand::Dlq(what)) = cli.command {
        return dead_letters(&log, &cli.settings, what).await;
    }
    let guarded = cli.insecure || cli.settings.auth.is_on();
    let listener =
        listen::open_listener("consumer", &cli.listen, guarded, "--listen", "CONSUMER_LISTEN")
            .await?;
    consumer::run(cli.settings, log, listener, shutdown::cancel_on_signal()).await?;
    Ok(())
}

async fn dead_letters(log: &Log, settings: &Settings, what: Dlq) -> Result<(), Box<dyn Error>> {
    let names = TopicNames::of(&settings.topics.topic);
    let partitions = settings.topics.partitions;
    let mut letters = dead_letters::read(log, &names.dlq, partitions).await?;
    match what {
        Dlq::List => dead_letters::list(&letters, &mut std::io::stdout())?,
        Dlq::Replay { places, all } => {
            letters.retain(|letter| all || places.contains(&letter.at));
            dead_letters::replay(log, &names, settings.partitioner, partitions, &letters).await?;
            tracing::info!(count = letters.len(), "put back");
        }
    }
    Ok(())
}
