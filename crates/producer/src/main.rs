//! The producer as a program: reads its settings, listens, runs until it is told to stop.

use std::{error::Error, process::ExitCode};

use producer::{
    directory::Directory,
    settings::{Cli, Command},
};
use service::{health, listen, program, shutdown};

fn main() -> ExitCode {
    program::run("producer", |cli: &Cli| &cli.telemetry, run)
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    let database = &cli.database;
    let directory =
        Directory::postgres(database.database_url.expose(), database.database_connections)?;
    match cli.command {
        Some(Command::Healthcheck) => return Ok(health::probe(&cli.listen).await?),
        Some(Command::Migrate) => {
            directory.migrate().await?;
            tracing::info!("the users' table is up to date");
            return Ok(());
        }
        None => {}
    }
    let log = cli.kafka.connect("notifications-producer")?;
    let listener = listen::bind("producer", &cli.listen, "--listen", "PRODUCER_LISTEN").await?;
    listen::guard(listener.local_addr()?, cli.insecure, "--listen", "PRODUCER_LISTEN")?;
    producer::run(cli.settings, log, directory, listener, shutdown::signal()).await?;
    Ok(())
}
