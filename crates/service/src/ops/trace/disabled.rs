//! The stand-in for `otlp` in a build without that feature: records no spans.

use axum::http::Method;

use super::{TraceArgs, TraceParent};

/// Fails if the settings name a collector.
pub(crate) fn init_exporter(_program: &str, args: &TraceArgs) -> Result<(), String> {
    match args.otlp_endpoint {
        Some(_) => Err("--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT): this build sends no traces; build with --features full".into()),
        None => Ok(()),
    }
}

pub(crate) fn flush_spans() {}

/// The span of a request, of which this build records none.
pub(crate) struct RequestSpan;

impl RequestSpan {
    pub(crate) fn end(self, _status: u16) {}
}

/// Passes the context on.
pub(crate) fn begin_span(
    _: &Method,
    _: &str,
    parent: Option<TraceParent>,
) -> (Option<TraceParent>, Option<RequestSpan>) {
    (parent, None)
}

/// Records nothing.
pub fn record_delivery(_traceparent: &str, _sent_at_ms: i64, _partition: i32, _offset: i64) {}

/// Returns false: this build records no spans.
#[must_use]
pub fn is_recording() -> bool {
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
        assert_eq!(init_exporter("test", &args(None)), Ok(()));
        let error =
            init_exporter("test", &args(Some("http://localhost:4318"))).expect_err("no exporter");
        assert!(error.contains("--otlp-endpoint") && error.contains("--features full"), "{error}");
    }
}
