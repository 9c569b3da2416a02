//! Receipts: `POST …/read`, `POST …/unread`, `DELETE …`.

use std::{fmt, sync::Arc};

use axum::{Json, extract::State};
use model::{Action, Cursor, NotificationId, UserId};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use service::{
    extract::{Body, Path},
    openapi::{CommonProblems, CommonProblemsWithBody, ProblemBody},
    problem::Problem,
};
use utoipa::ToSchema;

use super::{
    app::App,
    problems::{
        OtherLog, ReceiptOutcomeUnknown, ReceiptRefused, ReceiptUnavailable, not_live, parse_user,
        receipt_problem,
    },
    query::check_partition,
};
use crate::view::{PageQuery, Selector, WouldChange};

/// Bound of `ids`: as many as a full inbox holds by default.
const MAX_IDS: usize = 1000;

/// The notifications meant: some, all up to and including a cursor of this log, or all.
#[derive(Debug, Default, ToSchema)]
#[schema(as = Chosen)]
pub(super) struct SelectorBody {
    #[schema(required = false, max_items = 1000, value_type = Option<Vec<String>>)]
    ids: Option<Vec<NotificationId>>,
    #[schema(required = false, example = "3-1042-5f3a9c01", value_type = Option<String>)]
    through: Option<Cursor>,
}

/// Mark as read
#[utoipa::path(post, path = "/notifications/{id}/read", tag = "receipts", operation_id = "read",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    request_body(content = Option<SelectorBody>, description = "All notifications without a body; those with these `ids`, at most 1000; or those up to and with the cursor `through`"),
    responses(CommonProblemsWithBody, OtherLog, ReceiptRefused, ReceiptUnavailable,
        ReceiptOutcomeUnknown,
        (status = 200, description = "Done, and visible in the inbox", body = ReceiptResult)))]
pub(super) async fn mark_read(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Json<ReceiptResult>, Problem> {
    apply_body(&app, &id, Action::Read, &body).await
}

/// Mark as unread
#[utoipa::path(post, path = "/notifications/{id}/unread", tag = "receipts", operation_id = "unread",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    request_body(content = Option<SelectorBody>, description = "All notifications without a body; those with these `ids`, at most 1000; or those up to and with the cursor `through`"),
    responses(CommonProblemsWithBody, OtherLog, ReceiptRefused, ReceiptUnavailable,
        ReceiptOutcomeUnknown,
        (status = 200, description = "Done, and visible in the inbox", body = ReceiptResult)))]
pub(super) async fn mark_unread(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Json<ReceiptResult>, Problem> {
    apply_body(&app, &id, Action::Unread, &body).await
}

/// Dismiss all notifications in the inbox
#[utoipa::path(delete, path = "/notifications/{id}", tag = "receipts",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    responses(CommonProblems, ReceiptRefused, ReceiptUnavailable, ReceiptOutcomeUnknown,
        (status = 200, description = "Done, and visible in the inbox", body = ReceiptResult)))]
pub(super) async fn dismiss_all(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<ReceiptResult>, Problem> {
    write_receipts(&app, parse_user(&id)?, Action::Dismissed, &Selector::All).await.map(Json)
}

/// Dismiss one notification, by its `id`
#[utoipa::path(delete, path = "/notifications/{id}/{notification}", tag = "receipts",
    operation_id = "dismiss",
    params(("id" = i64, Path, description = "The user", minimum = 1),
        ("notification" = String, Path, description = "The notification's `id`")),
    responses(CommonProblems, ReceiptRefused, ReceiptUnavailable, ReceiptOutcomeUnknown,
        (status = 200, description = "Done, and visible in the inbox", body = ReceiptResult),
        (status = 404, description = "The notification is not in the inbox", body = ProblemBody,
         content_type = "application/problem+json")))]
pub(super) async fn dismiss_one(
    State(app): State<Arc<App>>,
    Path((id, notification)): Path<(String, String)>,
) -> Result<Json<ReceiptResult>, Problem> {
    let user = parse_user(&id)?;
    let missing = || Problem::not_found("Notification not found");
    let notification = NotificationId::from_text(&notification).ok_or_else(missing)?;
    let selector = Selector::Ids([notification].into());
    let result = write_receipts(&app, user, Action::Dismissed, &selector).await?;
    if result.changed == 0 { Err(missing()) } else { Ok(Json(result)) }
}

async fn apply_body(
    app: &App,
    id: &str,
    action: Action,
    body: &[u8],
) -> Result<Json<ReceiptResult>, Problem> {
    let user = parse_user(id)?;
    let selector = SelectorBody::parse_body(body)?.into_selector(app.view.home_partition(user))?;
    write_receipts(app, user, action, &selector).await.map(Json)
}

/// The result. The view has applied the receipts.
#[derive(Serialize, ToSchema)]
#[schema(as = Done)]
pub(super) struct ReceiptResult {
    /// Number of notifications that changed.
    #[schema(value_type = u64)]
    changed: usize,
    /// Number of unread notifications in the whole inbox.
    #[schema(value_type = u64)]
    unread: usize,
    /// The position of the view.
    #[schema(value_type = String)]
    cursor: Cursor,
    /// Those of `ids` that the inbox does not have, in alphabetical order: it has not come to them
    /// yet (see `at_least`), never had them, or no longer. Nothing was noted for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, value_type = Vec<String>)]
    unknown: Vec<NotificationId>,
}

/// Writes receipts and waits until the view has applied them.
pub(super) async fn write_receipts(
    app: &App,
    user: UserId,
    action: Action,
    selector: &Selector,
) -> Result<ReceiptResult, Problem> {
    let written = app.receipts.write_receipts(user, action, selector).await;
    let WouldChange { changed, mut unknown } = written.map_err(|error| receipt_problem(&error))?;
    unknown.sort_by_cached_key(ToString::to_string);
    let query = PageQuery { limit: Some(0), ..PageQuery::default() };
    let page = app.view.read_page(user, &query, app.read_timeout).await;
    let page = page.map_err(|error| not_live(&error))?;
    let (changed, unread, cursor) = (changed.len(), page.unread, page.cursor);
    Ok(ReceiptResult { changed, unread, cursor, unknown })
}

impl<'de> Deserialize<'de> for SelectorBody {
    /// Not derived: serde's derive also accepts an array of the fields' values, and `[null,null]`
    /// would select all.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SelectorVisitor)
    }
}

#[derive(Deserialize)]
#[serde(remote = "SelectorBody", deny_unknown_fields)]
struct SelectorFields {
    #[serde(default, deserialize_with = "present")]
    ids: Option<Vec<NotificationId>>,
    #[serde(default, deserialize_with = "present")]
    through: Option<Cursor>,
}

/// Refuses `null`: a client that sends it lost its selection, and must not select all.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

struct SelectorVisitor;

impl<'de> Visitor<'de> for SelectorVisitor {
    type Value = SelectorBody;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<SelectorBody, A::Error> {
        SelectorFields::deserialize(MapAccessDeserializer::new(object))
    }
}

impl SelectorBody {
    /// Parses a request's body. An empty one selects all.
    fn parse_body(body: &[u8]) -> Result<Self, Problem> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|error| {
            let expected = r#"{"ids":["…"]}, {"through":"3-1042-5f3a9c01"} or nothing"#;
            Problem::bad_request("body", format!("must be {expected}: {error}"))
        })
    }

    /// Validates the selection of entries of an inbox in partition `home`.
    pub(super) fn into_selector(self, home: i32) -> Result<Selector, Problem> {
        match (self.ids, self.through) {
            (Some(_), Some(_)) => Err(Problem::bad_request("through", "cannot stand beside ids")),
            (Some(ids), None) if ids.len() > MAX_IDS => {
                Err(Problem::bad_request("ids", format!("must be at most {MAX_IDS}")))
            }
            (Some(ids), None) => Ok(Selector::Ids(ids.into_iter().collect())),
            (None, Some(through)) => {
                check_partition("through", through, home)?;
                Ok(Selector::Through(through))
            }
            (None, None) => Ok(Selector::All),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which(body: &str) -> Result<Selector, String> {
        let chosen =
            SelectorBody::parse_body(body.as_bytes()).and_then(|chosen| chosen.into_selector(3));
        chosen.map_err(|problem| problem.message().to_owned())
    }

    #[test]
    fn nothing_or_an_object_without_a_choice_chooses_all_and_nothing_else_does() {
        for all in ["", " \n", "{}"] {
            assert!(matches!(which(all), Ok(Selector::All)), "{all:?}");
        }
        for refused in [
            r#"{"ids":null}"#,
            r#"{"through":null}"#,
            "[null,null]",
            "[]",
            "null",
            "true",
            "\"all\"",
            r#"{"all":true}"#,
        ] {
            let why = which(refused).expect_err("a problem");
            assert!(why.starts_with("body: must be {\"ids\""), "{refused}: {why}");
        }
    }

    #[test]
    fn a_choice_is_made_once_and_one_way() {
        for refused in [
            r#"{"ids":["a"],"ids":["b"]}"#,
            r#"{"through":"3-1","through":"3-2"}"#,
            r#"{"ids":null,"ids":["b"]}"#,
            r#"{"ids":["a"],"through":"3-1"}"#,
        ] {
            assert!(which(refused).is_err(), "{refused}");
        }
        assert!(
            matches!(which(r#"{"through":"3-7-5f3a9c01"}"#), Ok(Selector::Through(at)) if at.offset == 7)
        );
        assert!(
            matches!(which(r#"{"ids":["a","b","a"]}"#), Ok(Selector::Ids(ids)) if ids.len() == 2)
        );
    }
}

#[cfg(test)]
pub(super) mod fuzz {
    use inputs::{bytes, json, json_string, mutated};
    use model::headers::MAX_ID_BYTES;
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    const HOME: i32 = 3;

    /// A body that selects something, sometimes mutated.
    pub(in crate::routes) fn chosen() -> impl Strategy<Value = Vec<u8>> {
        let ids = vec(prop_oneof![json_string(), "\"[0-9]-[0-9]{1,3}\""], 0..5);
        let many = (MAX_IDS - 1..MAX_IDS + 2)
            .prop_map(|times| format!("{{\"ids\":[{}]}}", vec!["\"a\""; times].join(",")));
        let body = prop_oneof![
            4 => ids.prop_map(|ids| format!("{{\"ids\":[{}]}}", ids.join(","))),
            3 => "\\{\"through\":\"[34]-([0-9]{1,19}|start)(-[0-9a-f]{8})?\"\\}",
            1 => many,
            1 => select(&["{}", "[null,null]", "[]", "null"][..]).prop_map(String::from),
            1 => (select(&["ids", "through", "all"][..]), json())
                .prop_map(|(name, value)| format!("{{\"{name}\":{value}}}")),
            1 => json(),
        ];
        mutated(body.prop_map(String::into_bytes))
    }

    proptest! {
        #[test]
        fn a_body_is_refused_or_chooses_what_it_says(body in prop_oneof![1 => bytes(), 6 => chosen()]) {
            let which = match SelectorBody::parse_body(&body).and_then(|chosen| chosen.into_selector(HOME)) {
                Ok(which) => which,
                Err(problem) => {
                    prop_assert_eq!(problem.status().as_u16(), 400);
                    return Ok(());
                }
            };
            let text = String::from_utf8_lossy(&body);
            let text = text.trim();
            prop_assert!(text.is_empty() || text.starts_with('{'), "{} chose {:?}", text, which);
            match which {
                Selector::Ids(ids) => {
                    prop_assert!(ids.len() <= MAX_IDS && text.contains("ids"));
                    prop_assert!(ids.iter().all(|id| id.to_string().len() <= MAX_ID_BYTES));
                }
                Selector::Through(at) => prop_assert!(at.offset >= -1 && text.contains("through")),
                Selector::All => prop_assert!(!text.contains('"')),
            }
        }
    }
}
