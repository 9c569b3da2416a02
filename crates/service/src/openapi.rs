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

/// An error (RFC 9457, `application/problem+json`). Some errors have further members that the
/// client can act on.
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
    /// The invalid field, parameter or header.
    #[schema(required = false)]
    pub field: Option<String>,
    /// When to try again, in seconds.
    #[schema(required = false)]
    pub retry_after: Option<u64>,
}

/// The errors of every route. For `responses(…)`.
#[derive(Debug)]
pub struct CommonProblems;

/// The errors of every route with a body.
#[derive(Debug)]
pub struct CommonProblemsWithBody;

impl IntoResponses for CommonProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problem_responses(&[
            ("400", "The request is invalid; the message says why"),
            ("401", "The token is missing, invalid or expired"),
            ("403", "The token lacks permission, or the request is cross-origin"),
            ("500", "Internal error"),
            (
                "503",
                "A dependency is unavailable or the service is overloaded; retry after Retry-After",
            ),
        ])
    }
}

impl IntoResponses for CommonProblemsWithBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = CommonProblems::responses();
        responses.extend(problem_responses(&[
            ("408", "The body did not arrive in time"),
            ("413", "The body is too large"),
            ("415", "The body is encoded (Content-Encoding), or not in UTF-8"),
        ]));
        responses
    }
}

fn problem_responses(list: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let schema = Ref::from_schema_name("Problem");
    list.iter()
        .map(|(status, why)| {
            let content = ContentBuilder::new().schema(Some(schema.clone())).build();
            let response = ResponseBuilder::new().description(*why).content(MEDIA_TYPE, content);
            ((*status).to_owned(), RefOr::T(response.build()))
        })
        .collect()
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
