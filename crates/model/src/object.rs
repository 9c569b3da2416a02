//! Values that are JSON objects, and errors that tell where JSON is wrong without repeating it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::error::Category;

/// Longest text that is kept of an error of our own types.
const MAX_REASON_CHARS: usize = 100;

/// Deserializes a struct from an object. serde's derive would also accept an array of the fields'
/// values.
pub(crate) fn deserialize_object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    deserializer.deserialize_map(ObjectVisitor(PhantomData))
}

/// Parses a JSON object, with nothing after it.
pub(crate) fn parse_object<'de, T: Deserialize<'de>>(json: &'de [u8]) -> serde_json::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = deserialize_object(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(object))
    }
}

/// Why JSON cannot be decoded: the kind and the place of the error, never the content, which may be
/// long, private, or made to deceive the reader of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = text.strip_suffix(&place).unwrap_or(&text);
        Self(match error.classify() {
            // The parser's own words, without content.
            Category::Syntax | Category::Eof | Category::Io => text,
            Category::Data => describe_mismatch(reason) + &place,
        })
    }
}

/// The reason of serde's message without what was found. What was expected comes last, in our words.
fn describe_mismatch(reason: &str) -> String {
    let expected = reason.rfind(", expected ").map_or("", |at| &reason[at..]);
    for kind in ["invalid type: ", "invalid value: "] {
        if let Some(found) = reason.strip_prefix(kind) {
            let end = found.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(found.len());
            return format!("{kind}{}{expected}", &found[..end]);
        }
    }
    for kind in ["unknown variant", "unknown field"] {
        if reason.starts_with(kind) {
            return format!("{kind}{expected}");
        }
    }
    // A missing or repeated field of ours, or the message of a type of ours.
    reason.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Notification, Receipt};

    fn reason<'a, T: Deserialize<'a> + fmt::Debug>(json: &'a str) -> String {
        JsonError::from(parse_object::<T>(json.as_bytes()).expect_err("poison")).to_string()
    }

    #[test]
    fn an_error_names_kind_and_place_and_repeats_nothing() {
        let secret = r"hunter2\u001b[2J, expected nothing\n";
        let from = format!(r#"{{"from":"{secret}"}}"#);
        let action = format!(r#"{{"user_id":1,"action":"{secret}","ids":[]}}"#);
        for (found, expected) in [
            (
                reason::<Notification<'_>>(&from),
                "invalid type: string, expected an object at line 1 column",
            ),
            (
                reason::<Notification<'_>>(r#"{"from":{"id":1,"name":7}}"#),
                "invalid type: integer, expected a",
            ),
            (reason::<Notification<'_>>("{}"), "missing field `from` at line 1 column 2"),
            (
                reason::<Notification<'_>>(r#"{"from""#),
                "EOF while parsing an object at line 1 column 7",
            ),
            (
                reason::<Notification<'_>>("[]"),
                "invalid type: sequence, expected an object at line 1 column",
            ),
            (
                reason::<Receipt>(&action),
                "unknown variant, expected one of `read`, `unread`, `dismissed` at line 1",
            ),
            (
                reason::<Receipt>(r#"{"user_id":0}"#),
                "must be a positive whole number at line 1 column",
            ),
        ] {
            assert!(found.starts_with(expected), "{found:?} for {expected:?}");
            assert!(!found.contains("hunter2"), "{found:?}");
        }
    }
}
