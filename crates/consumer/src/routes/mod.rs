//! All routes of the consumer, in one table.

pub(crate) mod app;
mod forward;
mod query;
mod notifications;
pub(crate) mod streams;
mod live;
mod jitter;
mod heartbeats;
mod accept;
mod stream;
mod event_source;
mod socket;
mod receipts;
mod page;
mod partitions;
mod scrape;
mod problems;

use std::sync::Arc;

use axum::Router;
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

use crate::{
    cluster::peers::PeerNetworks, settings::ConsumerSettings, subscriptions::ViewSubscriptions,
};
use app::App;

/// Builds the router: every route, behind the limits and error bodies that all of them share.
pub(crate) fn build_router(
    settings: &ConsumerSettings,
    auth: &Auth,
    app: App,
    subscriptions: &ViewSubscriptions,
    canary: Canary,
    metrics: &Metrics,
    local: bool,
) -> Router {
    let log_name = app.log.kind();
    let (log, partitions) = (subscriptions.clone(), subscriptions.clone());
    let health = Health::new()
        .with_check(log_name, move || log.clone().check_log())
        .with_check("partitions", move || partitions.clone().check_partitions());
    let health = canary.add_to_health(health);
    // One handle for all of it: a router clones its state at each request.
    let app = Arc::new(app);
    let scraped = Arc::clone(&app);
    let networks = PeerNetworks::new(&settings.peers.peers);
    let forward = forward::forward_layer(Arc::clone(&app), networks);
    let user_routes = |routes: OpenApiRouter<Arc<App>>, token| {
        auth.require_caller(routes.route_layer(forward.clone()), token)
    };
    let inboxes = OpenApiRouter::new()
        .routes(routes!(notifications::list_notifications, receipts::dismiss_all))
        .routes(routes!(receipts::mark_read))
        .routes(routes!(receipts::mark_unread))
        .routes(routes!(receipts::dismiss_one));
    let live = OpenApiRouter::new()
        .routes(routes!(stream::open_stream))
        .routes(routes!(socket::open_socket));
    let operation = OpenApiRouter::new().routes(routes!(partitions::list_partitions)).merge(
        metrics.routes(move |scrape: Scrape| scrape::scrape_state(Arc::clone(&scraped), scrape)),
    );
    let routes = OpenApiRouter::new()
        .merge(user_routes(inboxes, TokenIn::Header))
        .merge(user_routes(live, TokenIn::HeaderOrQuery))
        .merge(auth.require_scope(OPERATE, operation))
        .merge(health.routes());
    let routes = openapi::document_routes(
        routes,
        "Notifications: consumer",
        env!("CARGO_PKG_VERSION"),
        "Serves each user's notifications: at once, by long polling, or as a live stream.",
    );
    let mut routes = routes.merge(page::page_routes(&settings.page)).with_state(app);
    if !auth.is_on() {
        routes = origin::refuse_foreign_origins(routes, local, |_| false);
    }
    http::add_layers(routes, &settings.http, metrics).layer(event_source::keep_event_sources())
}
