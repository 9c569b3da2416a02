//! The consumer: a materialised view of the notifications' topic, served over HTTP.
//!
//! A record's path: the log's thread → [`apply`] → [`view`] → `routes`. The view is in memory
//! and a pure function of the log, so a restart loses no notification.
//!
//! A receipt's path: `routes` → `receipts` → the log → the view. `cluster` knows the owner of each
//! partition and forwards requests to it. `subscriptions` connects the view to the log.

#[cfg(feature = "kafka")]
pub mod cli;
mod settings;
pub mod metrics;
mod subscriptions;
mod signal;
pub mod view;
pub mod snapshot;
pub mod apply;
mod cluster;
mod receipts;
mod progress;
mod routes;
mod canary;
pub mod dlq;

use std::{sync::Arc, time::Duration};

use event_log::Log;
use model::TopicNames;
use service::{
    auth::Auth, ops::canary::Canary, ops::metrics::Metrics, server::http, server::rate::RateLimits,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use canary::CanaryProbe;
use cluster::{claims::ClaimRules, ownership::OwnershipTable, peers::PeerNetworks};
use receipts::ReceiptWriter;
use routes::{app::App, build_router, streams::LiveStreams};
pub use settings::ConsumerSettings;
use subscriptions::ViewSubscriptions;
use view::View;

/// Time for the closing frames of all WebSockets at shutdown.
const CLOSE_SOCKETS_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the consumer ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// A topic differs from the settings, or cannot be created.
    #[error(transparent)]
    Topic(#[from] event_log::TopicError),
    /// The keys that verify tokens are not usable.
    #[error(transparent)]
    Keys(#[from] service::auth::KeyError),
    /// The listener has no address.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
}

/// Serves on `listener` until `shutdown`, then drains. While the log is not reachable, requests are
/// answered 503 and `/readyz` gives the reason.
///
/// # Errors
/// [`ConsumerError`], for errors that no retry can resolve.
pub async fn run(
    settings: ConsumerSettings,
    log: Log,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ConsumerError> {
    let metrics = Metrics::new("consumer", metrics::describe);
    let names = TopicNames::from_notifications(&settings.topics.topic);
    let auth = Auth::from_args("consumer", &settings.auth)?;
    let limits = settings.inbox_limits();
    let view = Arc::new(View::new(settings.topics.partitions, settings.partitioner, limits));
    let address = listener.local_addr()?;
    let ownership = OwnershipTable::new(ClaimRules {
        topic: names.owners.clone(),
        own_url: settings.advertised_url(address),
        partitions: settings.topics.partitions,
        networks: PeerNetworks::new(&settings.peers.peers),
        signer: auth.message_signer(),
        accepts_unsigned: settings.peers.accept_unsigned_claims,
    });
    let read_timeout = settings.inbox.read_timeout;
    let receipt_rate = settings.inbox.receipt_rate;
    let receipt_limits = RateLimits::new(receipt_rate, receipt_rate.saturating_mul(10));
    let stop_serving = CancellationToken::new();
    // The other half of the drain is for clients that come back to this instance meanwhile.
    let max_spread = settings.http.drain_timeout / 2;
    let streams = LiveStreams::new(settings.streams.clone(), max_spread, stop_serving.clone());
    let app = App {
        view: Arc::clone(&view),
        ownership: ownership.clone(),
        receipts: ReceiptWriter::new(
            Arc::clone(&view),
            log.clone(),
            &names,
            read_timeout,
            receipt_limits.clone(),
        ),
        log: log.clone(),
        topic: names.notifications.as_str().into(),
        streams: streams.clone(),
        read_timeout,
    };
    let canary = Canary::new("consumer", settings.canary);
    let mut probe = CanaryProbe::new(Arc::clone(&view), log.writer(), Arc::clone(&app.topic));
    let subscriptions = ViewSubscriptions::new(Arc::clone(&view), log, names, ownership);
    let local = address.ip().to_canonical().is_loopback();
    let router =
        build_router(&settings, &auth, app, &subscriptions, canary.clone(), &metrics, local);
    let mut background = JoinSet::new();
    background.spawn(auth.reread_keys());
    background.spawn(Arc::clone(&view).deliver_wakeups());
    background.spawn(streams.clone().run_heartbeats());
    background.spawn(receipt_limits.evict_idle());
    background.spawn(canary.run_probes(async move || probe.probe_next_partition().await));

    let (stop, limits) = (stop_serving.clone(), settings.http.clone());
    let server = tokio::spawn(http::serve_app(listener, router, stop, limits, metrics));
    let outcome = tokio::select! {
        outcome = subscriptions.start(&settings) => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    if outcome.is_ok() {
        shutdown.cancelled().await;
    }
    // The partitions move to their next owners first. Until then this instance still accepts
    // requests, and forwards them. After that it accepts no more and finishes those under way.
    let remaining = subscriptions.leave_group().await;
    stop_serving.cancel();
    let _ = server.await;
    streams.drain_sockets(CLOSE_SOCKETS_TIMEOUT).await;
    if let Some((owners, snapshots)) = remaining {
        ViewSubscriptions::stop(owners, snapshots).await;
    }
    background.shutdown().await;
    Ok(outcome?)
}
