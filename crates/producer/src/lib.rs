//! The producer: `POST /send`, and `/users`.
//!
//! A send's way: [`routes`] → [`send::request`] (form or JSON, parsed into what may be sent) →
//! [`directory`] (who the two users are) → [`send`] (the notification) → [`publish`] (a record of
//! the log) → the answer, once the log has acknowledged. [`bulk`] goes the same way with many sends
//! of one request at once.

pub mod settings;
pub mod cors;
pub mod routes;
mod schema;
pub mod send;
pub mod bulk;
mod users;
pub mod directory;
pub mod publish;
mod metrics;

use log::Log;
use model::TopicNames;
use service::{http, metrics::Metrics};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use directory::{Directory, Names};
use publish::Publisher;
pub use settings::Settings;

/// Why the producer ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A topic is not what the settings say, or cannot be made.
    #[error(transparent)]
    Topic(#[from] log::TopicError),
    /// The users' table cannot be made or brought up to date.
    #[error(transparent)]
    Migrate(#[from] directory::MigrateError),
}

/// Serves on `listener` until `shutdown`, then drains and flushes. Neither the log nor the
/// directory need be there yet: until they are, sends are answered 503 and `/readyz` says why.
///
/// # Errors
/// [`RunError`], when something is wrong that waiting does not mend.
pub async fn run(
    settings: Settings,
    log: Log,
    directory: Directory,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let metrics = Metrics::of("producer");
    if settings.migrate {
        directory.migrate().await?;
    }
    let topic = settings.topics.topic(&TopicNames::of(&settings.topics.topic).notifications);
    let publisher = Publisher::new(log, topic, settings.partitioner);
    let names = Names::new(directory.clone(), settings.directory_cache);
    let (table, publishing) = (directory.clone(), publisher.clone());
    let app = routes::router(&settings, table, names.clone(), publishing, &metrics);

    let watching = tokio::spawn(names.watch());

    let stop_serving = CancellationToken::new();
    let (stop, limits) = (stop_serving.clone(), settings.http.clone());
    let server = tokio::spawn(http::serve(listener, app, stop, limits, metrics));
    let outcome = tokio::select! {
        outcome = publisher.prepare() => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    if outcome.is_ok() {
        shutdown.cancelled().await;
    }
    // First nobody new is let in and everybody inside is answered, then what is queued is written.
    stop_serving.cancel();
    let _ = server.await;
    publisher.flush(settings.http.drain_timeout).await;
    watching.abort();
    directory.close().await;
    Ok(outcome?)
}
