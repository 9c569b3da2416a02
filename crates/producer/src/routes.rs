//! The route table, and `POST /send`.

use std::{future::ready, sync::Arc};

use axum::{
    Json, RequestExt as _, Router,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use service::{
    auth::{Auth, Caller, OPERATE, TokenIn},
    extract::{Body, BodyBounds, media_type},
    openapi::{self, CommonProblemsWithBody, ProblemBody},
    ops::metrics::{Metrics, Scrape},
    ops::{canary::Canary, health::Health},
    problem::Problem,
    server::{
        admission::RequestPermit,
        budget::{Budget, BudgetExceeded},
        layer::ServerLayer,
        origin::OriginRule,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access, bulk,
    problems::RETRY_SOON,
    schema,
    send::{SendResponse, Sender, idempotency::IdempotencyKey, request::SendRequest},
    settings::Settings,
    users::users_routes,
};

/// All routes, with the limits and error bodies that they share.
pub(crate) fn build_router(
    settings: &Settings,
    auth: &Auth,
    sender: Sender,
    canary: Canary,
    metrics: &Metrics,
    local: bool,
) -> Router {
    let (users, log) = (sender.users.clone(), sender.publisher.clone());
    let log_name = log.log_kind();
    let (table, cached) = (users.directory().clone(), users.clone());
    let health = Health::new()
        .with_check("directory", move || table.clone().check_ready())
        .with_check(log_name, move || log.clone().check_ready());
    let health = canary.add_to_health(health);
    let scraped = metrics.routes(move |mut scrape: Scrape| {
        cached.report_cache(&mut scrape);
        ready(scrape)
    });
    let bulk_permits = Budget::new(settings.sending.max_bulks);
    let guarded = OpenApiRouter::new()
        .routes(routes!(post_send))
        .with_state(Arc::new(SendState { sender, bulk_permits }))
        .merge(users_routes(users));
    let routes = auth
        .require_caller(guarded, TokenIn::Header)
        .merge(auth.require_scope(OPERATE, scraped))
        .merge(health.routes());
    let routes = openapi::document_routes(
        routes,
        "Notifications: producer",
        env!("CARGO_PKG_VERSION"),
        "Takes notifications and publishes them; keeps the directory of users.",
    );
    let origins = &settings.sending.cors_origins;
    let mut layer = ServerLayer::new(&settings.http, metrics);
    if !auth.is_on() {
        let allowed = origins.clone();
        layer = layer.with_origin_rule(OriginRule::new(local, move |it| allowed.contains(it)));
    }
    // The outermost layer: without CORS headers a browser hides the response from the page, errors
    // included. Without origins the layer would only cost time.
    match origins.cors_layer() {
        Some(cors) => routes.layer((cors, layer)),
        None => routes.layer(layer),
    }
}

/// The state of `POST /send`. In one `Arc`, because axum clones the state for each request.
struct SendState {
    sender: Sender,
    /// One permit for each bulk request that may run.
    bulk_permits: Budget<Arc<str>>,
}

/// Send a message to one or several users, or many messages
///
/// A form or JSON is one message, answered once all its records are acknowledged. NDJSON is many
/// messages, one a line; each is answered with a line, in order, once it is acknowledged.
#[utoipa::path(post, path = "/send", tag = "send", operation_id = "send",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "Makes it safe to retry: 1 to 255 visible ASCII characters, as `\"…\"` or bare")),
    request_body(content(
        (schema::SendBody<'_> = "application/json"),
        (schema::SendForm = "application/x-www-form-urlencoded"),
        (String = "application/x-ndjson"))),
    responses(
        CommonProblemsWithBody,
        (status = 200, description = "Acknowledged", content(
            (SendResponse = "application/json"), (String = "application/x-ndjson"))),
        (status = 404, description = "A user does not exist, and nothing was sent to any; `unknown` has the ids", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 415, description = "The body is neither a form nor JSON nor NDJSON", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 422, description = "The `Idempotency-Key` was used for another notification; nothing was sent",
         body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than `--max-body-bytes`, or all its notifications together have more than 32 MiB; `limit` is the maximum",
         body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "The sender has sent more than `--rate-limit` allows; or the caller has a quarter of all bulks, requests, bodies or unread responses that are allowed",
         body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, description = "Kafka or PostgreSQL is not available, or a limit of the service \
            is reached. Nothing was sent, or only to the users in `sent`; it is safe to retry for those in \
            `failed`",
         body = ProblemBody, content_type = "application/problem+json"),
        (status = 504, description = "Not acknowledged within `--send-timeout`: the notification may \
            still be delivered. It is safe to retry with the same `Idempotency-Key`; without one, it \
            may be shown twice",
         body = ProblemBody, content_type = "application/problem+json")))]
async fn post_send(
    State(sending): State<Arc<SendState>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Problem> {
    let SendState { sender, bulk_permits } = &*sending;
    access::may_send(&caller)?;
    let trace = request.extensions().get().copied();
    let key = IdempotencyKey::from_headers(request.headers())?;
    let media_type = media_type(request.headers());
    if media_type.as_deref() == Some(bulk::MEDIA_TYPE) {
        let permit = bulk_permits.take(caller.subject().map(Arc::from), 1);
        let permit = permit.map_err(|exceeded| {
            if let Some(permit) = request.extensions().get::<RequestPermit>() {
                permit.count_shed("bulks");
            }
            bulk_problem(exceeded)
        })?;
        let BodyBounds { timeout, .. } = request.extensions().get().cloned().unwrap_or_default();
        let bulk =
            bulk::BulkRequest { sender: sender.clone(), caller, key, trace, _permit: permit };
        return Ok(bulk::send_bulk(bulk, request.into_body(), timeout).await);
    }
    let Body(body) = request.extract().await?;
    let send = SendRequest::parse(media_type.as_deref(), &body)?;
    access::may_send_as(&caller, send.from)?;
    let bytes = send.record_bytes();
    let limits = sender.limits.take_tokens(send.from, send.to.len(), bytes)?;
    let accepted = sender.send(&send, key.as_ref(), trace).await?;
    Ok((limits.map(|limits| limits.to_headers()), Json(accepted)).into_response())
}

fn bulk_problem(exceeded: BudgetExceeded) -> Problem {
    match exceeded {
        BudgetExceeded::Total => {
            Problem::unavailable("Too many concurrent bulk requests; try again shortly", RETRY_SOON)
        }
        BudgetExceeded::Share => {
            let message = "Too many of your bulk requests are under way; finish them first";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(RETRY_SOON)
        }
    }
}
