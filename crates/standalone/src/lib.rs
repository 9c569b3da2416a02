//! Producer and consumer in one process, on an embedded log and user directory: for machines without
//! Kafka and PostgreSQL.

pub mod settings;
mod storage;

use std::{error::Error, io::Write as _};

use service::{auth::Auth, cli::shutdown, server::listen::open_listener};
use tokio::net::TcpListener;

use settings::StandaloneCli;
use storage::Storage;

/// Executes the command, or serves until the process is told to stop.
///
/// # Errors
/// A setting, a port or the data folder cannot be used; the message says what to do.
pub async fn run(cli: StandaloneCli) -> Result<(), Box<dyn Error>> {
    if let Some(command) = &cli.command {
        return command.execute(cli.auth(), &[&cli.producer_listen, &cli.consumer_listen]).await;
    }
    Auth::from_args("standalone", cli.auth())?;
    let guarded = cli.shared.insecure || cli.auth().is_on();
    // Ports first: a port in use is the likeliest failure, and the quickest to find.
    let (flag, env) = ("--producer-listen", "PRODUCER_LISTEN");
    let producer = open_listener("producer", &cli.producer_listen, guarded, flag, env).await?;
    let (flag, env) = ("--consumer-listen", "CONSUMER_LISTEN");
    let consumer = open_listener("consumer", &cli.consumer_listen, guarded, flag, env).await?;
    let producer_settings = cli.producer_settings(consumer.local_addr()?.port())?;
    let consumer_settings = cli.consumer_settings(producer.local_addr()?.port());
    let storage = Storage::open_folder(&cli.data_dir).await?;
    print_welcome(&cli, &producer, &consumer)?;

    let shutdown = shutdown::cancel_on_signal();
    let (log, directory) = (storage.log(), storage.directory.clone());
    let producing =
        producer::run(producer_settings, log.clone(), directory, producer, shutdown.clone());
    let consuming = consumer::run(consumer_settings, log, consumer, shutdown.clone());
    // If one of them fails, the other shuts down too.
    let (produced, consumed) =
        tokio::join!(async { producing.await.inspect_err(|_| shutdown.cancel()) }, async {
            consuming.await.inspect_err(|_| shutdown.cancel())
        },);
    storage.close().await;
    produced?;
    Ok(consumed?)
}

/// Prints the URLs and the commands to try first.
fn print_welcome(
    cli: &StandaloneCli,
    producer: &TcpListener,
    consumer: &TcpListener,
) -> std::io::Result<()> {
    let (producer, consumer) = (producer.local_addr()?, consumer.local_addr()?);
    // With authentication on, the commands act as user 1.
    let (token, header, query, send) = if cli.auth().is_on() {
        (
            "TOKEN=$(standalone token --sub 1 --scope send)   (with the same secret)\n    ",
            " -H \"Authorization: Bearer $TOKEN\"",
            "?access_token=$TOKEN",
            "from_id=1&to_id=2&message=Emma started following you.",
        )
    } else {
        ("", "", "", "from_id=2&to_id=1&message=Bruno started following you.")
    };
    let text = format!(
        "\n  Notifications, all in one process. Ctrl-C stops; notifications are kept in {data}\n\n    \
         send   http://{producer}/send\n    read   http://{consumer}/notifications/1\n    \
         look   http://{consumer}/?user=1\n    docs   http://{producer}/docs and http://{consumer}/docs\n    \
         health http://{producer}/readyz and http://{consumer}/readyz\n\n  Try it:\n\n    {token}\
         curl -X POST http://{producer}/send{header} -d \"{send}\"\n    \
         curl{header} http://{consumer}/notifications/1\n    \
         curl -N \"http://{consumer}/notifications/1/stream{query}\"\n\n",
        data = cli.data_dir.display(),
    );
    // A closed standard output does not stop the service.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
