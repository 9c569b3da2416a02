//! Traces across processes. A request brings a context (W3C Trace Context, `traceparent`) or begins
//! a trace; record headers carry it on. Spans go to a collector by OTLP over HTTP, if one is
//! configured; otherwise a context is passed on unchanged.

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "trace/disabled.rs"]
mod otlp;

use std::fmt;

use axum::http::{HeaderMap, HeaderName};

pub(crate) use otlp::{RequestSpan, begin_span, flush_spans, init_exporter};
pub use otlp::{is_recording, record_delivery};

/// The header of a context, in requests and in records.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The path of a collector that accepts spans.
const PATH: &str = "/v1/traces";

/// The collector.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// URL of a collector that accepts OTLP over HTTP, such as <http://localhost:4318>; without it,
    /// contexts are passed on and no spans are recorded. Needs a build with --features full
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = parse_collector_url)]
    pub otlp_endpoint: Option<String>,
    /// Ratio of the traces begun here that are recorded, from 0 to 1; a trace begun elsewhere
    /// carries its own sampling flag
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value_t = 0.01, value_name = "RATIO",
        value_parser = parse_ratio)]
    pub trace_ratio: f64,
}

fn parse_collector_url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").filter(|host| !host.trim_matches('/').is_empty());
    let url = host.map(|_| text.trim_end_matches('/').trim_end_matches(PATH).to_owned());
    url.ok_or_else(|| "must be an http:// URL such as http://localhost:4318".into())
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "must be a number from 0 to 1".into())
}

/// A context as in `traceparent` (<https://www.w3.org/TR/trace-context/>). It is written in version
/// 00; of later versions, the four fields of that version are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, flags } = self;
        write!(f, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

impl TraceParent {
    /// The request's context; `None` if it is missing or invalid, as the standard demands.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        headers.get(TRACEPARENT)?.to_str().ok().and_then(Self::parse)
    }

    fn parse(text: &str) -> Option<Self> {
        let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let mut parts = text.splitn(5, '-');
        let fields = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        let [version, trace, span, flags] = fields;
        if fields.map(str::len) != [2, 32, 16, 2]
            || !fields.iter().all(|field| field.bytes().all(lower_hex))
            || version == "ff"
            // Only a later version may have more fields.
            || (version == "00" && parts.next().is_some())
        {
            return None;
        }
        let (trace, span) =
            (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
        let flags = u8::from_str_radix(flags, 16).ok()?;
        (trace != 0 && span != 0).then_some(Self { trace, span, flags })
    }

    /// Returns true if the sender of this context records the trace.
    #[cfg(any(feature = "otlp", test))]
    fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_exactly_and_written_alike() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed = TraceParent::parse(text).expect("a traceparent");
        assert_eq!(parsed.to_string(), text);
        assert!(parsed.is_sampled());
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "1-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_traceparent_of_a_later_version_is_read_by_its_first_four_fields() {
        let fields = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for later in [format!("01-{fields}"), format!("cc-{fields}-what-the-future-will-be")] {
            let parsed = TraceParent::parse(&later).expect("a traceparent");
            assert_eq!(parsed.to_string(), format!("00-{fields}"), "{later}");
        }
    }
}
