//! The consumer as a program: reads its settings, listens, runs until it is told to stop.

use std::{error::Error, process::ExitCode};

use consumer::settings::{Cli, Command};
use service::{health, listen, program, shutdown};

fn main() -> ExitCode {
    program::run("consumer", |cli: &Cli| &cli.telemetry, run)
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    if let Some(Command::Healthcheck) = cli.command {
        return Ok(health::probe(&cli.listen).await?);
    }
    let log = cli.kafka.connect("notifications-consumer")?;
    let listener = listen::bind("consumer", &cli.listen, "--listen", "CONSUMER_LISTEN").await?;
    listen::guard(listener.local_addr()?, cli.insecure, "--listen", "CONSUMER_LISTEN")?;
    consumer::run(cli.settings, log, listener, shutdown::signal()).await?;
    Ok(())
}
