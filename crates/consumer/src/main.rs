//! The consumer as a program: reads its settings, listens, runs until it is told to stop.

use std::{error::Error, process::ExitCode};

use consumer::{
    ConsumerSettings,
    cli::{ConsumerCli, ConsumerCommand, Dlq},
    dlq,
};
use event_log::Log;
use model::TopicNames;
use service::{cli::program, cli::shutdown, server::listen};
use tikv_jemallocator::Jemalloc;

/// Replaces `malloc` as well, which librdkafka and SQLite call. Measured: docs/performance.md.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    program::run_program("consumer", |cli: &ConsumerCli| &cli.shared, run)
}

async fn run(cli: ConsumerCli) -> Result<(), Box<dyn Error>> {
    if let Some(ConsumerCommand::Service(command)) = &cli.command {
        return command.execute(&cli.settings.auth, &[&cli.listen]).await;
    }
    let log = cli.kafka.connect("notifications-consumer")?;
    if let Some(ConsumerCommand::Dlq(command)) = cli.command {
        return run_dlq_command(&log, &cli.settings, command).await;
    }
    let guarded = cli.shared.insecure || cli.settings.auth.is_on();
    let listener =
        listen::open_listener("consumer", &cli.listen, guarded, "--listen", "CONSUMER_LISTEN")
            .await?;
    consumer::run(cli.settings, log, listener, shutdown::cancel_on_signal()).await?;
    Ok(())
}

async fn run_dlq_command(
    log: &Log,
    settings: &ConsumerSettings,
    command: Dlq,
) -> Result<(), Box<dyn Error>> {
    let names = TopicNames::from_notifications(&settings.topics.topic);
    let partitions = settings.topics.partitions;
    let mut records = dlq::read_records(log, &names.dlq, partitions).await?;
    match command {
        Dlq::List => dlq::write_list(&records, &mut std::io::stdout())?,
        Dlq::Replay { places, all } => {
            records.retain(|record| all || places.contains(&record.at));
            let partitioner = settings.partitioner;
            let count = dlq::replay_records(log, &names, partitioner, partitions, &records).await?;
            tracing::info!(count, "replayed");
        }
    }
    Ok(())
}
