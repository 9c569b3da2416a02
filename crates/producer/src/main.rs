//! The producer as a program: reads its settings, listens, runs until it is told to stop.

use std::{error::Error, process::ExitCode};

use producer::{
    cli::{ProducerCli, ProducerCommand},
    directory::Directory,
};
use service::{cli::program, cli::shutdown, server::listen};
use tikv_jemallocator::Jemalloc;

/// Replaces `malloc` as well, which librdkafka and SQLite call. Measured: docs/performance.md.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    program::run_program("producer", |cli: &ProducerCli| &cli.shared, run)
}

async fn run(cli: ProducerCli) -> Result<(), Box<dyn Error>> {
    if let Some(ProducerCommand::Service(command)) = &cli.command {
        return command.execute(&cli.settings.auth, &[&cli.listen]).await;
    }
    let database = &cli.database;
    let directory =
        Directory::open_postgres(database.read_url()?.expose(), database.database_connections)?;
    if let Some(ProducerCommand::Migrate) = cli.command {
        directory.migrate().await?;
        tracing::info!("the users' table is up to date");
        return Ok(());
    }
    let log = cli.kafka.connect("notifications-producer")?;
    let guarded = cli.shared.insecure || cli.settings.auth.is_on();
    let listener =
        listen::open_listener("producer", &cli.listen, guarded, "--listen", "PRODUCER_LISTEN")
            .await?;
    producer::run(cli.settings, log, directory, listener, shutdown::cancel_on_signal()).await?;
    Ok(())
}
