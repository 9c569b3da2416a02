//! The query parameters of a read, parsed and validated.

use std::time::Duration;

use axum::{
    extract::Query as UrlQuery,
    http::{HeaderValue, Uri},
};
use jiff::Timestamp;
use model::{Category, Cursor};
use serde::Deserialize;
use service::{cli::settings::parse_duration, problem::Problem};
use utoipa::IntoParams;

use crate::view::{PageQuery, Since, page::FeedStart};

const MAX_WAIT: Duration = Duration::from_secs(60);
const MAX_LIMIT: usize = 10_000;

/// The parameters as received: texts, so that errors have the same form as all others.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct QueryParams {
    /// Only notifications after this cursor (`3-1042-5f3a9c01`; one of another log, or without the
    /// log's epoch, gives all and a `gap`), sent at or after this time
    /// (`2026-01-31T12:00:00Z`), or sent within this duration (`10m`); or `all`
    since: Option<String>,
    /// Maximum number, 1 to 10,000: with `since`, the first ones from there; without, the newest
    limit: Option<String>,
    /// `true`: only unread notifications
    unread: Option<String>,
    /// Only notifications of this category, 1 to 64 characters
    category: Option<String>,
    /// A cursor: answer only once the view has caught up to it. One of another log is refused (409)
    at_least: Option<String>,
    /// Up to 60 seconds (`30`, `30s`): if the answer would be empty, wait for a notification
    wait: Option<String>,
}

/// The parameters of a live stream.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // For the OpenAPI document only.
pub(super) struct StartParams {
    /// Begin after this cursor, at this time, this duration ago, or with `all`; the default is the
    /// whole inbox
    since: Option<String>,
    /// Maximum number of existing notifications to begin with
    limit: Option<String>,
    /// Only notifications of this category
    category: Option<String>,
}

impl QueryParams {
    /// The requested wait; zero if it is invalid, which [`parse_query`](Self::parse_query) refuses.
    fn wait_or_zero(&self) -> Duration {
        let wait = self.wait.as_deref().and_then(|text| parse_duration(text).ok());
        wait.unwrap_or_default().min(MAX_WAIT)
    }

    /// Returns true if the answer depends on the time of the request.
    pub(super) fn depends_on_time(&self) -> bool {
        self.since.as_deref().is_some_and(|since| parse_duration(since).is_ok())
    }

    /// Parses where a live stream begins. `Last-Event-ID` goes before `since`.
    pub(super) fn parse_start(&self, last: Option<&HeaderValue>) -> Result<FeedStart, Problem> {
        let forbidden =
            [("unread", &self.unread), ("at_least", &self.at_least), ("wait", &self.wait)];
        if let Some((name, _)) = forbidden.iter().find(|(_, value)| value.is_some()) {
            return Err(Problem::bad_request(name, "is not for live streams"));
        }
        let last = last.filter(|last| !last.is_empty()).map(|last| {
            let cursor = last.to_str().ok().and_then(|text| text.parse().ok());
            cursor
                .map(Since::Cursor)
                .ok_or_else(|| Problem::bad_request("Last-Event-ID", "must be a cursor"))
        });
        let since = last.or_else(|| self.since.as_deref().map(parse_since));
        Ok(FeedStart {
            since: since.transpose()?.unwrap_or_default(),
            limit: parse_some(&self.limit, parse_limit)?,
            category: parse_some(&self.category, parse_category)?.map(Into::into),
        })
    }

    /// Parses a query of an inbox in partition `home`.
    pub(super) fn parse_query(&self, home: i32) -> Result<PageQuery, Problem> {
        Ok(PageQuery {
            since: parse_some(&self.since, parse_since)?.unwrap_or_default(),
            limit: parse_some(&self.limit, parse_limit)?,
            unread: match self.unread.as_deref() {
                None | Some("false") => false,
                Some("true" | "") => true,
                Some(_) => return Err(Problem::bad_request("unread", "must be true or false")),
            },
            category: parse_some(&self.category, parse_category)?,
            at_least: parse_some(&self.at_least, |text| parse_at_least(text, home))?,
            wait: parse_some(&self.wait, parse_wait)?.unwrap_or_default(),
        })
    }
}

/// How long a request to this address asks to wait for a notification.
pub(super) fn requested_wait(uri: &Uri) -> Duration {
    if uri.query().is_none() {
        return Duration::ZERO;
    }
    let params = UrlQuery::<QueryParams>::try_from_uri(uri);
    params.map(|UrlQuery(params)| params.wait_or_zero()).unwrap_or_default()
}

fn parse_some<T>(
    text: &Option<String>,
    parse: impl FnOnce(&str) -> Result<T, Problem>,
) -> Result<Option<T>, Problem> {
    text.as_deref().map(parse).transpose()
}

fn parse_since(text: &str) -> Result<Since, Problem> {
    if text == "all" {
        return Ok(Since::Beginning);
    }
    if let Ok(cursor) = text.parse() {
        return Ok(Since::Cursor(cursor));
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Since::Time(time.as_millisecond()));
    }
    if let Ok(ago) = parse_duration(text) {
        let ago = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(Since::Time(Timestamp::now().as_millisecond().saturating_sub(ago)));
    }
    Err(Problem::bad_request(
        "since",
        "must be a cursor (3-1042-5f3a9c01), a time (2026-01-31T12:00:00Z), a duration (10m) or all",
    ))
}

fn parse_limit(text: &str) -> Result<usize, Problem> {
    let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        Problem::bad_request("limit", format!("must be a whole number from 1 to {MAX_LIMIT}"))
    })
}

fn parse_category(text: &str) -> Result<String, Problem> {
    let max = Category::MAX_CHARS;
    if text.is_empty() || text.chars().count() > max {
        return Err(Problem::bad_request("category", format!("must have 1 to {max} characters")));
    }
    Ok(text.to_owned())
}

fn parse_at_least(text: &str, home: i32) -> Result<Cursor, Problem> {
    let cursor = text.parse().map_err(|error| Problem::bad_request("at_least", error))?;
    check_partition("at_least", cursor, home)?;
    Ok(cursor)
}

/// Refuses a cursor of another partition than the inbox's.
pub(super) fn check_partition(field: &str, cursor: Cursor, home: i32) -> Result<(), Problem> {
    if cursor.partition == home {
        return Ok(());
    }
    let why = format!("is of partition {}, but this inbox lives in {home}", cursor.partition);
    Err(Problem::bad_request(field, why))
}

fn parse_wait(text: &str) -> Result<Duration, Problem> {
    let max = MAX_WAIT.as_secs();
    let wait = parse_duration(text).ok().filter(|wait| *wait <= MAX_WAIT);
    wait.ok_or_else(|| Problem::bad_request("wait", format!("must be 0 to {max} seconds")))
}

#[cfg(test)]
mod fuzz {
    use inputs::{mutated_text, text};
    use proptest::{option, prelude::*};

    use super::*;

    const HOME: i32 = 3;

    fn cursor() -> impl Strategy<Value = String> {
        prop_oneof!["[0-4]-[0-9]{1,6}", "3-[0-9]{1,6}(-[0-9a-f]{8})?", "3-start(-[0-9a-f]{8})?"]
    }

    fn span() -> impl Strategy<Value = String> {
        "[0-9]{1,4}(ms|s|m|h|d)?"
    }

    fn time() -> impl Strategy<Value = String> {
        let day = "-?[0-9]{4,6}-[01][0-9]-[0-3][0-9]";
        let hour = "T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|[+-][0-2][0-9]:[0-5][0-9])";
        (day, hour).prop_map(|(day, hour)| day + &hour)
    }

    fn value(valid: impl Strategy<Value = String>) -> impl Strategy<Value = Option<String>> {
        option::of(prop_oneof![1 => text(), 4 => mutated_text(valid)])
    }

    fn raw() -> impl Strategy<Value = QueryParams> {
        let since = value(prop_oneof![cursor(), time(), span(), Just("all".into())]);
        let limit = value("[0-9]{1,6}".boxed());
        let unread = value("true|false|");
        let category = value("[a-zé ]{0,80}".boxed());
        (since, limit, unread, category, value(cursor()), value(span())).prop_map(
            |(since, limit, unread, category, at_least, wait)| QueryParams {
                since,
                limit,
                unread,
                category,
                at_least,
                wait,
            },
        )
    }

    fn is_within_bounds(limit: Option<usize>, category: Option<&str>) -> Result<(), TestCaseError> {
        prop_assert!(limit.is_none_or(|limit| (1..=MAX_LIMIT).contains(&limit)));
        let length = category.map_or(1, |category| category.chars().count());
        prop_assert!((1..=Category::MAX_CHARS).contains(&length));
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_asked_is_refused_or_within_bounds(raw in raw()) {
            // Both are called before the query is validated.
            let (wait, depends) = (raw.wait_or_zero(), raw.depends_on_time());
            prop_assert!(wait <= MAX_WAIT);
            let query = match raw.parse_query(HOME) {
                Ok(query) => query,
                Err(problem) => {
                    prop_assert_eq!(problem.status().as_u16(), 400);
                    return Ok(());
                }
            };
            is_within_bounds(query.limit, query.category.as_deref())?;
            prop_assert_eq!(query.wait, wait);
            prop_assert!(query.at_least.is_none_or(|at| at.partition == HOME && at.offset >= -1));
            // If the answer does not depend on time, the same query parsed later is the same.
            if let (Since::Time(_), false) = (query.since, depends) {
                prop_assert_eq!(raw.parse_query(HOME).map(|again| again.since).ok(), Some(query.since));
            }
            prop_assert!(!depends || matches!(query.since, Since::Time(_)));
        }

        #[test]
        fn where_a_stream_begins_is_refused_or_within_bounds(
            raw in raw(), last in option::of(prop_oneof![text(), mutated_text(cursor())]),
        ) {
            let last = last.and_then(|last| HeaderValue::try_from(last).ok());
            let asked = raw.unread.is_some() || raw.at_least.is_some() || raw.wait.is_some();
            match raw.parse_start(last.as_ref()) {
                Ok(start) => {
                    prop_assert!(!asked);
                    is_within_bounds(start.limit, start.category.as_deref())?;
                    if let Some(last) = last.filter(|last| !last.is_empty()) {
                        let cursor = last.to_str().ok().and_then(|last| last.parse().ok());
                        prop_assert_eq!(cursor.map(Since::Cursor), Some(start.since));
                    }
                }
                Err(problem) => prop_assert_eq!(problem.status().as_u16(), 400),
            }
        }

        #[test]
        fn no_query_makes_it_stumble(
            query in prop_oneof![text(), mutated_text("((since|limit|wait|category)=[0-9a-z%+-]{0,9}&){0,6}")],
        ) {
            if let Ok(uri) = format!("/notifications/1?{query}").parse::<Uri>()
                && let Ok(UrlQuery(raw)) = UrlQuery::<QueryParams>::try_from_uri(&uri)
            {
                let _ = (raw.parse_query(HOME), raw.parse_start(None));
                prop_assert!(raw.wait_or_zero() <= MAX_WAIT);
            }
        }
    }
}
