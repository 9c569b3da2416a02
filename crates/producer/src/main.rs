//! The producer as a program: reads its settings, listens, runs until it is told to stop.

use std::{error::Error, process::ExitCode};

use producer::{
    cli::{Cli, Command},
    directory::Directory,
};
use service::{cli::program, cli::shutdown, ops::health, server::listen};

fn main() -> ExitCode {
    program::run("producer", |cli: &Cli| &cli.telemetry, run)
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    match &cli.command {
        Some(Command::Token(token)) => return Ok(token.print(&cli.settings.auth)?),
        Some(Command::Healthcheck) => return Ok(health::probe(&cli.listen).await?),
        Some(Command::Migrate) | None => {}
    }
    let database = &cli.database;
    let directory =
        Directory::open_postgres(database.read_url()?.expose(), database.database_connections)?;
    if let Some(Command::Migrate) = cli.command {
        directory.migrate().await?;
        tracing::info!("the users' table is up to date");
        return Ok(());
    }
    let log = cli.kafka.connect("notifications-producer")?;
    let listener = listen::bind("producer", &cli.listen, "--listen", "PRODUCER_LISTEN").await?;
    let guarded = cli.insecure || cli.settings.auth.is_on();
    listen::guard(listener.local_addr()?, guarded, "--listen", "PRODUCER_LISTEN")?;
    producer::run(cli.settings, log, directory, listener, shutdown::signal()).await?;
    Ok(())
}
