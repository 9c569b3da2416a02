//! `Accept`: how much a client wants each form of a stream (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header::ACCEPT};

/// How precisely a media range names a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Precision {
    /// `*/*`
    Any,
    /// `text/*`
    MainType,
    /// `text/event-stream`
    Exact,
}

/// How much a client wants a media type: its weight in thousandths, then how precisely the header
/// names it. `None` if it does not accept the type. Without the header, everything is accepted.
fn preference(headers: &HeaderMap, media_type: &str) -> Option<(u16, Precision)> {
    if !headers.contains_key(ACCEPT) {
        return Some((1000, Precision::Any));
    }
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges = values.flat_map(|value| value.split(',')).filter_map(|range| {
        let mut parts = range.split(';');
        let precision = precision_of(parts.next()?.trim(), media_type)?;
        let weight = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().ok())
        });
        // A weight that cannot be read is none at all.
        let weight = weight.flatten().unwrap_or(1.0).clamp(0.0, 1.0);
        Some((precision, (weight * 1000.0) as u16))
    });
    // The most precise range decides.
    let (precision, weight) = ranges.max()?;
    (weight > 0).then_some((weight, precision))
}

/// `None` if the range does not have the media type. Types are compared without regard to case.
fn precision_of(range: &str, media_type: &str) -> Option<Precision> {
    let (main, sub) = range.split_once('/')?;
    let (own_main, own_sub) = media_type.split_once('/')?;
    if main == "*" && sub == "*" {
        Some(Precision::Any)
    } else if !main.eq_ignore_ascii_case(own_main) {
        None
    } else if sub == "*" {
        Some(Precision::MainType)
    } else {
        sub.eq_ignore_ascii_case(own_sub).then_some(Precision::Exact)
    }
}

/// Returns true if the client wants `one` more than `other`: by its weight, then by its name.
pub(super) fn prefers(headers: &HeaderMap, one: &str, other: &str) -> bool {
    preference(headers, one) > preference(headers, other)
}

/// Returns true if the client names this very type and accepts it.
pub(super) fn names(headers: &HeaderMap, media_type: &str) -> bool {
    matches!(preference(headers, media_type), Some((_, Precision::Exact)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSE: &str = "text/event-stream";
    const LINES: &str = "application/x-ndjson";

    fn accept(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (ACCEPT, value.parse().expect("a header value"))).collect()
    }

    #[test]
    fn weight_and_precision_decide_and_case_does_not() {
        for (values, lines_first) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/event-stream"], false),
            (&["application/x-ndjson"], true),
            (&["Application/X-NDJSON"], true),
            (&["application/json, application/x-ndjson;q=0.9"], true),
            (&["application/x-ndjson, text/event-stream"], false),
            (&["application/x-ndjson, */*"], true),
            (&["application/x-ndjson;q=0.5, */*"], false),
            (&["application/x-ndjson; q=0, */*"], false),
            (&["application/x-ndjson;Q=0"], false),
            (&["text/event-stream;q=0, */*"], true),
            (&["text/event-stream;q=0.2", "application/x-ndjson;q=0.3"], true),
            (&["text/*;q=0.4, application/*;q=0.5"], true),
            (&["rubbish, ;;, application/x-ndjson;q=many"], true),
        ] {
            assert_eq!(prefers(&accept(values), LINES, SSE), lines_first, "{values:?}");
        }
    }

    #[test]
    fn an_event_source_names_its_type() {
        for (values, named) in [
            (&[][..], false),
            (&["*/*"], false),
            (&["text/*"], false),
            (&["text/event-stream"], true),
            (&["TEXT/Event-Stream; q=0.1, */*"], true),
            (&["text/event-stream;q=0.000"], false),
        ] {
            assert_eq!(names(&accept(values), SSE), named, "{values:?}");
        }
    }
}
