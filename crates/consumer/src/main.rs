//! The consumer as a program: reads its settings, listens, runs until it is told to stop.

use std::{error::Error, process::ExitCode};

use consumer::{
    Settings,
    cli::{Cli, Command, Dlq},
    dead_letters,
};
use event_log::Log;
use model::TopicNames;
use service::{cli::program, cli::shutdown, ops::health, server::listen};

fn main() -> ExitCode {
    program::run("consumer", |cli: &Cli| &cli.telemetry, run)
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    if let Some(Command::Healthcheck) = cli.command {
        return Ok(health::probe(&cli.listen).await?);
    }
    if let Some(Command::Token(token)) = &cli.command {
        return Ok(token.print(&cli.settings.auth)?);
    }
    let log = cli.kafka.connect("notifications-consumer")?;
    if let Some(Command::Dlq(what)) = cli.command {
        return dead_letters(&log, &cli.settings, what).await;
    }
    let listener = listen::bind("consumer", &cli.listen, "--listen", "CONSUMER_LISTEN").await?;
    let guarded = cli.insecure || cli.settings.auth.is_on();
    listen::guard(listener.local_addr()?, guarded, "--listen", "CONSUMER_LISTEN")?;
    consumer::run(cli.settings, log, listener, shutdown::signal()).await?;
    Ok(())
}

async fn dead_letters(log: &Log, settings: &Settings, what: Dlq) -> Result<(), Box<dyn Error>> {
    let names = TopicNames::from_notifications(&settings.topics.topic);
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
