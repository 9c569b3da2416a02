//! All routes of the producer, in one table.

use axum::{Json, Router, extract::State, http::HeaderMap, routing::post};
use service::{
    extract::{Body, media_type},
    health::Health,
    http,
    problem::Problem,
};

use crate::{
    Settings,
    directory::Directory,
    publish::Publisher,
    send::{Sender, Sent, request::Send},
};

/// Every route, with the limits and error bodies that all of them share.
pub fn router(settings: &Settings, directory: Directory, publisher: Publisher) -> Router {
    let (users, log) = (directory.clone(), publisher.clone());
    let health = Health::new()
        .check("directory", move || users.clone().check())
        .check("kafka", move || log.clone().check());
    let sender = Sender { directory, publisher, deadline: settings.send_timeout };
    let routes = Router::new()
        .route("/send", post(send))
        .with_state(sender)
        .merge(Router::from(health.routes()));
    http::layers(routes, &settings.http)
}

async fn send(
    State(sender): State<Sender>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<Sent>, Problem> {
    let send = Send::parse(media_type(&headers).as_deref(), &body)?;
    sender.send(&send).await.map(Json)
}
