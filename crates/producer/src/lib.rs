//! The producer: `POST /send`, and `/users`.
//!
//! A send's way: [`routes`] → [`send::request`] (form or JSON, parsed into what may be sent) →
//! [`directory`] (who the two users are) → [`send`] (the notification) → [`publish`] (a record of
//! the log) → the answer, once the log has acknowledged. [`bulk`] goes the same way with many sends
//! of one request at once.

pub mod settings;
pub mod cors;
pub mod routes;
mod access;
mod rate;
mod schema;
pub mod send;
pub mod bulk;
mod users;
pub mod directory;
pub mod publish;
pub mod metrics;

use event_log::Log;
use model::TopicNames;
use service::{auth::Auth, ops::canary::Canary, ops::metrics::Metrics, server::http};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use directory::{Directory, UserLookup};
use metrics::SendMetrics;
use publish::Publisher;
use rate::SenderLimits;
use send::{Sender, keys::IdempotencyKeys};
use settings::SendArgs;
pub use settings::Settings;

/// Why the producer ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// A topic is not what the settings say, or cannot be made.
    #[error(transparent)]
    Topic(#[from] event_log::TopicError),
    /// The users' table cannot be made or brought up to date.
    #[error(transparent)]
    Migrate(#[from] directory::MigrateError),
    /// The listener has no address.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
    /// The keys that verify tokens cannot be used.
    #[error(transparent)]
    Keys(#[from] service::auth::KeyError),
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
) -> Result<(), ProducerError> {
    let metrics = Metrics::of("producer", metrics::describe);
    let auth = Auth::open("producer", &settings.auth)?;
    if settings.migrate {
        directory.migrate().await?;
    }
    let topic = settings
        .topics
        .topic(&TopicNames::from_notifications(&settings.topics.topic).notifications);
    let publisher = Publisher::new(log, topic, settings.partitioner);
    let names = UserLookup::new(directory.clone(), settings.directory_cache);
    let SendArgs { rate_limit, rate_burst, send_timeout, .. } = settings.sending;
    let rates = SenderLimits::new(rate_limit, rate_burst);
    let sender = Sender {
        users: names.clone(),
        publisher: publisher.clone(),
        keys: IdempotencyKeys::default(),
        limits: rates.clone(),
        metrics: SendMetrics::default(),
        timeout: send_timeout,
    };
    let canary = Canary::new("producer", settings.canary);
    let table = directory.clone();
    let local = listener.local_addr()?.ip().to_canonical().is_loopback();
    let app =
        routes::build_router(&settings, &auth, table, sender, canary.clone(), &metrics, local);

    let mut watching = JoinSet::new();
    watching.spawn(names.watch_changes());
    watching.spawn(auth.watch());
    watching.spawn(rates.evict_idle());
    let (tried, mut partition) = (publisher.clone(), 0_u32);
    watching.spawn(canary.watch(async move || {
        partition = partition.wrapping_add(1);
        tried.probe_partition(partition).await
    }));

    let stop_serving = CancellationToken::new();
    let (stop, limits) = (stop_serving.clone(), settings.http.clone());
    let server = tokio::spawn(http::serve(listener, app, stop, limits, metrics));
    let outcome = tokio::select! {
        outcome = publisher.await_topic() => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    if outcome.is_ok() {
        shutdown.cancelled().await;
    }
    // First nobody new is let in and everybody inside is answered, then what is queued is written.
    stop_serving.cancel();
    let _ = server.await;
    publisher.flush(settings.http.drain_timeout).await;
    watching.shutdown().await;
    directory.close().await;
    Ok(outcome?)
}
