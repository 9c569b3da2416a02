//! The Idempotency-Key
//! (<https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header>): its syntax, the
//! notification ids derived from it, and the fingerprint that reveals its reuse for other content.

use axum::http::HeaderMap;
use model::{Fingerprint, NotificationId, UserId};
use service::problem::Problem;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The header's name, and the field that a 400 names.
const HEADER: &str = "Idempotency-Key";

/// A sender's name for one send. Repeated sends with the same key make one notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdempotencyKey {
    #[error("must be 1 to {max} visible ASCII characters", max = IdempotencyKey::MAX_CHARS)]
    Characters,
    #[error("must be a string in double quotes, or bare")]
    Quotes,
    #[error("must be given once")]
    Twice,
}

impl IdempotencyKey {
    pub const MAX_CHARS: usize = 255;

    /// Validates a key without quotes.
    pub fn new(key: String) -> Result<Self, InvalidIdempotencyKey> {
        let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
        if visible && (1..=Self::MAX_CHARS).contains(&key.len()) {
            Ok(Self(key))
        } else {
            Err(InvalidIdempotencyKey::Characters)
        }
    }

    /// Parses a request's header: a string (RFC 9651, section 3.3.3) whose parameters are ignored, or
    /// the bare key, as most clients write it. `None` if the header is missing.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let text = value.to_str().map_err(|_| InvalidIdempotencyKey::Characters);
        let key = match values.next() {
            Some(_) => Err(InvalidIdempotencyKey::Twice),
            None => text.and_then(|text| unquote(text.trim())).and_then(Self::new),
        };
        key.map(Some).map_err(|why| Problem::bad_request(HEADER, why))
    }

    /// The key of one line of a bulk request with this key in its header.
    pub fn for_line(&self, line: u64) -> Self {
        Self(format!("{}#{line}", self.0))
    }

    /// Derives the id of the notification with this key, sender and recipient.
    pub fn notification_id(&self, from: UserId, to: UserId) -> NotificationId {
        let mut hash = Sha256::new();
        hash_part(&mut hash, b"notifications/id/1");
        hash_part(&mut hash, &from.get().to_be_bytes());
        hash_part(&mut hash, &to.get().to_be_bytes());
        hash_part(&mut hash, self.0.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        NotificationId::Uuid(Uuid::new_v8(bytes))
    }
}

/// The fingerprint of a notification's content: its message, and its category, link and data if any.
pub(super) fn content_fingerprint(message: &str, optional: [Option<&str>; 3]) -> Fingerprint {
    let mut hash = Sha256::new();
    hash_part(&mut hash, b"notifications/fingerprint/1");
    hash_part(&mut hash, message.as_bytes());
    for text in optional {
        hash.update([u8::from(text.is_some())]);
        hash_part(&mut hash, text.unwrap_or_default().as_bytes());
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.finalize()[..8]);
    Fingerprint::from_bits(u64::from_be_bytes(bytes))
}

/// Hashes a part's length and bytes, so that different lists of parts are different input.
fn hash_part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

/// Returns the content of a quoted string, or the text itself if it begins with no quote.
fn unquote(text: &str) -> Result<String, InvalidIdempotencyKey> {
    let Some(rest) = text.strip_prefix('"') else { return Ok(text.to_owned()) };
    let mut key = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    loop {
        match characters.next() {
            Some('"') if has_parameters_only(characters.as_str()) => return Ok(key),
            Some('\\') => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(InvalidIdempotencyKey::Quotes),
            },
            Some('"') | None => return Err(InvalidIdempotencyKey::Quotes),
            Some(character) => key.push(character),
        }
    }
}

/// Returns true for the parameters of an item (RFC 9651, section 3.1.2), or none: `;name` or
/// `;name=value`, each with spaces before the name.
fn has_parameters_only(text: &str) -> bool {
    let mut rest = text.trim_end_matches(' ');
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches(' ');
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c);
        let name = parameter.trim_start_matches(is_name);
        if !parameter.starts_with(|c: char| c.is_ascii_lowercase() || c == '*') {
            return false;
        }
        rest = match name.strip_prefix('=') {
            None => name,
            Some(value) => match after_bare_item(value) {
                Some(rest) => rest,
                None => return false,
            },
        };
    }
    rest.is_empty()
}

/// The text after a string, or after a run of the characters of all other bare items.
fn after_bare_item(text: &str) -> Option<&str> {
    let Some(mut string) = text.strip_prefix('"') else {
        let is_item = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/?@=".contains(c);
        let rest = text.trim_start_matches(is_item);
        return (rest.len() < text.len()).then_some(rest);
    };
    loop {
        let at = string.find(['"', '\\'])?;
        if string[at..].starts_with('"') {
            return Some(&string[at + 1..]);
        }
        string = string.get(at + 2..)?;
    }
}

#[cfg(test)]
mod fuzz {
    use axum::http::HeaderValue;
    use inputs::{bytes, mutated};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn an_idempotency_key_is_refused_or_one_visible_word(
            values in vec(
                prop_oneof![bytes(), mutated("\"[!-~]{1,20}\"|[!-~]{1,300}".prop_map(String::into_bytes))],
                0..3,
            ),
        ) {
            let mut headers = HeaderMap::new();
            for value in &values {
                if let Ok(value) = HeaderValue::from_bytes(value) {
                    headers.append(HEADER, value);
                }
            }
            match IdempotencyKey::from_headers(&headers) {
                Err(problem) => {
                    prop_assert_eq!(problem.status().as_u16(), 400);
                    prop_assert!(headers.contains_key(HEADER));
                }
                Ok(None) => prop_assert!(!headers.contains_key(HEADER)),
                Ok(Some(key)) => {
                    let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
                    prop_assert_eq!(headers.len(), 1);
                    // Unquoting only makes a key shorter.
                    let length = given.unwrap_or_default().trim().len().min(IdempotencyKey::MAX_CHARS);
                    prop_assert!((1..=length).contains(&key.0.len()));
                    prop_assert_eq!(IdempotencyKey::new(key.0.clone()), Ok(key));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn key(values: &[&[u8]]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).expect("a header's value"));
        }
        let key =
            IdempotencyKey::from_headers(&headers).map_err(|problem| problem.message().to_owned());
        key.map(|key| key.map(|key| key.0))
    }

    #[test]
    fn a_key_is_a_string_of_visible_characters_with_or_without_quotes() {
        assert_eq!(key(&[]), Ok(None));
        for (value, expected) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            ("\"8e03978e-40d5\"", "8e03978e-40d5"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            ("\"a\";p=1", "a"),
            (r#""a" "#, "a"),
            (r#""a";p;  q=?1;r="x;\"y";s=tok/en:1;t=-1.5;u=:YQ==:"#, "a"),
            ("a\"b", "a\"b"),
            (" a ", "a"),
        ] {
            assert_eq!(key(&[value.as_bytes()]), Ok(Some(expected.into())), "{value}");
        }
        let (long, longest) = ("x".repeat(256), "x".repeat(255));
        assert_eq!(key(&[longest.as_bytes()]), Ok(Some(longest.clone())));
        let characters = "Idempotency-Key: must be 1 to 255 visible ASCII characters";
        for value in [&b""[..], b"\"\"", b"a b", b"\"a b\"", b"\xc3\xa9", long.as_bytes()] {
            assert_eq!(key(&[value]), Err(characters.into()), "{value:?}");
        }
        for value in [
            &b"\""[..],
            b"\"a",
            b"\"a\"b\"",
            b"\"a\\n\"",
            b"\"a\" x",
            b"\"a\";",
            b"\"a\";P=1",
            b"\"a\";p=",
            b"\"a\";p=\"x",
            b"\"a\",b",
            b"\"a\\",
        ] {
            let quotes = "Idempotency-Key: must be a string in double quotes, or bare";
            assert_eq!(key(&[value]), Err(quotes.into()), "{value:?}");
        }
        assert_eq!(key(&[b"a", b"a"]), Err("Idempotency-Key: must be given once".into()));
    }

    #[test]
    fn an_id_follows_from_the_key_and_the_two_people_and_from_nothing_else() {
        let key = |text: &str| IdempotencyKey::new(text.into()).expect("a key");
        let user = |n| UserId::new(n).expect("positive");
        let id = key("k").notification_id(user(2), user(1));
        assert_eq!(id, key("k").notification_id(user(2), user(1)));
        for other in [
            key("k").notification_id(user(1), user(2)),
            key("k").notification_id(user(2), user(3)),
            key("K").notification_id(user(2), user(1)),
            key("k").for_line(1).notification_id(user(2), user(1)),
        ] {
            assert_ne!(id, other);
        }
        // Records in the log have such ids, so the derivation must never change.
        assert_eq!(id.to_string(), "f70c830c-83c2-8f3f-87ae-ac09d553f104");
        let NotificationId::Uuid(uuid) = id else { unreachable!("a UUID") };
        assert_eq!(uuid.get_version_num(), 8);
        assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
    }

    proptest! {
        #[test]
        fn a_key_in_quotes_is_the_key_itself(text in "[!-~]{1,60}") {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(unquote(&format!("\"{escaped}\"")), Ok(text));
        }
    }
}
