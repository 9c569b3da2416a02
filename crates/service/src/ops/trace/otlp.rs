//! The spans of this process, and their way to a collector by OTLP over HTTP.

use std::{
    sync::OnceLock,
    time::{Duration, UNIX_EPOCH},
};

use axum::http::Method;
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

use super::{PATH, TraceArgs, TraceParent};

/// Bounds one export, and the last one at the end of the process.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

static TRACER: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

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
        .with_timeout(EXPORT_TIMEOUT)
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
        && let Err(error) = provider.shutdown_with_timeout(EXPORT_TIMEOUT)
    {
        tracing::warn!(%error, "the last traces were not sent");
    }
}

impl TraceParent {
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
