//! Records the spans of this process and exports them by OTLP over HTTP.

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
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span as SdkSpan},
};

use super::{PATH, TraceArgs, TraceParent};

/// Bounds one export, and the last one at the end of the process.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

static TRACER: OnceLock<(SdkTracerProvider, SdkTracer)> = OnceLock::new();

/// Starts the exporter if the settings name a collector. Must run once, before the runtime starts:
/// the exporter uses a thread of its own.
pub(crate) fn init_exporter(program: &str, args: &TraceArgs) -> Result<(), String> {
    let Some(endpoint) = &args.otlp_endpoint else { return Ok(()) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{endpoint}{PATH}"))
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| format!("cannot export traces to {endpoint}: {error}"))?;
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

/// Exports the remaining spans. Must run at the end, outside of the runtime.
pub(crate) fn flush_spans() {
    if let Some((provider, _)) = TRACER.get()
        && let Err(error) = provider.shutdown_with_timeout(EXPORT_TIMEOUT)
    {
        tracing::warn!(%error, "the last spans were not exported");
    }
}

impl TraceParent {
    fn to_context(self) -> Context {
        Context::new().with_remote_span_context(SpanContext::new(
            TraceId::from(self.trace),
            SpanId::from(self.span),
            TraceFlags::new(self.flags),
            true,
            TraceState::default(),
        ))
    }
}

/// The span of a request that is under way.
pub(crate) struct RequestSpan(Box<SdkSpan>);

impl RequestSpan {
    /// Ends the span with the response's status.
    pub(crate) fn end(mut self, status: u16) {
        self.0.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}

/// Begins a request's span under `parent`, if traces are recorded. `route` is the matched pattern,
/// because paths hold ids and queries tokens. Returns the context for work that the request causes,
/// and the span.
pub(crate) fn begin_span(
    method: &Method,
    route: &str,
    parent: Option<TraceParent>,
) -> (Option<TraceParent>, Option<RequestSpan>) {
    let span = TRACER.get().map(|(_, tracer)| {
        let builder = SpanBuilder::from_name(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("http.request.method", method.to_string()),
                KeyValue::new("http.route", route.to_owned()),
            ]);
        let context = parent.map_or_else(Context::new, TraceParent::to_context);
        tracer.build_with_context(builder, &context)
    });
    let context = span.as_ref().map(|span| {
        let context = span.span_context();
        TraceParent {
            trace: u128::from_be_bytes(context.trace_id().to_bytes()),
            span: u64::from_be_bytes(context.span_id().to_bytes()),
            flags: context.trace_flags().to_u8(),
        }
    });
    (context.or(parent), span.map(|span| RequestSpan(Box::new(span))))
}

/// Records the span from the send (`sent_at_ms`, since 1970) to the view, in the trace of the
/// record's `traceparent`. Does nothing if that trace is not recorded.
pub fn record_delivery(traceparent: &str, sent_at_ms: i64, partition: i32, offset: i64) {
    let Some((_, tracer)) = TRACER.get() else { return };
    let Some(parent) = TraceParent::parse(traceparent) else { return };
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
    tracer.build_with_context(builder, &parent.to_context()).end();
}

/// Returns true if spans are recorded.
#[must_use]
pub fn is_recording() -> bool {
    TRACER.get().is_some()
}
