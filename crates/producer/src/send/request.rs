//! Parses and validates a send: a form, a JSON body or a line of a bulk request.

use std::collections::HashSet;

use axum::http::StatusCode;
use model::{Category, Data, Fingerprint, Link, Message, UserId, user::InvalidUserId};
use serde_json::value::RawValue;
use service::problem::Problem;
use smallvec::SmallVec;

use super::idempotency::{IdempotencyKey, content_fingerprint};
use crate::{
    problems::{not_a_json_object, parse_field, unsupported_media_type},
    schema::SendBody,
};

/// A valid request to send one message to one or several users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendRequest {
    /// The sender.
    pub from: UserId,
    /// The recipients, in the order given: 1 to `MAX_RECIPIENTS`, without duplicates.
    pub to: SmallVec<[UserId; 2]>,
    /// The text for the recipients.
    pub message: Message,
    /// The kind of the notification.
    pub category: Option<Category>,
    /// The target of a click.
    pub link: Option<Link>,
    /// JSON for the recipients' program.
    pub data: Option<Data>,
}

/// Maximum number of recipients of one request.
pub(crate) const MAX_RECIPIENTS: usize = 10_000;

/// Maximum size of all records of one request together: recipients times the size of one. A quarter
/// of the queue to Kafka.
pub(crate) const MAX_SEND_BYTES: usize = 32 << 20;

/// Typical size of a record beside the content of its notification: names, ids, headers.
const RECORD_OVERHEAD_BYTES: usize = 512;

impl SendRequest {
    /// Parses a body with this media type (lower case, without parameters). Another media type than
    /// the three is a 415.
    pub fn parse(media_type: Option<&str>, body: &[u8]) -> Result<Self, Problem> {
        match media_type {
            Some("application/x-www-form-urlencoded") => Self::from_form(body),
            Some("application/json") => Ok(Self::from_json("body", body)?.0),
            other => Err(unsupported_media_type(
                "application/x-www-form-urlencoded, application/json or application/x-ndjson",
                other,
            )),
        }
    }

    /// Parses a line of a bulk request: JSON, optionally with an `idempotency_key`.
    pub fn parse_line(line: &[u8]) -> Result<(Self, Option<IdempotencyKey>), Problem> {
        let (send, key) = Self::from_json("line", line)?;
        let key = key.map(|json| {
            let key = parse_string("idempotency_key", json)?;
            IdempotencyKey::new(key).map_err(|why| Problem::bad_request("idempotency_key", why))
        });
        Ok((send, key.transpose()?))
    }

    /// The fingerprint of the content; sender and recipients do not change it.
    pub fn fingerprint(&self) -> Fingerprint {
        let optional = [
            self.category.as_ref().map(Category::as_str),
            self.link.as_ref().map(Link::as_str),
            self.data.as_ref().map(|data| data.as_json().get()),
        ];
        content_fingerprint(self.message.as_str(), optional)
    }

    /// The approximate size of the record for each recipient.
    pub(crate) fn record_bytes(&self) -> usize {
        let category = self.category.as_ref().map_or(0, |category| category.as_str().len());
        let link = self.link.as_ref().map_or(0, |link| link.as_str().len());
        let data = self.data.as_ref().map_or(0, |data| data.as_json().get().len());
        RECORD_OVERHEAD_BYTES + self.message.as_str().len() + category + link + data
    }

    /// Fails with 413 if all records together are too large.
    fn check_size(self) -> Result<Self, Problem> {
        let bytes = self.record_bytes().saturating_mul(self.to.len());
        if bytes <= MAX_SEND_BYTES {
            return Ok(self);
        }
        let message = format!(
            "The notifications for all {} recipients together would have {bytes} bytes; the maximum \
             is {MAX_SEND_BYTES}. Send to fewer at a time",
            self.to.len()
        );
        Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message).with("limit", MAX_SEND_BYTES))
    }

    /// All users of the request: the sender and the recipients.
    pub(crate) fn users(&self) -> impl Iterator<Item = UserId> {
        std::iter::once(self.from).chain(self.to.iter().copied())
    }

    fn from_form(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = SendFields::default();
        let mut data = None;
        for (name, value) in form_urlencoded::parse(body) {
            let given_before = match &*name {
                "from_id" => fields.from.replace(parse_field("from_id", value.trim())?).is_some(),
                "to_id" => {
                    fields.to.push(parse_field("to_id", value.trim())?);
                    false
                }
                "message" => fields.message.replace(value.into_owned()).is_some(),
                "category" => fields.category.replace(value.into_owned()).is_some(),
                "link" => fields.link.replace(value.into_owned()).is_some(),
                "data" => data.replace(value).is_some(),
                // Unknown fields are ignored: a client may already use those of a later version.
                _ => false,
            };
            if given_before {
                return Err(Problem::bad_request(&name, "must be given once"));
            }
        }
        fields.data = data.as_deref();
        fields.validate()
    }

    /// `part` is `body` or `line`, for the problem's message.
    fn from_json<'b>(part: &str, body: &'b [u8]) -> Result<(Self, Option<&'b RawValue>), Problem> {
        // serde would also accept an array of the fields' values.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(not_a_json_object(part, "it does not begin with {"));
        }
        let json: SendBody<'_> =
            serde_json::from_slice(body).map_err(|error| not_a_json_object(part, error))?;
        let optional =
            |field, json: Option<&RawValue>| json.map(|json| parse_string(field, json)).transpose();
        let mut fields = SendFields {
            from: json.from_id.map(|json| parse_field("from_id", json.get())).transpose()?,
            message: optional("message", json.message)?,
            category: optional("category", json.category)?,
            link: optional("link", json.link)?,
            data: json.data.map(RawValue::get),
            ..SendFields::default()
        };
        match json.to_id.map(RawValue::get) {
            Some(list) if list.starts_with('[') => {
                let list: Vec<&RawValue> = serde_json::from_str(list)
                    .map_err(|_| Problem::bad_request("to_id", InvalidUserId))?;
                for id in list {
                    fields.to.push(parse_field("to_id", id.get())?);
                }
            }
            Some(id) => fields.to.push(parse_field("to_id", id)?),
            None => {}
        }
        Ok((fields.validate()?, json.idempotency_key))
    }
}

/// The fields that were found so far.
#[derive(Default)]
struct SendFields<'b> {
    from: Option<UserId>,
    to: SmallVec<[UserId; 2]>,
    message: Option<String>,
    category: Option<String>,
    link: Option<String>,
    /// JSON as text.
    data: Option<&'b str>,
}

impl SendFields<'_> {
    fn validate(mut self) -> Result<SendRequest, Problem> {
        let missing = |field| Problem::bad_request(field, "is missing");
        let from = self.from.ok_or_else(|| missing("from_id"))?;
        if self.to.len() > 1 {
            let mut seen = HashSet::with_capacity(self.to.len());
            self.to.retain(|id| seen.insert(*id));
        }
        if self.to.is_empty() {
            return Err(missing("to_id"));
        }
        if self.to.len() > MAX_RECIPIENTS {
            let found = self.to.len();
            let why = format!("must name at most {MAX_RECIPIENTS} recipients, but names {found}");
            return Err(Problem::bad_request("to_id", why));
        }
        let message = self.message.ok_or_else(|| missing("message"))?;
        let invalid = |field| move |why| Problem::bad_request(field, why);
        let data = self.data.map(Data::from_json).transpose();
        let send = SendRequest {
            from,
            to: self.to,
            message: Message::new(message).map_err(invalid("message"))?,
            category: self.category.map(Category::new).transpose().map_err(invalid("category"))?,
            link: self.link.map(Link::new).transpose().map_err(invalid("link"))?,
            data: data.map_err(|why| Problem::bad_request("data", why))?.flatten(),
        };
        send.check_size()
    }
}

fn parse_string(field: &str, json: &RawValue) -> Result<String, Problem> {
    // A string without escapes is borrowed first, which saves a buffer.
    match serde_json::from_str::<&str>(json.get()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => serde_json::from_str(json.get())
            .map_err(|_| Problem::bad_request(field, "must be a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
    const JSON: Option<&str> = Some("application/json");

    fn why(media_type: Option<&str>, body: &str) -> String {
        SendRequest::parse(media_type, body.as_bytes()).expect_err("a problem").message().to_owned()
    }

    #[test]
    fn the_form_of_the_tutorial_is_understood_as_curl_sends_it() {
        let body = "from_id=2&to_id=1&message=Bruno started following you.";
        let send = SendRequest::parse(FORM, body.as_bytes()).expect("valid");
        assert_eq!((send.from.get(), send.to[0].get()), (2, 1));
        assert_eq!(send.message.as_str(), "Bruno started following you.");
    }

    #[test]
    fn several_recipients_are_each_reached_once() {
        let form = SendRequest::parse(FORM, b"to_id=3&to_id=1&to_id=3&from_id=2&message=hi")
            .expect("valid");
        let json = SendRequest::parse(JSON, br#"{"from_id":2,"to_id":[3,1,3],"message":"hi"}"#)
            .expect("valid");
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
        assert!(
            why(JSON, r#"[2,1,"hi",null,null,null,null]"#)
                .starts_with("the body is not a JSON object")
        );
        assert!(why(JSON, "[]").starts_with("the body is not a JSON object"));
        assert!(why(JSON, "{").starts_with("the body is not a JSON object"));
    }

    #[test]
    fn another_media_type_is_named_in_the_refusal() {
        assert!(why(Some("text/plain"), "").ends_with("not text/plain"));
        assert!(why(None, "").ends_with("without a Content-Type"));
    }

    #[test]
    fn a_category_a_link_and_data_are_the_same_in_a_form_and_in_json() {
        let json = SendRequest::parse(
            JSON,
            br#"{"from_id":2,"to_id":1,"message":"hi","category":"photo \u2764","link":"/p/7?a=b","data":{ "a": [1.0] }}"#,
        );
        let form = SendRequest::parse(
            FORM,
            "from_id=2&to_id=1&message=hi&category=photo+%E2%9D%A4&link=/p/7?a%3Db&data={\"a\":[1.0]}"
                .as_bytes(),
        );
        let send = json.expect("valid");
        assert_eq!(send, form.expect("valid"));
        assert_eq!(send.category.as_ref().map(Category::as_str), Some("photo \u{2764}"));
        assert_eq!(send.link.as_ref().map(Link::as_str), Some("/p/7?a=b"));
        assert_eq!(send.data.as_ref().map(|data| data.as_json().get()), Some(r#"{"a":[1.0]}"#));
    }

    #[test]
    fn null_is_as_good_as_nothing() {
        let with = SendRequest::parse(
            JSON,
            br#"{"from_id":2,"to_id":1,"message":"hi","category":null,"link":null,"data":null}"#,
        );
        let without = SendRequest::parse(JSON, br#"{"from_id":2,"to_id":1,"message":"hi"}"#);
        assert_eq!(with.expect("valid"), without.expect("valid"));
        let form =
            SendRequest::parse(FORM, b"from_id=2&to_id=1&message=hi&data=null").expect("valid");
        assert_eq!(form.data, None);
        assert_eq!(why(JSON, r#"{"from_id":2,"to_id":null,"message":"hi"}"#), "to_id: is missing");
    }

    #[test]
    fn a_wrong_category_link_or_data_is_named_with_the_reason() {
        let body = |more: &str| format!(r#"{{"from_id":2,"to_id":1,"message":"hi",{more}}}"#);
        let huge = format!(r#""data":"{}""#, "x".repeat(Data::MAX_BYTES));
        for (more, expected) in [
            (r#""category":" ""#, "category: must not be empty"),
            (r#""category":7"#, "category: must be a string"),
            (r#""category":"a\nb""#, "category: must not have control characters"),
            (r#""link":"//x""#, "link: must be an http:// or https:// URL"),
            (r#""link":["/"]"#, "link: must be a string"),
            (&huge, "data: must have at most 16384 bytes, but has 16386"),
        ] {
            assert!(why(JSON, &body(more)).starts_with(expected), "{expected}");
        }
        let form = "from_id=2&to_id=1&message=hi";
        assert_eq!(why(FORM, &format!("{form}&data=hello")), "data: must be JSON");
        assert_eq!(why(FORM, &format!("{form}&data=1&data=2")), "data: must be given once");
        assert_eq!(why(FORM, &format!("{form}&link=/a&link=/b")), "link: must be given once");
    }

    #[test]
    fn a_line_is_json_and_may_have_a_key() {
        let line = br#"{"from_id":2,"to_id":1,"message":"hi","idempotency_key":"k-1"}"#;
        let (send, key) = SendRequest::parse_line(line).expect("valid");
        assert_eq!(send.to.as_slice(), [UserId::new(1).expect("positive")]);
        assert_eq!(key, IdempotencyKey::new("k-1".into()).ok());
        for (line, expected) in [
            ("hello", "the line is not a JSON object: it does not begin with {"),
            (
                r#"{"from_id":2,"to_id":1,"message":"hi","idempotency_key":"a b"}"#,
                "idempotency_key: must be 1 to 255 visible ASCII characters",
            ),
            (
                r#"{"from_id":2,"to_id":1,"message":"hi","idempotency_key":1}"#,
                "idempotency_key: must be a string",
            ),
        ] {
            let problem = SendRequest::parse_line(line.as_bytes()).expect_err("a problem");
            assert_eq!(problem.message(), expected);
        }
    }

    #[test]
    fn a_fingerprint_follows_from_what_is_said_and_not_from_who_hears_it() {
        let fingerprint =
            |text: &str| SendRequest::parse(JSON, text.as_bytes()).expect("valid").fingerprint();
        let first = fingerprint(r#"{"from_id":2,"to_id":1,"message":"hi"}"#);
        assert_eq!(first.to_string(), "211963ae16149b32");
        let same = fingerprint(r#"{"message":"hi","to_id":[3,4],"from_id":1,"link":null}"#);
        assert_eq!(first, same);
        let others = [
            r#"{"from_id":2,"to_id":1,"message":"hi!"}"#,
            r#"{"from_id":2,"to_id":1,"message":"hi","category":"x"}"#,
            r#"{"from_id":2,"to_id":1,"message":"hi","link":"/x"}"#,
            r#"{"from_id":2,"to_id":1,"message":"hi","data":""}"#,
            r#"{"from_id":2,"to_id":1,"message":"hi","data":1}"#,
            r#"{"from_id":2,"to_id":1,"message":"hi","data":1.0}"#,
            r#"{"from_id":2,"to_id":1,"message":"hi","category":"/x"}"#,
        ];
        let mut all: Vec<_> = others.iter().map(|text| fingerprint(text).to_string()).collect();
        all.push(first.to_string());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), others.len() + 1);
    }

    #[test]
    fn ten_thousand_recipients_are_the_most() {
        let body = |most: usize| {
            let ids: Vec<_> = (1..=most).chain(1..=2).map(|n| n.to_string()).collect();
            format!(r#"{{"from_id":1,"to_id":[{}],"message":"hi"}}"#, ids.join(","))
        };
        let send = SendRequest::parse(JSON, body(MAX_RECIPIENTS).as_bytes()).expect("valid");
        assert_eq!(send.to.len(), MAX_RECIPIENTS);
        assert!(why(JSON, &body(MAX_RECIPIENTS + 1)).starts_with("to_id: must name at most 10000"));
    }
}
