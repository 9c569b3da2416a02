//! A service's own description: `/openapi.json` (OpenAPI 3.1) and `/docs`, a page that shows it
//! and tries it out. Nothing of that page comes from elsewhere, so it works without a network.
//!
//! Routes and description come from the same annotations, so that neither has what the other lacks.

use std::collections::BTreeMap;

use axum::Router;
use serde::Serialize;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        ContentBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder, SecurityRequirement,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::problem::MEDIA_TYPE;

/// Takes routes and description apart, and adds the routes that show the description.
pub fn described<S>(routes: OpenApiRouter<S>, title: &str, version: &str, about: &str) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let (routes, mut api) = routes.split_for_parts();
    title.clone_into(&mut api.info.title);
    version.clone_into(&mut api.info.version);
    api.info.description = Some(about.to_owned());
    // Asked for where authentication is on.
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    api.security =
        Some(vec![SecurityRequirement::new("bearer", [""; 0]), SecurityRequirement::default()]);
    // What is there by default is the library's own.
    (api.info.contact, api.info.license) = (None, None);
    routes.merge(pages(api))
}

fn pages<S: Clone + Send + Sync + 'static>(api: OpenApi) -> Router<S> {
    const DOCUMENT: &str = "/openapi.json";
    let config = Config::new([DOCUMENT]).use_base_layout().validator_url("none");
    SwaggerUi::new("/docs").config(config).url(DOCUMENT, api).into()
}

/// An error's body (RFC 9457, `application/problem+json`). Some errors have more members, which
/// say what the client can act on.
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
    /// What is wrong.
    pub detail: String,
    /// The same text.
    pub message: String,
    /// The field, parameter or header that cannot be used.
    #[schema(required = false)]
    pub field: Option<String>,
    /// When to try again, in seconds.
    #[schema(required = false)]
    pub retry_after: Option<u64>,
}

/// What any route may answer when it does not do what was asked. For `responses(…)`.
#[derive(Debug)]
pub struct Refused;

/// The same for routes that take a body.
#[derive(Debug)]
pub struct RefusedWithBody;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            ("400", "Something in the request cannot be used: the message says what and why"),
            ("401", "A token is needed, or the one that came is not good (any more)"),
            ("403", "The token is not for this; or a page of another origin asked"),
            ("500", "A defect of ours"),
            (
                "503",
                "Something that is needed is away, or there is too much to do: try again after Retry-After",
            ),
        ])
    }
}

impl IntoResponses for RefusedWithBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = Refused::responses();
        responses.extend(problems(&[
            ("408", "The body did not arrive in time"),
            ("413", "The body is too large"),
        ]));
        responses
    }
}

fn problems(list: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let schema = Ref::from_schema_name("Problem");
    list.iter()
        .map(|(status, why)| {
            let content = ContentBuilder::new().schema(Some(schema.clone())).build();
            let response = ResponseBuilder::new().description(*why).content(MEDIA_TYPE, content);
            ((*status).to_owned(), RefOr::T(response.build()))
        })
        .collect()
}
