//! All routes of the consumer, in one table.

mod access;
mod forward;
mod query;
mod notifications;
mod live;
mod stream;
mod socket;
mod receipts;
mod page;
mod partitions;
mod states;
mod schema;
mod problems;

use std::{sync::Arc, time::Duration};

use axum::Router;
use event_log::Log;
use service::{
    auth::{Auth, OPERATE, TokenIn},
    openapi,
    ops::canary::Canary,
    ops::health::Health,
    ops::metrics::{Metrics, Scrape},
    server::http,
    server::origin,
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use live::Streams;

use crate::{
    Settings, owners::Owners, receipts::Recorder, subscriptions::ViewSubscriptions, view::View,
};

/// What the handlers share.
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
pub fn router(
    settings: &Settings,
    auth: &Auth,
    app: App,
    following: &ViewSubscriptions,
    canary: Canary,
    metrics: &Metrics,
    local: bool,
) -> Router {
    let (log, partitions) = (following.clone(), following.clone());
    let health = Health::new()
        .with_check("kafka", move || log.clone().check_log())
        .with_check("partitions", move || partitions.clone().check_partitions());
    let health = canary.add_to_health(health);
    // One handle for all of it: a router copies its state at each request.
    let app = Arc::new(app);
    let scraped = Arc::clone(&app);
    // What concerns one user is answered by the owner of their partition.
    let to_owner = forward::ToOwner::new(Arc::clone(&app), settings.http.max_body_bytes);
    let of_a_user = |routes: OpenApiRouter<Arc<App>>, token| {
        auth.require_caller(routes.route_layer(to_owner.clone()), token)
    };
    let inboxes = OpenApiRouter::new()
        .routes(routes!(notifications::list, receipts::dismiss_all))
        .routes(routes!(receipts::read))
        .routes(routes!(receipts::unread))
        .routes(routes!(receipts::dismiss));
    let live = OpenApiRouter::new().routes(routes!(stream::open)).routes(routes!(socket::open));
    let operation = OpenApiRouter::new()
        .routes(routes!(partitions::list))
        .merge(metrics.routes(move |scrape: Scrape| states::tell(Arc::clone(&scraped), scrape)));
    let routes = OpenApiRouter::new()
        .merge(of_a_user(inboxes, TokenIn::Header))
        .merge(of_a_user(live, TokenIn::HeaderOrQuery))
        .merge(auth.require_scope(OPERATE, operation))
        .merge(health.routes());
    let routes = openapi::document_routes(
        routes,
        "Notifications: consumer",
        env!("CARGO_PKG_VERSION"),
        "Serves each user's notifications: at once, by waiting, or live.",
    );
    let mut routes = routes.merge(page::routes(&settings.page)).with_state(app);
    if !auth.is_on() {
        routes = origin::refuse_foreign_origins(routes, local, |_| false);
    }
    http::add_layers(routes, &settings.http, metrics)
}
