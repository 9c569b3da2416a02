//! All routes of the producer, in one table.

use std::borrow::Cow;

use axum::{
    Json, RequestExt as _, Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use service::{
    extract::{Body, BodyTimeout, media_type},
    health::Health,
    http,
    problem::Problem,
};

use crate::{
    Settings, bulk,
    directory::{Directory, Names},
    publish::Publisher,
    send::{Sender, idempotency::IdempotencyKey, keys::Keys, request::Send},
    users::{self, Users},
};

/// Every route, with the limits and error bodies that all of them share.
pub fn router(
    settings: &Settings,
    directory: Directory,
    names: Names,
    publisher: Publisher,
) -> Router {
    let (table, log) = (directory.clone(), publisher.clone());
    let health = Health::new()
        .check("directory", move || table.clone().check())
        .check("kafka", move || log.clone().check());
    let sender = Sender {
        names: names.clone(),
        publisher,
        keys: Keys::default(),
        deadline: settings.send_timeout,
    };
    let routes = Router::new()
        .route("/send", post(send))
        .with_state(sender)
        .merge(users::routes(Users { directory, names }))
        .merge(health.routes());
    // Outside of everything else: a browser shows a page no answer without its headers, and an error
    // is an answer too.
    http::layers(routes, &settings.http).layer(settings.cors_origins.layer())
}

async fn send(State(sender): State<Sender>, request: Request) -> Result<Response, Problem> {
    let key = IdempotencyKey::of(request.headers())?;
    let media_type = media_type(request.headers()).map(Cow::into_owned);
    if media_type.as_deref() == Some(bulk::MEDIA_TYPE) {
        let BodyTimeout(patience) = request.extensions().get().copied().unwrap_or_default();
        return Ok(bulk::send(sender, key, request.into_body(), patience).await);
    }
    let Body(body) = request.extract().await?;
    let send = Send::parse(media_type.as_deref(), &body)?;
    let accepted = sender.send(&send, key.as_ref()).await?;
    Ok(Json(accepted).into_response())
}
