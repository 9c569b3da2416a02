//! `GET /`: the web inbox. Plain files, kept in the program; nothing is loaded from elsewhere.

use std::sync::Arc;

use axum::{
    Router,
    http::{
        HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    routing::get,
};
use bytes::Bytes;

use super::App;
use crate::settings::PageArgs;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Where the page itself says which producer it sends to.
const PRODUCER: &str = "{{producer_url}}";

/// The page's parts: path, media type, content.
const PARTS: [(&str, &str, &str); 13] = [
    ("/page/inbox.css", CSS, include_str!("../../page/inbox.css")),
    ("/page/icon.svg", SVG, include_str!("../../page/icon.svg")),
    ("/page/api.js", JS, include_str!("../../page/api.js")),
    ("/page/badge.js", JS, include_str!("../../page/badge.js")),
    ("/page/compose.js", JS, include_str!("../../page/compose.js")),
    ("/page/dom.js", JS, include_str!("../../page/dom.js")),
    ("/page/inbox.js", JS, include_str!("../../page/inbox.js")),
    ("/page/keys.js", JS, include_str!("../../page/keys.js")),
    ("/page/model.js", JS, include_str!("../../page/model.js")),
    ("/page/people.js", JS, include_str!("../../page/people.js")),
    ("/page/stream.js", JS, include_str!("../../page/stream.js")),
    ("/page/view.js", JS, include_str!("../../page/view.js")),
    ("/page/words.js", JS, include_str!("../../page/words.js")),
];

pub(super) fn routes(settings: &PageArgs) -> Router<Arc<App>> {
    // The setting lets only through what an origin is made of, so nothing needs an escape.
    let producer = settings.producer_url();
    let html = include_str!("../../page/index.html").replace(PRODUCER, producer);
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self' {producer}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
    let file = |media_type, content: Bytes| {
        let headers: [(HeaderName, HeaderValue); 3] = [
            (CONTENT_TYPE, HeaderValue::from_static(media_type)),
            // Asked for again each time, so that a new version is whole at once.
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (CONTENT_SECURITY_POLICY, policy.clone()),
        ];
        get(async move || (headers.clone(), content.clone()))
    };
    let page = Router::new().route("/", file(HTML, html.into()));
    PARTS.into_iter().fold(page, |routes, (path, media_type, content)| {
        routes.route(path, file(media_type, Bytes::from_static(content.as_bytes())))
    })
}
