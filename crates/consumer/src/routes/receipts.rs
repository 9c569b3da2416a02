//! What a recipient does with notifications: `POST …/read`, `POST …/unread`, `DELETE …`.

use std::{fmt, sync::Arc};

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use model::{Action, Cursor, NotificationId, UserId};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use service::{
    extract::{Body, Path},
    openapi::{ProblemBody, Refused, RefusedWithBody},
    problem::Problem,
};

use super::{
    App,
    problems::{not_live, not_recorded, user},
    schema,
};
use crate::view::{Query, Selector};

/// The most ids that one request may name: as many as a full inbox holds.
const MAX_IDS: usize = 1000;

/// `{"ids":["…"]}`, `{"through":"3-1042"}`, or nothing.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    ids: Option<Vec<NotificationId>>,
    through: Option<Cursor>,
}

/// Mark as read
#[utoipa::path(post, path = "/notifications/{id}/read", tag = "receipts",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    request_body(content = Option<schema::Chosen>, description = "Nothing means all"),
    responses(
        (status = 200, description = "Done, and shown", body = schema::Done),
        (status = 504, description = "Not acknowledged in time; doing it again is safe",
         body = ProblemBody, content_type = "application/problem+json"),
        RefusedWithBody))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Response, Problem> {
    mark(&app, &id, Action::Read, &body).await
}

/// Mark as not read
#[utoipa::path(post, path = "/notifications/{id}/unread", tag = "receipts",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    request_body(content = Option<schema::Chosen>, description = "Nothing means all"),
    responses(
        (status = 200, description = "Done, and shown", body = schema::Done),
        (status = 504, description = "Not acknowledged in time; doing it again is safe",
         body = ProblemBody, content_type = "application/problem+json"),
        RefusedWithBody))]
pub(super) async fn unread(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Response, Problem> {
    mark(&app, &id, Action::Unread, &body).await
}

/// Dismiss everything that is there
#[utoipa::path(delete, path = "/notifications/{id}", tag = "receipts",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    responses(
        (status = 200, description = "Done, and shown", body = schema::Done),
        (status = 504, description = "Not acknowledged in time; doing it again is safe",
         body = ProblemBody, content_type = "application/problem+json"),
        Refused))]
pub(super) async fn dismiss_all(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    act(&app, user(&id)?, Action::Dismissed, &Selector::All).await
}

/// Dismiss one
#[utoipa::path(delete, path = "/notifications/{id}/{notification}", tag = "receipts",
    params(("id" = i64, Path, description = "The user", minimum = 1),
        ("notification" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "Done, and shown", body = schema::Done),
        (status = 404, description = "Not in the inbox", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 504, description = "Not acknowledged in time; doing it again is safe",
         body = ProblemBody, content_type = "application/problem+json"),
        Refused))]
pub(super) async fn dismiss(
    State(app): State<Arc<App>>,
    Path((id, notification)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let user = user(&id)?;
    let missing = || Problem::not_found("Notification not found");
    let notification = NotificationId::from_text(&notification).ok_or_else(missing)?;
    let which = Selector::Ids([notification].into());
    let done = record(&app, user, Action::Dismissed, &which).await?;
    if done.changed == 0 { Err(missing()) } else { Ok(done.into_response()) }
}

/// Does this with what the body chooses.
async fn mark(app: &App, id: &str, action: Action, body: &[u8]) -> Result<Response, Problem> {
    let user = user(id)?;
    let which = Chosen::parse(body)?.which(app.view.home(user))?;
    act(app, user, action, &which).await
}

async fn act(
    app: &App,
    user: UserId,
    action: Action,
    which: &Selector,
) -> Result<Response, Problem> {
    record(app, user, action, which).await.map(IntoResponse::into_response)
}

/// What came of it.
pub(super) struct Done {
    /// How many entries changed.
    changed: usize,
    /// How many are unread now.
    unread: usize,
    /// What the view contains.
    at: Cursor,
}

/// Records it, and waits until the view shows it.
pub(super) async fn record(
    app: &App,
    user: UserId,
    action: Action,
    which: &Selector,
) -> Result<Done, Problem> {
    let changed =
        app.recorder.record(user, action, which).await.map_err(|error| not_recorded(&error))?;
    let query = Query { limit: Some(0), ..Query::default() };
    let page = app.view.read(user, &query, app.patience).await.map_err(|error| not_live(&error))?;
    Ok(Done { changed, unread: page.unread, at: page.cursor })
}

impl Done {
    pub(super) fn to_json(&self) -> String {
        let Self { changed, unread, at } = self;
        format!("{{\"changed\":{changed},\"unread\":{unread},\"cursor\":\"{at}\"}}")
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.to_json()).into_response()
    }
}

impl<'de> Deserialize<'de> for Chosen {
    /// Written out, because serde's own would also take a list of the fields' values: `[null,null]`
    /// would choose all.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ChosenVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Ids,
    Through,
}

struct ChosenVisitor;

impl<'de> Visitor<'de> for ChosenVisitor {
    type Value = Chosen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Chosen, A::Error> {
        let (mut ids, mut through) = (None, None);
        while let Some(field) = object.next_key()? {
            match field {
                Field::Ids if ids.is_some() => return Err(A::Error::duplicate_field("ids")),
                Field::Ids => ids = Some(object.next_value()?),
                Field::Through if through.is_some() => {
                    return Err(A::Error::duplicate_field("through"));
                }
                Field::Through => through = Some(object.next_value()?),
            }
        }
        Ok(Chosen { ids: ids.flatten(), through: through.flatten() })
    }
}

impl Chosen {
    /// What a body says; nothing chooses all.
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|error| {
            let expected = r#"{"ids":["…"]}, {"through":"3-1042"} or nothing"#;
            Problem::bad_request("body", format!("must be {expected}: {error}"))
        })
    }

    /// Which entries of an inbox in partition `home` are meant.
    pub(super) fn which(self, home: i32) -> Result<Selector, Problem> {
        match self {
            Self { ids: Some(_), through: Some(_) } => {
                Err(Problem::bad_request("through", "cannot stand beside ids"))
            }
            Self { ids: Some(ids), .. } if ids.len() > MAX_IDS => {
                Err(Problem::bad_request("ids", format!("must be at most {MAX_IDS}")))
            }
            Self { ids: Some(ids), .. } => Ok(Selector::Ids(ids.into_iter().collect())),
            Self { through: Some(through), .. } if through.partition != home => {
                let why = format!(
                    "is of partition {}, but this inbox lives in {home}",
                    through.partition
                );
                Err(Problem::bad_request("through", why))
            }
            Self { through: Some(through), .. } => Ok(Selector::Through(through.offset)),
            Self { ids: None, through: None } => Ok(Selector::All),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which(body: &str) -> Result<Selector, String> {
        let chosen = Chosen::parse(body.as_bytes()).and_then(|chosen| chosen.which(3));
        chosen.map_err(|problem| problem.message().to_owned())
    }

    #[test]
    fn nothing_or_an_object_without_a_choice_chooses_all_and_nothing_else_does() {
        for all in ["", " \n", "{}", r#"{"ids":null}"#, r#"{"through":null,"ids":null}"#] {
            assert!(matches!(which(all), Ok(Selector::All)), "{all:?}");
        }
        for refused in ["[null,null]", "[]", "null", "true", "\"all\"", r#"{"all":true}"#] {
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
        assert!(matches!(which(r#"{"through":"3-7"}"#), Ok(Selector::Through(7))));
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

    /// A body that chooses something, or nearly.
    pub(in crate::routes) fn chosen() -> impl Strategy<Value = Vec<u8>> {
        let ids = vec(prop_oneof![json_string(), "\"[0-9]-[0-9]{1,3}\""], 0..5);
        let many = (MAX_IDS - 1..MAX_IDS + 2)
            .prop_map(|times| format!("{{\"ids\":[{}]}}", vec!["\"a\""; times].join(",")));
        let body = prop_oneof![
            4 => ids.prop_map(|ids| format!("{{\"ids\":[{}]}}", ids.join(","))),
            3 => "\\{\"through\":\"[34]-([0-9]{1,19}|start)\"\\}",
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
            let which = match Chosen::parse(&body).and_then(|chosen| chosen.which(HOME)) {
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
                Selector::Through(offset) => prop_assert!(offset >= -1 && text.contains("through")),
                Selector::All => prop_assert!(!text.contains('"') || text.contains("null")),
            }
        }
    }
}
