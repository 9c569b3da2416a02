//! Producer and consumer in one process, on a log and a directory of their own: for people who
//! have no Kafka and no PostgreSQL at hand. It puts the parts together and says where they are;
//! what they do is theirs.

mod settings;
mod parts;

use std::{error::Error, io::Write as _, process::ExitCode};

use service::{cli::program, cli::shutdown, ops::health, server::listen};
use tokio::net::TcpListener;

use parts::Parts;
use settings::{Cli, Command};

fn main() -> ExitCode {
    program::run_program("standalone", |cli: &Cli| &cli.telemetry, run)
}

async fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    if let Some(Command::Healthcheck) = cli.command {
        health::check_liveness(&cli.producer_listen).await?;
        return Ok(health::check_liveness(&cli.consumer_listen).await?);
    }
    if let Some(Command::Token(token)) = &cli.command {
        return Ok(token.print_token(cli.auth())?);
    }
    let guarded = cli.insecure || cli.auth().is_on();
    // Ports first: it is the likeliest thing to go wrong, and the quickest to find out.
    let producer =
        open("producer", &cli.producer_listen, "--producer-listen", "PRODUCER_LISTEN", guarded)
            .await?;
    let consumer =
        open("consumer", &cli.consumer_listen, "--consumer-listen", "CONSUMER_LISTEN", guarded)
            .await?;
    let sends = cli.producer(consumer.local_addr()?.port())?;
    let reads = cli.consumer(producer.local_addr()?.port());
    let parts = Parts::open(&cli.data_dir).await?;
    welcome(&cli, &producer, &consumer)?;

    let shutdown = shutdown::cancel_on_signal();
    let sending =
        producer::run(sends, parts.log(), parts.directory.clone(), producer, shutdown.clone());
    let reading = consumer::run(reads, parts.log(), consumer, shutdown.clone());
    // Whichever fails takes the other along: half of a standalone is no use to anybody.
    let (sending, reading) =
        tokio::join!(async { sending.await.inspect_err(|_| shutdown.cancel()) }, async {
            reading.await.inspect_err(|_| shutdown.cancel())
        },);
    parts.close().await;
    sending?;
    reading?;
    Ok(())
}

async fn open(
    name: &str,
    address: &str,
    flag: &str,
    env: &str,
    guarded: bool,
) -> Result<TcpListener, Box<dyn Error>> {
    let listener = listen::bind_listener(name, address, flag, env).await?;
    listen::check_exposure(listener.local_addr()?, guarded, flag, env)?;
    Ok(listener)
}

/// Says where everything is and what to try first.
fn welcome(cli: &Cli, producer: &TcpListener, consumer: &TcpListener) -> std::io::Result<()> {
    let (producer, consumer) = (producer.local_addr()?, consumer.local_addr()?);
    // With authentication, the lines to try are those of user 1.
    let (token, header, query) = if cli.auth().is_on() {
        (
            "TOKEN=$(standalone token --sub 1 --scope send)   (with the same secret)\n    ",
            " -H \"Authorization: Bearer $TOKEN\"",
            "?access_token=$TOKEN",
        )
    } else {
        ("", "", "")
    };
    let send = if cli.auth().is_on() {
        "from_id=1&to_id=2&message=Emma started following you."
    } else {
        "from_id=2&to_id=1&message=Bruno started following you."
    };
    let text = format!(
        "\n  Notifications, all in one process. Ctrl-C stops; what was sent stays in {data}\n\n    \
         send   http://{producer}/send\n    read   http://{consumer}/notifications/1\n    \
         look   http://{consumer}/?user=1\n    docs   http://{producer}/docs and http://{consumer}/docs\n    \
         health http://{producer}/readyz and http://{consumer}/readyz\n\n  Try it:\n\n    {token}\
         curl -X POST http://{producer}/send{header} -d \"{send}\"\n    \
         curl{header} http://{consumer}/notifications/1\n    \
         curl -N \"http://{consumer}/notifications/1/stream{query}\"\n\n",
        data = cli.data_dir.display(),
    );
    // Nobody may be reading, and that is no reason to stop.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
