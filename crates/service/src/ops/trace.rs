//! Traces: what one notification's way took, over all processes that it went through. A request
//! brings its context (W3C Trace Context, `traceparent`), or begins a trace here; the log's records
//! carry it on. Spans are sent to a collector where one is given, by OTLP over HTTP; without one, a
//! context that comes is passed on as it is.

use std::{
    fmt,
    str::FromStr,
    sync::OnceLock,
    time::{Duration, UNIX_EPOCH},
};

use axum::http::{HeaderMap, HeaderName, Method};
use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState,
        Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span},
};

/// The header that carries a context, in requests and in records.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Where a collector takes spans, under its address.
const PATH: &str = "/v1/traces";
/// How long the last spans may take to be sent at the end.
const FLUSH: Duration = Duration::from_secs(3);

static TRACER: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

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

/// Begins to record, if the settings name a collector. To be called once, before there is a
/// runtime: the exporter works on a thread of its own.
///
/// # Errors
/// What is wrong with the exporter's settings.
pub(crate) fn init(program: &str, args: &TraceArgs) -> Result<(), String> {
    let Some(endpoint) = &args.otlp_endpoint else { return Ok(()) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{endpoint}{PATH}"))
        .with_timeout(FLUSH)
        .build()
        .map_err(|error| format!("traces cannot be sent to {endpoint}: {error}"))?;
    let sampler = Sampler::TraceIdRatioBased(args.trace_ratio);
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(sampler)))
        .with_resource(Resource::builder().with_service_name(program.to_owned()).build())
        .build();
    let tracer = provider.tracer("notifications");
    let _ = TRACER.set((provider, tracer));
    Ok(())
}

/// Sends what is not sent yet. To be called at the end, outside of the runtime.
pub(crate) fn flush() {
    if let Some((provider, _)) = TRACER.get()
        && let Err(error) = provider.shutdown_with_timeout(FLUSH)
    {
        tracing::warn!(%error, "the last traces were not sent");
    }
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

    /// Whether the trace is recorded by those who began it.
    fn is_sampled(self) -> bool {
        self.flags & 1 == 1
    }

    fn context(self) -> Context {
        Context::new().with_remote_span_context(SpanContext::new(
            TraceId::from_bytes(self.trace),
            SpanId::from_bytes(self.span),
            TraceFlags::new(self.flags),
            true,
            TraceState::default(),
        ))
    }
}

impl From<&SpanContext> for TraceParent {
    fn from(context: &SpanContext) -> Self {
        Self {
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        }
    }
}

/// A request's span, as long as it is worked on.
pub(crate) struct RequestSpan(Span);

impl RequestSpan {
    /// Begins one that continues `parent`, where traces are recorded. `route` is the matched
    /// pattern: paths as sent have ids in them, and queries tokens.
    pub(crate) fn begin(method: &Method, route: &str, parent: Option<TraceParent>) -> Option<Self> {
        let (_, tracer) = TRACER.get()?;
        let builder = SpanBuilder::from_name(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_string()),
                KeyValue::new("http.route", route.to_owned()),
            ]);
        let context = parent.map_or_else(Context::new, TraceParent::context);
        Some(Self(tracer.build_with_context(builder, &context)))
    }

    /// Its place in the trace, for what it causes.
    pub(crate) fn place(&self) -> TraceParent {
        self.0.span_context().into()
    }

    /// Ends it with the response's status.
    pub(crate) fn end(mut self, status: u16) {
        self.0.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}

/// Records that a notification, which was sent at this time (milliseconds since 1970), is in the
/// view: a span from one to the other, as a part of the trace that its record carries. Nothing, where that is not recorded.
pub fn delivered(traceparent: &str, sent_at_ms: i64, partition: i32, offset: i64) {
    let Some((_, tracer)) = TRACER.get() else { return };
    let Ok(parent) = traceparent.parse::<TraceParent>() else { return };
    if !parent.is_sampled() {
        return;
    }
    let sent = Duration::from_millis(u64::try_from(sent_at_ms).unwrap_or_default());
    let builder = SpanBuilder::from_name("notifications process")
        .with_kind(SpanKind::Consumer)
        .with_start_time(UNIX_EPOCH + sent)
        .with_attributes([
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.partition.id", partition.to_string()),
            KeyValue::new("messaging.kafka.offset", offset),
        ]);
    tracer.build_with_context(builder, &parent.context()).end();
}

/// Whether [`delivered`] does anything.
#[must_use]
pub fn is_recorded() -> bool {
    TRACER.get().is_some()
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
