//! `GET /`: the web inbox, as static files compiled into the binary. It loads no file of another
//! origin.

use std::sync::Arc;

use axum::{
    Router,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    },
    routing::get,
};
use bytes::Bytes;

use super::app::App;
use crate::settings::PageArgs;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The page's files: path, media type, content.
const FILES: [(&str, &str, &str); 13] = [
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

pub(super) fn page_routes(settings: &PageArgs) -> Router<Arc<App>> {
    // The setting accepts only an origin's characters, so the URL needs no escaping here.
    let producer = settings.producer_url.as_deref().unwrap_or("http://localhost:8080");
    let html = include_str!("../../page/index.html").replace("{{producer_url}}", producer);
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self' {producer}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy)
        .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"));
    let file = |media_type, content: Bytes| {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static(media_type)),
            // Revalidated each time, so that a page never mixes the files of two versions.
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (CONTENT_SECURITY_POLICY, policy.clone()),
        ];
        get(async move || (headers.clone(), content.clone()))
    };
    let page = Router::new().route("/", file(HTML, html.into()));
    FILES.into_iter().fold(page, |routes, (path, media_type, content)| {
        routes.route(path, file(media_type, Bytes::from_static(content.as_bytes())))
    })
}
