//! All routes of the consumer, in one table.

mod forward;
mod query;
mod notifications;
pub mod live;
mod stream;
mod socket;
mod receipts;
mod page;
mod partitions;
mod problems;

use std::{sync::Arc, time::Duration};

use axum::{
    Router, middleware,
    routing::{delete, get, post},
};
use log::Log;
use service::{health::Health, http};

pub use live::Streams;

use crate::{Settings, follow::Following, owners::Owners, receipts::Recorder, view::View};

/// What the handlers share.
#[derive(Clone)]
pub struct App {
    /// Every inbox of this instance.
    pub view: Arc<View>,
    /// Who has the others.
    pub owners: Owners,
    /// Where what recipients do is written.
    pub recorder: Recorder,
    /// Where the view comes from.
    pub log: Log,
    /// The notifications' topic.
    pub topic: Arc<str>,
    /// The live streams.
    pub streams: Streams,
    /// How long a request waits for a partition that is not live, or not ours yet.
    pub patience: Duration,
}

/// Every route, with the limits and error bodies that all of them share.
pub fn router(settings: &Settings, app: App, following: &Following) -> Router {
    let (log, partitions) = (following.clone(), following.clone());
    let health = Health::new()
        .check("kafka", move || log.clone().check_log())
        .check("partitions", move || partitions.clone().check_partitions());
    // What concerns one user is answered by the owner of their partition.
    let forwarder = forward::Forwarder::new(app.clone(), settings.http.max_body_bytes);
    let of_a_user = Router::new()
        .route("/notifications/{id}", get(notifications::list).delete(receipts::dismiss_all))
        .route("/notifications/{id}/stream", get(stream::open))
        .route("/notifications/{id}/ws", get(socket::open))
        .route("/notifications/{id}/read", post(receipts::read))
        .route("/notifications/{id}/unread", post(receipts::unread))
        .route("/notifications/{id}/{notification}", delete(receipts::dismiss))
        .route_layer(middleware::from_fn_with_state(forwarder, forward::to_owner));
    let routes = Router::new()
        .merge(of_a_user)
        .merge(page::routes(&settings.page))
        .route("/partitions", get(partitions::list))
        .with_state(app)
        .merge(health.routes());
    http::layers(routes, &settings.http)
}
