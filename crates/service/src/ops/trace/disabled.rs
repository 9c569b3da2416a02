//! In place of `otlp` in a build without that feature: records no spans.

use axum::http::Method;

use super::{TraceArgs, TraceParent};

/// Fails if the settings name a collector.
pub(crate) fn init(_program: &str, args: &TraceArgs) -> Result<(), String> {
    match args.otlp_endpoint {
        Some(_) => Err("--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT): this build sends no traces; build with --features full".into()),
        None => Ok(()),
    }
}

pub(crate) fn flush() {}

/// A request's span, of which there are none here.
pub(crate) enum RequestSpan {}

impl RequestSpan {
    pub(crate) fn begin(_: &Method, _: &str, _: Option<TraceParent>) -> Option<Self> {
        None
    }

    pub(crate) fn place(&self) -> TraceParent {
        match *self {}
    }

    pub(crate) fn end(self, _status: u16) {
        match self {}
    }
}

/// Records nothing.
pub fn delivered(_traceparent: &str, _sent_at_ms: i64, _partition: i32, _offset: i64) {}

/// Returns false: this build records no spans.
#[must_use]
pub fn is_recorded() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_refused_at_the_start() {
        let args = |url: Option<&str>| TraceArgs {
            otlp_endpoint: url.map(str::to_owned),
            trace_ratio: 1.0,
        };
        assert_eq!(init("test", &args(None)), Ok(()));
        let error = init("test", &args(Some("http://localhost:4318"))).expect_err("no exporter");
        assert!(error.contains("--otlp-endpoint") && error.contains("--features full"), "{error}");
    }
}
