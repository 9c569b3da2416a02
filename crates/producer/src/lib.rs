//! The producer: `POST /send` and `/users`.
//!
//! The path of a send: `routes` → `send::request` (parses and validates) → `directory` (looks up
//! the users) → `send` (makes the notifications) → `publish` (appends the records) → the response,
//! once the log has acknowledged. A `bulk` request takes the same path with many sends at once.

#[cfg(all(feature = "kafka", feature = "postgres"))]
pub mod cli;
pub mod settings;
pub mod cors;
mod routes;
mod access;
mod rate;
mod schema;
mod problems;
pub mod directory;
mod send;
mod bulk;
mod users;
mod publish;
pub mod metrics;

use event_log::Log;
use service::{auth::Auth, ops::canary::Canary, ops::metrics::Metrics, server::http};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use directory::{Directory, UserLookup};
use metrics::SendMetrics;
use publish::Publisher;
use rate::SenderLimits;
pub use send::request::SendRequest;
use send::{Sender, keys::IdempotencyKeys};
use settings::SendArgs;
pub use settings::Settings;

/// Why the producer failed to start or to run.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// A topic differs from the settings or cannot be created.
    #[error(transparent)]
    Topic(#[from] event_log::TopicError),
    /// The users table cannot be created or migrated.
    #[error(transparent)]
    Migrate(#[from] directory::MigrateError),
    /// The listener's address cannot be determined.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
    /// The keys for tokens cannot be used.
    #[error(transparent)]
    Keys(#[from] service::auth::KeyError),
}

/// Serves on `listener` until `shutdown`, then drains and flushes. The log and the directory may start
/// later: until then sends are answered 503, and `/readyz` shows the reason.
pub async fn run(
    settings: Settings,
    log: Log,
    directory: Directory,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ProducerError> {
    let metrics = Metrics::new("producer", metrics::describe);
    let auth = Auth::from_args("producer", &settings.auth)?;
    if settings.migrate {
        directory.migrate().await?;
    }
    let topic = settings.topics.topic(&settings.topics.topic);
    let publisher = Publisher::new(log, topic, settings.partitioner);
    let users = UserLookup::new(directory.clone(), settings.sending.directory_cache);
    let SendArgs { rate_limit, rate_burst, send_timeout, .. } = settings.sending;
    let limits = SenderLimits::new(rate_limit, rate_burst);
    let sender = Sender {
        users: users.clone(),
        publisher: publisher.clone(),
        keys: IdempotencyKeys::default(),
        limits: limits.clone(),
        metrics: SendMetrics::default(),
        timeout: send_timeout,
    };
    let canary = Canary::new("producer", settings.canary);
    let local = listener.local_addr()?.ip().to_canonical().is_loopback();
    let app = routes::build_router(&settings, &auth, sender, canary.clone(), &metrics, local);

    let mut tasks = JoinSet::new();
    tasks.spawn(users.watch_changes());
    tasks.spawn(auth.reread_keys());
    tasks.spawn(limits.evict_idle());
    tasks.spawn(publisher.clone().refresh_epoch());
    let (probed, mut partition) = (publisher.clone(), 0_u32);
    tasks.spawn(canary.run_probes(async move || {
        partition = partition.wrapping_add(1);
        probed.probe_partition(partition).await
    }));

    let stop_serving = CancellationToken::new();
    let (stop, limits) = (stop_serving.clone(), settings.http.clone());
    let server = tokio::spawn(http::serve_app(listener, app, stop, limits, metrics));
    let outcome = tokio::select! {
        outcome = publisher.await_topic() => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    if outcome.is_ok() {
        shutdown.cancelled().await;
    }
    // Answers the running requests first, then writes the queued records.
    stop_serving.cancel();
    let _ = server.await;
    publisher.flush(settings.http.drain_timeout).await;
    tasks.shutdown().await;
    directory.close().await;
    Ok(outcome?)
}
