//! The consumer: a materialised view of the notifications' topic, served over HTTP.
//!
//! A record's way: the log's thread → [`view::fold`] → [`view`] → [`routes`]. The view is in memory
//! and a pure function of the log; restarting the process loses nothing.
//!
//! What a recipient does goes the other way: [`routes`] → [`receipts`] → the log, and comes back
//! into the view like everything else. [`owners`] knows which instance has which partition;
//! [`follow`] puts all of this together. [`dead_letters`] is for operators.

pub mod settings;
pub mod metrics;
pub mod subscriptions;
pub mod view;
pub mod owners;
pub mod receipts;
pub mod progress;
pub mod routes;
mod canary;
pub mod dead_letters;

use std::{sync::Arc, time::Duration};

use event_log::Log;
use model::TopicNames;
use service::{auth::Auth, ops::canary::Canary, ops::metrics::Metrics, server::http};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use owners::Owners;
use receipts::Recorder;
use routes::{App, Streams};
pub use settings::Settings;
use subscriptions::ViewSubscriptions;
use view::View;

/// How long the last words to those who listen on WebSockets may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why the consumer ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A topic is not what the settings say, or cannot be made.
    #[error(transparent)]
    Topic(#[from] event_log::TopicError),
    /// The client of the log cannot be made.
    #[error(transparent)]
    Log(#[from] event_log::LogUnreachable),
    /// The keys that verify tokens cannot be used.
    #[error(transparent)]
    Keys(#[from] service::auth::KeyError),
    /// The listener has no address.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
}

/// Serves on `listener` until `shutdown`, then drains. The log need not be there yet: until it is,
/// requests are answered 503 and `/readyz` says why.
///
/// # Errors
/// [`RunError`], when something is wrong that waiting does not mend.
pub async fn run(
    settings: Settings,
    log: Log,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let metrics = Metrics::of("consumer", metrics::describe);
    let names = TopicNames::from_notifications(&settings.topics.topic);
    let auth = Auth::open("consumer", &settings.auth)?;
    let view =
        Arc::new(View::new(settings.topics.partitions, settings.partitioner, settings.limits()));
    let address = listener.local_addr()?;
    let owners = Owners::new(&settings.advertised(address));
    let patience = settings.inbox.patience;
    let stop_serving = CancellationToken::new();
    let streams = Streams::new(settings.streams.clone(), stop_serving.clone());
    let app = App {
        view: Arc::clone(&view),
        owners: owners.clone(),
        recorder: Recorder::new(Arc::clone(&view), log.writer(), &names.receipts, patience),
        log: log.clone(),
        topic: names.notifications.as_str().into(),
        streams: streams.clone(),
        patience,
    };
    let canary = Canary::new("consumer", settings.canary);
    let mut way = canary::Way::new(Arc::clone(&view), log.writer(), Arc::clone(&app.topic));
    let following = ViewSubscriptions::new(view, log, names, owners);
    let local = address.ip().to_canonical().is_loopback();
    let app = routes::router(&settings, &auth, app, &following, canary.clone(), &metrics, local);
    let mut watching = JoinSet::new();
    watching.spawn(auth.watch());
    watching.spawn(canary.watch(async move || way.try_next().await));

    let (stop, limits) = (stop_serving.clone(), settings.http.clone());
    let server = tokio::spawn(http::serve(listener, app, stop, limits, metrics));
    let outcome = tokio::select! {
        outcome = following.start(&settings) => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    if outcome.is_ok() {
        shutdown.cancelled().await;
    }
    // First the partitions go to the next owners, while requests are still taken and passed on to
    // them; then nobody new is let in and everybody inside is answered.
    following.leave().await;
    stop_serving.cancel();
    let _ = server.await;
    streams.end(GOODBYE).await;
    following.stop().await;
    watching.shutdown().await;
    outcome
}
