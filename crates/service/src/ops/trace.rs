//! Traces: what one notification's way took, over all processes that it went through. A request
//! brings its context (W3C Trace Context, `traceparent`), or begins a trace here; the log's records
//! carry it on. Spans are sent to a collector where one is given, by OTLP over HTTP; without one, a
//! context that comes is passed on as it is.

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "trace/disabled.rs"]
mod otlp;

use std::{fmt, str::FromStr};

use axum::http::{HeaderMap, HeaderName};

pub(crate) use otlp::{RequestSpan, flush, init};
pub use otlp::{delivered, is_recorded};
/// The header that carries a context, in requests and in records.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Where a collector takes spans, under its address.
const PATH: &str = "/v1/traces";
/// Where spans go.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub struct TraceArgs {
    /// URL of a collector that takes OTLP over HTTP, such as <http://localhost:4318>; without one,
    /// a context that a request brings is passed on and nothing is recorded
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = collector)]
    pub otlp_endpoint: Option<String>,
    /// The part of all traces that begin here which is recorded, from 0 to 1; one that comes from
    /// elsewhere is recorded if it says so
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", default_value_t = 0.01, value_name = "RATIO",
        value_parser = ratio)]
    pub trace_ratio: f64,
}

fn collector(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(host) if !host.trim_matches('/').is_empty() => {
            Ok(text.trim_end_matches('/').trim_end_matches(PATH).to_owned())
        }
        _ => Err("must be an http:// URL such as http://localhost:4318".into()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "must be a number from 0 to 1".into())
}

/// A place in a trace, as `traceparent` has it (<https://www.w3.org/TR/trace-context/>, version 00).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

/// Why a text is not a [`TraceParent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a traceparent of version 00")]
pub struct InvalidTraceParent;

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
            let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            if text.len() != N * 2 || !text.bytes().all(lower) {
                return None;
            }
            let mut bytes = [0; N];
            for (index, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
            }
            Some(bytes)
        }
        let mut parts = text.split('-');
        let parsed = (|| {
            let version = hex::<1>(parts.next()?)?;
            let parsed = Self {
                trace: hex(parts.next()?)?,
                span: hex(parts.next()?)?,
                flags: hex::<1>(parts.next()?)?[0],
            };
            let whole = version == [0] && parts.next().is_none();
            (whole && parsed.trace != [0; 16] && parsed.span != [0; 8]).then_some(parsed)
        })();
        parsed.ok_or(InvalidTraceParent)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, span, flags } = self;
        let (trace, span) = (u128::from_be_bytes(*trace), u64::from_be_bytes(*span));
        write!(f, "00-{trace:032x}-{span:016x}-{flags:02x}")
    }
}

impl TraceParent {
    /// What a request brings; nothing, if it is not one (which is to be ignored, as the standard
    /// says).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
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
        let parsed: TraceParent = text.parse().expect("a traceparent");
        assert_eq!(parsed.to_string(), text);
        assert!(parsed.is_sampled());
        for wrong in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(wrong.parse::<TraceParent>(), Err(InvalidTraceParent), "{wrong}");
        }
    }
}
