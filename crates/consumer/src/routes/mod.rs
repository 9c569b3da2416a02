//! All routes of the consumer, in one table.

mod notifications;
mod partitions;

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use service::{health::Health, http};

use crate::{Settings, follow::Following, view::View};

/// What the handlers share.
#[derive(Clone)]
struct App {
    view: Arc<View>,
    patience: Duration,
}

/// Every route, with the limits and error bodies that all of them share.
#[must_use]
pub fn router(settings: &Settings, view: Arc<View>, following: &Following) -> Router {
    let app = App { view, patience: settings.inbox.patience };
    let (log, partitions) = (following.clone(), following.clone());
    let health = Health::new()
        .check("kafka", move || log.clone().check_log())
        .check("partitions", move || partitions.clone().check_partitions());
    let routes = Router::new()
        .route("/notifications/{id}", get(notifications::list))
        .route("/partitions", get(partitions::list))
        .with_state(app)
        .merge(health.routes());
    http::layers(routes, &settings.http)
}
