//! What a client asks for, as form or JSON, parsed into what may be sent. Past this module nothing
//! is checked again.

use std::fmt::Display;

use axum::http::StatusCode;
use model::{Message, UserId};
use serde::Deserialize;
use serde_json::Value;
use service::problem::Problem;

/// A request to send one message to one or several people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// The sender.
    pub from: UserId,
    /// The recipients: at least one, at most [`MAX_RECIPIENTS`], each once, in the order given.
    pub to: Vec<UserId>,
    /// What is said.
    pub message: Message,
}

/// How many recipients one request may have.
pub const MAX_RECIPIENTS: usize = 10_000;

impl Send {
    /// Parses a body of this media type (its essence: lower case, without parameters).
    ///
    /// # Errors
    /// 400, which says which field is wrong and why; 415 for another media type.
    pub fn parse(media_type: Option<&str>, body: &[u8]) -> Result<Self, Problem> {
        match media_type {
            Some("application/x-www-form-urlencoded") => Self::from_form(body),
            Some("application/json") => Self::from_json(body),
            other => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                format!(
                    "the body must be application/x-www-form-urlencoded or application/json, not {}",
                    other.unwrap_or("without a Content-Type"),
                ),
            )),
        }
    }

    fn from_form(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::default();
        for (name, value) in form_urlencoded::parse(body) {
            match &*name {
                "from_id" => once("from_id", &mut fields.from, id("from_id", &value)?)?,
                "to_id" => fields.to.push(id("to_id", &value)?),
                "message" => once("message", &mut fields.message, value.into_owned())?,
                // A field that we do not know may be meant for a later version of us.
                _ => {}
            }
        }
        fields.check()
    }

    fn from_json(body: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Body {
            from_id: Option<Value>,
            to_id: Option<Value>,
            message: Option<Value>,
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| {
            Problem::new(StatusCode::BAD_REQUEST, format!("the body is not a JSON object: {error}"))
        })?;
        let from = body.from_id.map(|value| json_id("from_id", &value)).transpose()?;
        let mut fields = Fields { from, ..Fields::default() };
        match body.to_id {
            Some(Value::Array(list)) => {
                for value in &list {
                    fields.to.push(json_id("to_id", value)?);
                }
            }
            Some(value) => fields.to.push(json_id("to_id", &value)?),
            None => {}
        }
        fields.message = match body.message {
            Some(Value::String(text)) => Some(text),
            Some(_) => return Err(Problem::bad_request("message", "must be a string")),
            None => None,
        };
        fields.check()
    }
}

/// The fields as they come, in whatever order.
#[derive(Default)]
struct Fields {
    from: Option<UserId>,
    to: Vec<UserId>,
    message: Option<String>,
}

impl Fields {
    fn check(self) -> Result<Send, Problem> {
        let missing = |field| Problem::bad_request(field, "is missing");
        let from = self.from.ok_or_else(|| missing("from_id"))?;
        let mut seen = std::collections::HashSet::new();
        let to: Vec<_> = self.to.into_iter().filter(|id| seen.insert(*id)).collect();
        if to.is_empty() {
            return Err(missing("to_id"));
        }
        if to.len() > MAX_RECIPIENTS {
            let why =
                format!("must name at most {MAX_RECIPIENTS} recipients, but names {}", to.len());
            return Err(Problem::bad_request("to_id", why));
        }
        let message = self.message.ok_or_else(|| missing("message"))?;
        let message = Message::new(message).map_err(|why| Problem::bad_request("message", why))?;
        Ok(Send { from, to, message })
    }
}

fn once<T>(field: &str, slot: &mut Option<T>, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::bad_request(field, "must be given once")),
    }
}

fn id(field: &str, text: &str) -> Result<UserId, Problem> {
    text.trim().parse().map_err(|why: model::user::InvalidUserId| invalid(field, why))
}

fn json_id(field: &str, value: &Value) -> Result<UserId, Problem> {
    match value {
        Value::Number(number) => {
            let number = number.as_i64().ok_or(model::user::InvalidUserId);
            number.and_then(UserId::new).map_err(|why| invalid(field, why))
        }
        _ => Err(invalid(field, model::user::InvalidUserId)),
    }
}

fn invalid(field: &str, why: impl Display) -> Problem {
    Problem::bad_request(field, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
    const JSON: Option<&str> = Some("application/json");

    fn why(media_type: Option<&str>, body: &str) -> String {
        Send::parse(media_type, body.as_bytes()).expect_err("a problem").message().to_owned()
    }

    #[test]
    fn the_form_of_the_tutorial_is_understood_as_curl_sends_it() {
        let body = "from_id=2&to_id=1&message=Bruno started following you.";
        let send = Send::parse(FORM, body.as_bytes()).expect("valid");
        assert_eq!((send.from.get(), send.to[0].get()), (2, 1));
        assert_eq!(send.message.as_str(), "Bruno started following you.");
    }

    #[test]
    fn several_recipients_are_each_reached_once() {
        let form =
            Send::parse(FORM, b"to_id=3&to_id=1&to_id=3&from_id=2&message=hi").expect("valid");
        let json =
            Send::parse(JSON, br#"{"from_id":2,"to_id":[3,1,3],"message":"hi"}"#).expect("valid");
        assert_eq!(form, json);
        assert_eq!(form.to.iter().map(|id| id.get()).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn each_wrong_field_is_named_with_the_reason() {
        let positive = "must be a positive whole number";
        for (body, expected) in [
            ("to_id=1&message=hi", "from_id: is missing".to_owned()),
            ("from_id=2&message=hi", "to_id: is missing".to_owned()),
            ("from_id=2&to_id=1", "message: is missing".to_owned()),
            ("from_id=x&to_id=1&message=hi", format!("from_id: {positive}")),
            ("from_id=2&to_id=0&message=hi", format!("to_id: {positive}")),
            ("from_id=2&to_id=-1&message=hi", format!("to_id: {positive}")),
            ("from_id=2&to_id=99999999999999999999&message=hi", format!("to_id: {positive}")),
            ("from_id=2&from_id=3&to_id=1&message=hi", "from_id: must be given once".to_owned()),
            ("from_id=2&to_id=1&message=+", "message: must not be empty".to_owned()),
        ] {
            assert_eq!(why(FORM, body), expected, "{body}");
        }
        for (body, expected) in [
            (r#"{"from_id":"2","to_id":1,"message":"hi"}"#, format!("from_id: {positive}")),
            (r#"{"from_id":2,"to_id":[1,1.5],"message":"hi"}"#, format!("to_id: {positive}")),
            (r#"{"from_id":2,"to_id":[],"message":"hi"}"#, "to_id: is missing".to_owned()),
            (r#"{"from_id":2,"to_id":1,"message":7}"#, "message: must be a string".to_owned()),
        ] {
            assert_eq!(why(JSON, body), expected, "{body}");
        }
        assert!(why(JSON, "[]").starts_with("the body is not a JSON object"));
        assert!(why(JSON, "{").starts_with("the body is not a JSON object"));
    }

    #[test]
    fn another_media_type_is_named_in_the_refusal() {
        assert!(why(Some("text/plain"), "").ends_with("not text/plain"));
        assert!(why(None, "").ends_with("without a Content-Type"));
    }
}
