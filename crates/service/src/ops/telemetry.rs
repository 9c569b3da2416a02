//! Logs: one line an event on standard error, as text or JSON. Standard output is for the output of
//! commands.

use std::{backtrace::BacktraceStatus, io::IsTerminal};

use tracing_subscriber::{
    EnvFilter, Layer as _, filter::LevelFilter, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::ops::{printable::printable, trace::TraceArgs};

/// Logging and tracing.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Logging")]
pub struct TelemetryArgs {
    /// Format of log lines: auto is text on a terminal and JSON otherwise
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t, value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Log filter: a level (error, warn, info, debug, trace) or levels for targets, such as
    /// info,http=debug. Drivers (librdkafka, sqlx, h2) log at warn unless named
    #[arg(long, env = "RUST_LOG", default_value = DEFAULT_FILTER, value_name = "FILTER")]
    pub log: String,
    /// Traces.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// Format of log lines.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal and JSON otherwise.
    #[default]
    Auto,
    /// Text; coloured on a terminal unless `NO_COLOR` is set (<https://no-color.org>).
    Text,
    /// A JSON object a line, its fields at the top level.
    Json,
}

const DEFAULT_FILTER: &str = "info";

/// Targets of drivers, quiet by default. sqlx logs each query, and h2 at trace each header with its
/// value.
const QUIET: &str = "librdkafka=warn,rdkafka=warn,sqlx=warn,h2=warn";

/// Starts logging for the whole process, panics included. Call it once.
pub fn init_logging(args: &TelemetryArgs) -> Result<(), String> {
    let terminal = std::io::stderr().is_terminal();
    let json = match args.log_format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // Without this, a failed write to standard error is reported by a macro that panics if that
    // write fails too.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = if json {
        lines.json().flatten_event(true).with_span_list(false).boxed()
    } else {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        lines.fmt_fields(fmt::format::debug_fn(write_field)).with_ansi(terminal && colour).boxed()
    };
    tracing_subscriber::registry()
        .with(build_filter(&args.log)?)
        .with(lines)
        .try_init()
        .map_err(|_| "logging is already set up in this process")?;
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let captured = backtrace.status() == BacktraceStatus::Captured;
        tracing::error!(
            panic.message = panic.payload_as_str().unwrap_or("(not text)"),
            panic.location = panic.location().map(tracing::field::display),
            panic.backtrace = captured.then(|| tracing::field::display(backtrace)),
            "a thread or task panicked"
        );
    }));
    Ok(())
}

/// The most characters of one field of a text line.
const MAX_FIELD_CHARS: usize = 2000;

/// Writes a field of a text line. Its value may be foreign, so it must not begin a line of its own
/// or control the terminal. Only the backtrace of a panic, which is ours, has several lines.
fn write_field(
    line: &mut fmt::format::Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn std::fmt::Debug,
) -> std::fmt::Result {
    let value = match field.name() {
        "panic.backtrace" => format!("{value:?}"),
        _ => printable(&format!("{value:?}"), MAX_FIELD_CHARS),
    };
    match field.name() {
        "message" => write!(line, "{value}"),
        name => write!(line, "{name}={value}"),
    }
}

/// Parses `text`, after the directives of [`QUIET`].
fn build_filter(text: &str) -> Result<EnvFilter, String> {
    let text = if text.trim().is_empty() { DEFAULT_FILTER } else { text };
    // A later directive replaces an earlier one of the same target, so a named driver gets its
    // level. If everything is at warn or less, `QUIET` would make drivers louder than the rest.
    let everything =
        text.split(',').filter_map(|part| part.trim().parse::<LevelFilter>().ok()).next_back();
    let directives = match everything {
        Some(level) if level > LevelFilter::WARN => format!("{QUIET},{text}"),
        _ => text.to_owned(),
    };
    EnvFilter::builder().parse(directives).map_err(|error| {
        format!(
            "--log (RUST_LOG) {text:?} is not a filter such as info or info,http=debug: {error}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex, PoisonError},
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Whether an event of this target gets through the filter.
    macro_rules! passes {
        ($filter:expr, $target:literal, $level:ident) => {{
            let subscriber = tracing_subscriber::registry().with(build_filter($filter).expect("a filter"));
            tracing::subscriber::with_default(subscriber, || {
                tracing::event_enabled!(target: $target, tracing::Level::$level)
            })
        }};
    }

    #[test]
    fn drivers_are_quiet_unless_they_are_named() {
        for text in ["info", "debug", "", "info,sqlx=warn"] {
            assert!(passes!(text, "service", INFO), "{text:?}");
            assert!(!passes!(text, "sqlx::query", INFO), "{text:?}");
            assert!(!passes!(text, "librdkafka", INFO), "{text:?}");
            assert!(passes!(text, "rdkafka::client", WARN), "{text:?}");
        }
        assert!(passes!("info,sqlx=debug", "sqlx::query", DEBUG));
        assert!(passes!("info,sqlx::query=debug", "sqlx::query", DEBUG));
    }

    #[test]
    fn drivers_are_never_louder_than_everything_else() {
        assert!(!passes!("error", "librdkafka", WARN));
        assert!(!passes!("off", "sqlx", WARN));
        assert!(!passes!("producer=debug", "sqlx", WARN));
    }

    #[test]
    fn a_foreign_text_makes_no_line_of_its_own_and_controls_no_terminal() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(fmt::format::debug_fn(write_field))
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let foreign = "a\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J\u{202e}";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(name = foreign, why = %foreign, count = 7, "poison: {foreign}");
            tracing::warn!(long = "x".repeat(1 << 20), "long");
        });
        let text = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(text).expect("text");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']) && text.len() < 5000, "{text}");
        assert!(text.contains("count=7") && text.contains("forged"), "{text}");
    }

    #[test]
    fn a_filter_that_is_none_is_named_in_the_error() {
        let error = build_filter("info,http=lots").expect_err("no such level");
        assert!(error.contains("info,http=lots") && error.contains("RUST_LOG"), "{error}");
    }
}
