//! The content of a notification: a message, and optionally a category, a link and data. The
//! constructors validate; code that holds one of these types does not check it again.

use serde_json::value::RawValue;

use crate::{
    ijson::check_ijson,
    text::{InvalidText, check_length, check_line},
};

/// A message: not blank, at most [`Message::MAX_CHARS`] characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(String);

impl Message {
    /// Maximum length in Unicode scalar values. With it, a full inbox of the default 1000 entries
    /// takes a few megabytes.
    pub const MAX_CHARS: usize = 4096;

    /// Validates a message.
    pub fn new(text: String) -> Result<Self, InvalidText> {
        if text.trim().is_empty() {
            return Err(InvalidText::Empty);
        }
        check_length(&text, Self::MAX_CHARS)?;
        Ok(Self(text))
    }

    /// The message's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The kind of a notification, chosen by the sender: not blank, one line, at most
/// [`Category::MAX_CHARS`] characters. Readers may filter by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category(String);

impl Category {
    /// Maximum length in Unicode scalar values.
    pub const MAX_CHARS: usize = 64;

    /// Validates a category.
    pub fn new(text: String) -> Result<Self, InvalidText> {
        check_line(&text, Self::MAX_CHARS)?;
        Ok(Self(text))
    }

    /// The category's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The target of a click: an absolute `http` or `https` URL, or a path on the site that shows the
/// notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link(String);

impl Link {
    /// Maximum length in Unicode scalar values. All browsers accept URLs of this length.
    pub const MAX_CHARS: usize = 2048;

    /// Validates a link. Rejects every other scheme (`javascript:` above all), `//host`, which
    /// leads to another host, and `/\host`, which browsers read as `//host`.
    pub fn new(text: String) -> Result<Self, InvalidText> {
        Self::check_text(&text)?;
        Ok(Self(text))
    }

    /// Validates the text of a link.
    pub(crate) fn check_text(text: &str) -> Result<(), InvalidText> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidText::Space);
        }
        let is_path = text.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '\\']));
        if !is_path && !is_web_url(text) {
            return Err(InvalidText::NotALink);
        }
        check_length(text, Self::MAX_CHARS)
    }

    /// The link's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns true if the text begins with `http://` or `https://`, in any case, and a host.
fn is_web_url(text: &str) -> bool {
    ["http://", "https://"].into_iter().any(|scheme| {
        let start = text.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            && text[scheme.len()..].starts_with(|c| !matches!(c, '/' | '\\' | '?' | '#' | ':'))
    })
}

/// JSON for the recipient's program, without white space between its tokens: a line break would
/// split the lines of an NDJSON stream. Numbers keep their spelling and objects their order.
#[derive(Debug, Clone)]
pub struct Data(Box<RawValue>);

/// Why a text is not [`Data`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidData {
    #[error("must have at most {max} bytes, but has {0}", max = Data::MAX_BYTES)]
    TooLong(usize),
    #[error("must be JSON")]
    NotJson,
    #[error("must nest at most {max} arrays and objects", max = Data::MAX_DEPTH)]
    TooDeep,
    /// It is JSON by the grammar, but not I-JSON (RFC 7493): some parsers reject it.
    #[error("must not have half a surrogate pair, or a number that no double holds")]
    NotPortable,
}

impl Data {
    /// Maximum length of the JSON as sent, in bytes. With it, the data of an inbox of the default
    /// 1000 entries takes at most 16 MiB.
    pub const MAX_BYTES: usize = 16 << 10;
    /// Maximum nesting of arrays and objects. Some parsers accept no more than 64 levels, and a page
    /// or an event adds levels around the data.
    pub const MAX_DEPTH: usize = 32;

    /// Fails if the JSON nests too deep or is not I-JSON.
    pub(crate) fn check_json(json: &RawValue) -> Result<(), InvalidData> {
        // Excess depth is the only data error; every other error is the parser's.
        check_ijson(json, Self::MAX_DEPTH).map_err(|error| {
            if error.is_data() { InvalidData::TooDeep } else { InvalidData::NotPortable }
        })
    }

    /// Parses and validates data. `None` if it is `null`.
    pub fn from_json(text: &str) -> Result<Option<Self>, InvalidData> {
        if text.len() > Self::MAX_BYTES {
            return Err(InvalidData::TooLong(text.len()));
        }
        let value: &RawValue = serde_json::from_str(text).map_err(|_| InvalidData::NotJson)?;
        Self::check_json(value)?;
        let value = RawValue::from_string(strip_whitespace(value.get()))
            .map_err(|_| InvalidData::NotJson)?;
        Ok((value.get() != "null").then_some(Self(value)))
    }

    /// The JSON text.
    #[must_use]
    pub fn as_json(&self) -> &RawValue {
        &self.0
    }
}

impl PartialEq for Data {
    /// Compares the spelling: `1` and `1.0` differ.
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Data {}

/// Removes the white space between the tokens of valid JSON.
fn strip_whitespace(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            return true;
        }
        in_string = c == '"';
        !matches!(c, ' ' | '\t' | '\n' | '\r')
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_long(max: usize, found: usize) -> InvalidText {
        InvalidText::TooLong { max, found }
    }

    #[test]
    fn a_message_is_neither_blank_nor_too_long() {
        assert_eq!(Message::new(" \n".into()), Err(InvalidText::Empty));
        assert!(Message::new("é".repeat(Message::MAX_CHARS)).is_ok());
        assert_eq!(
            Message::new("é".repeat(Message::MAX_CHARS + 1)),
            Err(too_long(Message::MAX_CHARS, Message::MAX_CHARS + 1))
        );
    }

    #[test]
    fn a_category_is_one_short_line() {
        assert!(Category::new("comment on a photo".into()).is_ok());
        assert!(Category::new("é".repeat(Category::MAX_CHARS)).is_ok());
        assert_eq!(Category::new("é".repeat(65)), Err(too_long(Category::MAX_CHARS, 65)));
        assert_eq!(Category::new(String::new()), Err(InvalidText::Empty));
        assert_eq!(Category::new("\u{a0} ".into()), Err(InvalidText::Empty));
        for text in ["a\nb", "a\0", "\u{7f}a", "a\u{85}"] {
            assert_eq!(Category::new(text.into()), Err(InvalidText::Control), "{text:?}");
        }
    }

    #[test]
    fn a_link_leads_to_the_web_or_to_a_path_of_the_own_site() {
        for text in [
            "/",
            "/posts/7?from=mail#last",
            "/%2F/x",
            "http://localhost:8080",
            "https://example.org/ä",
            "HTTPS://example.org",
            "http://[::1]/",
        ] {
            assert_eq!(Link::new(text.into()).map(|link| link.0), Ok(text.to_owned()));
        }
        for text in [
            "",
            "//example.org",
            "/\\example.org",
            "example.org",
            "posts/7",
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://example.org",
            "http:/example.org",
            "https://",
            "http:///path",
            "http://?x",
            "http://:80",
            "?x",
        ] {
            assert_eq!(Link::new(text.into()), Err(InvalidText::NotALink), "{text:?}");
        }
        for text in [" /", "/a b", "/\t/example.org", "https://example.org/\n", "/\u{2028}", "/\0"]
        {
            assert_eq!(Link::new(text.into()), Err(InvalidText::Space), "{text:?}");
        }
        let longest = format!("/{}", "é".repeat(Link::MAX_CHARS - 1));
        assert!(Link::new(longest.clone()).is_ok());
        assert_eq!(Link::new(longest + "x"), Err(too_long(Link::MAX_CHARS, Link::MAX_CHARS + 1)));
    }

    #[test]
    fn data_is_json_that_every_program_reads() {
        let nested = |open: &str, close: &str, levels: usize| {
            format!("{}0{}", open.repeat(levels), close.repeat(levels))
        };
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            assert!(Data::from_json(&nested(open, close, Data::MAX_DEPTH)).is_ok());
            for levels in [Data::MAX_DEPTH + 1, 1000] {
                let data = Data::from_json(&nested(open, close, levels));
                assert_eq!(data, Err(InvalidData::TooDeep), "{open}");
            }
        }
        for text in [r#""\ud800""#, r#"{"\udc00":1}"#, r#"["\ud800\u0041"]"#, "1e999", "[-1E400]"] {
            assert_eq!(Data::from_json(text), Err(InvalidData::NotPortable), "{text}");
        }
        assert!(Data::from_json(r#"["\ud83d\udca9","\u0000",1e308,1e-999]"#).is_ok());
    }

    #[test]
    fn data_keeps_its_spelling_but_no_white_space_around_values() {
        let parse = |text: &str| {
            Data::from_json(text).map(|data| data.map(|data| data.as_json().get().to_owned()))
        };
        for (text, kept) in [
            ("{ \"b\" : 1.0,\r\n\t\"a\" : [ ] }", "{\"b\":1.0,\"a\":[]}"),
            (r#" "two  words\" \\" "#, r#""two  words\" \\""#),
            ("18446744073709551616", "18446744073709551616"),
        ] {
            assert_eq!(parse(text), Ok(Some(kept.to_owned())));
        }
        assert_eq!(parse(" null\n"), Ok(None));
        for text in ["", "{", "nul", "1 2", "'a'", "{\"a\":1,}", "\"a\nb\""] {
            assert_eq!(parse(text), Err(InvalidData::NotJson), "{text:?}");
        }
        let longest = format!("\"{}\"", "x".repeat(Data::MAX_BYTES - 2));
        assert!(parse(&longest).is_ok());
        assert_eq!(parse(&(longest + " ")), Err(InvalidData::TooLong(Data::MAX_BYTES + 1)));
    }
}
