//! All routes of the producer, in one table.

use std::{borrow::Cow, future::ready};

use axum::{
    Json, RequestExt as _, Router,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use service::{
    extract::{Body, BodyTimeout, media_type},
    health::Health,
    http,
    metrics::{Metrics, Scrape},
    openapi::{self, ProblemBody, RefusedWithBody},
    problem::Problem,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Settings, bulk,
    directory::{Directory, Names},
    metrics::{Outcomes, states},
    publish::Publisher,
    schema,
    send::{Sender, idempotency::IdempotencyKey, keys::Keys, request::Send},
    users::{self, Users},
};

/// Every route, with the limits and error bodies that all of them share.
pub fn router(
    settings: &Settings,
    directory: Directory,
    names: Names,
    publisher: Publisher,
    metrics: &Metrics,
) -> Router {
    let (table, log) = (directory.clone(), publisher.clone());
    let health = Health::new()
        .check("directory", move || table.clone().check())
        .check("kafka", move || log.clone().check());
    let cached = names.clone();
    let scraped = metrics.routes(move |mut scrape: Scrape| {
        states(&cached, &mut scrape);
        ready(scrape)
    });
    let sender = Sender {
        names: names.clone(),
        publisher,
        keys: Keys::default(),
        outcomes: Outcomes::default(),
        deadline: settings.send_timeout,
    };
    let routes = OpenApiRouter::new()
        .routes(routes!(send))
        .with_state(sender)
        .merge(users::routes(Users { directory, names }))
        .merge(health.routes())
        .merge(scraped);
    let routes = openapi::described(
        routes,
        "Notifications: producer",
        env!("CARGO_PKG_VERSION"),
        "Takes notifications and publishes them; keeps the directory of users.",
    );
    // Outside of everything else: a browser shows a page no answer without its headers, and an error
    // is an answer too.
    http::layers(routes, &settings.http, metrics).layer(settings.cors_origins.layer())
}

/// Send a message
///
/// To one or several users, answered once everything is acknowledged; or many messages, one a
/// line, each answered with a line of its own as it is acknowledged.
#[utoipa::path(post, path = "/send", tag = "send",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Makes it safe to send this again: 1 to 255 visible ASCII characters, as `\"…\"` or bare")),
    request_body(content(
        (schema::Send = "application/json"),
        (schema::SendForm = "application/x-www-form-urlencoded"),
        (String = "application/x-ndjson"))),
    responses(
        (status = 200, description = "Acknowledged", content(
            (schema::Sent = "application/json"), (String = "application/x-ndjson"))),
        (status = 404, description = "A user does not exist; nothing was sent", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 415, description = "Neither a form nor JSON nor lines of it", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 422, description = "The Idempotency-Key was used for something else",
         body = ProblemBody, content_type = "application/problem+json"),
        (status = 504, description = "Not acknowledged in time: the outcome is unknown",
         body = ProblemBody, content_type = "application/problem+json"),
        RefusedWithBody))]
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
