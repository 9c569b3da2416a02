//! `/openapi.json` (OpenAPI 3.1) and `/docs`, a page that shows it, interactive with the feature
//! `swagger-ui`. The page works without a network.
//!
//! Routes and document come from the same annotations.

use std::collections::BTreeMap;

use axum::{
    Router,
    http::{HeaderValue, header::CONTENT_SECURITY_POLICY},
};
use serde::Serialize;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder, SecurityRequirement,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::problem::MEDIA_TYPE;

const DOCUMENT: &str = "/openapi.json";

/// The page loads nothing of another origin. Swagger UI writes style attributes, and its pictures
/// are `data:` URLs.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                           img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'none'";

/// Splits routes and document, and adds the routes that serve the document.
pub fn document_routes<S>(
    routes: OpenApiRouter<S>,
    title: &str,
    version: &str,
    about: &str,
) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let (routes, mut api) = routes.split_for_parts();
    title.clone_into(&mut api.info.title);
    version.clone_into(&mut api.info.version);
    api.info.description = Some(about.to_owned());
    // Required if authentication is on.
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.responses.extend(PROBLEMS.map(|(status, when)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(when).content(MEDIA_TYPE, content);
        (status.to_owned(), RefOr::T(response.build()))
    }));
    api.security =
        Some(vec![SecurityRequirement::new("bearer", [""; 0]), SecurityRequirement::default()]);
    // The defaults are the library's own.
    (api.info.contact, api.info.license) = (None, None);
    let policy = SetResponseHeaderLayer::overriding(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(PAGE_POLICY),
    );
    routes.merge(docs_router(api).layer(policy))
}

#[cfg(feature = "swagger-ui")]
fn docs_router<S: Clone + Send + Sync + 'static>(api: OpenApi) -> Router<S> {
    use utoipa_swagger_ui::{Config, SwaggerUi};

    let config = Config::new([DOCUMENT]).use_base_layout().validator_url("none");
    SwaggerUi::new("/docs").config(config).url(DOCUMENT, api).into()
}

/// The document, and a page that lists its routes.
#[cfg(not(feature = "swagger-ui"))]
fn docs_router<S: Clone + Send + Sync + 'static>(api: OpenApi) -> Router<S> {
    use axum::{Json, response::Html, routing::get};

    let page = Html(route_list(&api));
    let show_page = get(move || std::future::ready(page.clone()));
    let document = Json(serde_json::to_value(api).unwrap_or_default());
    Router::new()
        .route("/docs", show_page.clone())
        .route("/docs/", show_page)
        .route(DOCUMENT, get(move || std::future::ready(document.clone())))
}

#[cfg(not(feature = "swagger-ui"))]
fn route_list(api: &OpenApi) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let mut routes = String::new();
    for (path, item) in &api.paths.paths {
        let operations = [&item.get, &item.put, &item.post, &item.delete];
        for (method, operation) in ["GET", "PUT", "POST", "DELETE"].into_iter().zip(operations) {
            let Some(operation) = operation else { continue };
            let summary = escape(operation.summary.as_deref().unwrap_or_default());
            routes += &format!("<dt><code>{method} {path}</code><dd>{summary}\n");
        }
    }
    let (title, about) =
        (escape(&api.info.title), escape(api.info.description.as_deref().unwrap_or_default()));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <h1>{title}</h1>\n<p>{about}\n<dl>\n{routes}</dl>\n\
         <p>The full description: <a href=\"{DOCUMENT}\">{DOCUMENT}</a> (OpenAPI 3.1). \
         A build with <code>--features full</code> shows it here as an interactive page.\n"
    )
}

/// The errors that do not depend on the route, by status. The document has them all as
/// `#/components/responses/<status>`; routes refer to those that a well-formed request can get.
const PROBLEMS: [(&str, &str); 14] = [
    (
        "400",
        "A field, parameter, header or body is invalid: `message` says which and why, `field` names \
         it. Also for a request without `Host`",
    ),
    (
        "401",
        "Authentication is on, and the token is missing, invalid or expired; `WWW-Authenticate` \
         says which",
    ),
    (
        "403",
        "The token lacks the permission. Without authentication: the request comes from a page of \
         another origin, or names another host than this machine",
    ),
    ("404", "There is no such route"),
    ("405", "The route does not accept the method; `Allow` lists those that it accepts"),
    ("408", "The body did not arrive within `--body-timeout`"),
    ("413", "The body is larger than `--max-body-bytes`; `limit` is the maximum"),
    ("414", "The path and query are longer than 16 KiB"),
    ("415", "The body is encoded (`Content-Encoding`), or in another character set than UTF-8"),
    (
        "429",
        "The caller has a quarter of all requests, bodies or unread responses that are allowed; \
         `Retry-After` and `retry_after` say when to try again",
    ),
    (
        "431",
        "The request line and headers are larger than `--max-header-bytes`; this response has no \
         body",
    ),
    ("500", "A defect of the service. Its log has the cause; the response does not"),
    (
        "503",
        "A dependency is not available, or a limit of the service is reached; `Retry-After` and \
         `retry_after` say when to try again",
    ),
    ("504", "No response within `--request-timeout`: the outcome is unknown"),
];

/// An error (RFC 9457, `application/problem+json`). The members after `message` are only in the
/// errors that their descriptions name.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[schema(rename = "type")]
    pub r#type: String,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// The message.
    pub detail: String,
    /// The same text.
    pub message: String,
    /// 400 and 403: the invalid field, parameter or header.
    #[schema(required = false)]
    pub field: Option<String>,
    /// 429 and 503: when to try again, in seconds; the header `Retry-After` says the same.
    #[schema(required = false)]
    pub retry_after: Option<u64>,
    /// 400, 413 and 414: the maximum that was exceeded.
    #[schema(required = false)]
    pub limit: Option<u64>,
    /// 404 of a send: the ids of the users who do not exist.
    #[schema(required = false)]
    pub unknown: Option<Vec<i64>>,
    /// Of a send to several users, some of whom were sent to: those, as in the response 200.
    #[schema(required = false)]
    pub sent: Option<Vec<serde_json::Value>>,
    /// Beside `sent`: the users who were not sent to, each with `to_id`, `status` and `message`.
    #[schema(required = false)]
    pub failed: Option<Vec<serde_json::Value>>,
    /// 503 of an inbox: the partition in which it lives.
    #[schema(required = false)]
    pub partition: Option<i32>,
    /// 503 of an inbox: `unowned` (no instance is known to own the partition), `unreachable` (its
    /// owner does not answer), `rebuilding`, `behind` (the partition cannot follow its log, or Kafka
    /// does not confirm that this instance still owns it), or `live` (it has not caught up to
    /// `at_least`, or to the receipt).
    #[schema(required = false)]
    pub state: Option<String>,
    /// 503 with `unreachable`: URL at which the other instances reach the owner.
    #[schema(required = false)]
    pub owner: Option<String>,
    /// 503 with `rebuilding`: how far the partition is.
    #[schema(required = false, value_type = Option<Object>)]
    pub progress: Option<serde_json::Value>,
    /// 503 with `live`: the offset up to which the inbox is current.
    #[schema(required = false)]
    pub position: Option<i64>,
    /// 503 with `behind`: since when the partition cannot follow its log (RFC 3339).
    #[schema(required = false)]
    pub since: Option<String>,
    /// 503 with `behind`: why the partition cannot follow its log.
    #[schema(required = false)]
    pub cause: Option<String>,
    /// 503 of `/readyz`: each check by name, with `ok` and `detail`.
    #[schema(required = false, value_type = Option<Object>)]
    pub checks: Option<serde_json::Value>,
}

/// The errors of every route. For `responses(…)`, before responses that replace one of these.
#[derive(Debug)]
pub struct CommonProblems;

/// The errors of every route with a body. For `responses(…)`, before responses that replace one of
/// these.
#[derive(Debug)]
pub struct CommonProblemsWithBody;

impl IntoResponses for CommonProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refer_to_problems(&["400", "401", "403", "429", "500", "503"])
    }
}

impl IntoResponses for CommonProblemsWithBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        refer_to_problems(&["400", "401", "403", "408", "413", "415", "429", "500", "503"])
    }
}

fn refer_to_problems(statuses: &[&str]) -> BTreeMap<String, RefOr<Response>> {
    let refer =
        |status: &&str| ((*status).to_owned(), RefOr::Ref(Ref::from_response_name(*status)));
    statuses.iter().map(refer).collect()
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    use utoipa_axum::routes;

    use super::*;

    /// Says hello & waves
    #[utoipa::path(get, path = "/hello", responses((status = 200)))]
    async fn hello() {}

    #[tokio::test]
    async fn every_build_shows_the_document_and_a_page() {
        let routes = OpenApiRouter::new().routes(routes!(hello));
        let app: Router = document_routes(routes, "Test", "1", "A test.");
        let get = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).expect("a request");
            let response = app.clone().oneshot(request).await.expect("an answer");
            assert_eq!(response.status(), 200, "{path}");
            let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().expect("text");
            assert!(policy.contains("script-src 'self';"), "{path}: {policy}");
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            String::from_utf8(body.to_vec()).expect("text")
        };
        let document: serde_json::Value =
            serde_json::from_str(&get("/openapi.json").await).expect("JSON");
        assert_eq!(document["info"]["title"], "Test");
        assert!(document["paths"]["/hello"]["get"].is_object(), "{document}");
        let page = get("/docs/").await;
        if cfg!(feature = "swagger-ui") {
            assert!(page.contains("swagger"), "{page}");
        } else {
            assert!(page.contains("GET /hello</code><dd>Says hello &amp; waves"), "{page}");
            assert!(page.contains("href=\"/openapi.json\""), "{page}");
        }
    }
}
