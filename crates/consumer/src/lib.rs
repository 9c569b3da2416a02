//! The consumer: a materialised view of the notifications' topic, served over HTTP.
//!
//! A record's way: the log's thread → [`view::fold`] → [`view`] → [`routes`]. The view is in memory
//! and a pure function of the log; restarting the process loses nothing.

pub mod settings;
pub mod view;
pub mod routes;
pub mod follow;

use std::sync::Arc;

use log::Log;
use model::TopicNames;
use service::http;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use settings::Settings;
use view::View;

/// Why the consumer ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A topic is not what the settings say, or cannot be made.
    #[error(transparent)]
    Topic(#[from] log::TopicError),
    /// The client of the log cannot be made.
    #[error(transparent)]
    Log(#[from] log::Unreachable),
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
    let names = TopicNames::of(&settings.topics.topic);
    let view = Arc::new(View::new(settings.topics.partitions, settings.partitioner, settings.limits()));
    let following = follow::Following::new(Arc::clone(&view), log, names);
    let app = routes::router(&settings, Arc::clone(&view), &following);

    // The server ends after the follower: whoever is being answered still finds the view there.
    let stop_serving = CancellationToken::new();
    let server = tokio::spawn(http::serve(listener, app, stop_serving.clone(), settings.http.clone()));
    let outcome = tokio::select! {
        outcome = following.start(&settings) => outcome,
        () = shutdown.cancelled() => Ok(()),
    };
    if outcome.is_ok() {
        shutdown.cancelled().await;
    }
    stop_serving.cancel();
    let _ = server.await;
    following.stop().await;
    outcome
}
