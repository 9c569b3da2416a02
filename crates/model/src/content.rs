//! What may be sent: a message, and beside it a category, a link and data. Each is checked once, where
//! it comes in; past that nothing is checked again.

use serde_json::value::RawValue;

use crate::ijson::{self, NotIJson};

/// A message that may be sent: not blank, at most [`Message::MAX_CHARS`] characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(String);

/// Why a text is not a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// Nothing but white space.
    #[error("must not be empty")]
    Empty,
    /// Longer than [`Message::MAX_CHARS`].
    #[error("must have at most {max} characters, but has {0}", max = Message::MAX_CHARS)]
    TooLong(usize),
}

impl Message {
    /// The longest message, in Unicode scalar values. A bound of ours: it keeps a full inbox of
    /// the default 1000 entries within some megabytes, and is ten times what a phone shows.
    pub const MAX_CHARS: usize = 4096;

    /// The text as a message.
    ///
    /// # Errors
    /// [`InvalidMessage`] when it is blank or too long.
    pub fn new(text: String) -> Result<Self, InvalidMessage> {
        if text.trim().is_empty() {
            return Err(InvalidMessage::Empty);
        }
        match text.chars().count() {
            n if n > Self::MAX_CHARS => Err(InvalidMessage::TooLong(n)),
            _ => Ok(Self(text)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What kind of notification this is, in the sender's own words: not blank, one line, at most
/// [`Category::MAX_CHARS`] characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category(String);

/// Why a text is not a [`Category`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCategory {
    /// Nothing but white space.
    #[error("must not be empty")]
    Empty,
    /// Longer than [`Category::MAX_CHARS`].
    #[error("must have at most {max} characters, but has {0}", max = Category::MAX_CHARS)]
    TooLong(usize),
    /// A line break or another control character.
    #[error("must not have control characters")]
    Control,
}

impl Category {
    /// The longest category, in Unicode scalar values: it is a word to filter by, not a text.
    pub const MAX_CHARS: usize = 64;

    /// The text as a category.
    ///
    /// # Errors
    /// [`InvalidCategory`], which says what is wrong.
    pub fn new(text: String) -> Result<Self, InvalidCategory> {
        if text.trim().is_empty() {
            return Err(InvalidCategory::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidCategory::Control);
        }
        match text.chars().count() {
            n if n > Self::MAX_CHARS => Err(InvalidCategory::TooLong(n)),
            _ => Ok(Self(text)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a click leads: an absolute `http` or `https` URL, or a path of the site that shows the
/// notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link(String);

/// Why a text is not a [`Link`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLink {
    /// Longer than [`Link::MAX_CHARS`].
    #[error("must have at most {max} characters, but has {0}", max = Link::MAX_CHARS)]
    TooLong(usize),
    /// White space or a control character, which browsers drop or stumble over.
    #[error("must not have white space or control characters")]
    Space,
    /// Another scheme, another host in disguise, or no link at all.
    #[error("must be an http:// or https:// URL, or a path that begins with a single /")]
    Form,
}

impl Link {
    /// The longest link, in Unicode scalar values: what every browser takes.
    pub const MAX_CHARS: usize = 2048;

    /// The text as a link.
    ///
    /// `//host` is refused because it leads to another host, and `/\host` because browsers read it
    /// as the same; so is every other scheme, `javascript:` above all.
    ///
    /// # Errors
    /// [`InvalidLink`], which says what is wrong.
    pub fn new(text: String) -> Result<Self, InvalidLink> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(InvalidLink::Space);
        }
        if !(is_path(&text) || is_web_url(&text)) {
            return Err(InvalidLink::Form);
        }
        match text.chars().count() {
            n if n > Self::MAX_CHARS => Err(InvalidLink::TooLong(n)),
            _ => Ok(Self(text)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_path(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '\\']))
}

/// `http://` or `https://`, in any case, and a host.
fn is_web_url(text: &str) -> bool {
    ["http://", "https://"].into_iter().any(|scheme| {
        let start = text.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            && text[scheme.len()..].starts_with(|c| !matches!(c, '/' | '\\' | '?' | '#' | ':'))
    })
}

/// Anything else that the sender hands to the recipient's program: JSON, kept as it was written but
/// for the white space around its values, because a line break in it would break the lines that it is
/// streamed in. A number keeps its spelling, and an object its order.
#[derive(Debug, Clone)]
pub struct Data(Box<RawValue>);

/// Why a text is not [`Data`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidData {
    /// Longer than [`Data::MAX_BYTES`].
    #[error("must have at most {max} bytes, but has {0}", max = Data::MAX_BYTES)]
    TooLong(usize),
    /// Something else.
    #[error("must be JSON")]
    NotJson,
    /// Nests deeper than [`Data::MAX_DEPTH`].
    #[error("must nest at most {max} arrays and objects", max = Data::MAX_DEPTH)]
    TooDeep,
    /// JSON as its grammar has it, and yet no text or no number.
    #[error("must not have half a surrogate pair, or a number that no double holds")]
    NotPortable,
}

impl From<NotIJson> for InvalidData {
    fn from(why: NotIJson) -> Self {
        match why {
            NotIJson::TooDeep => Self::TooDeep,
            NotIJson::NotPortable => Self::NotPortable,
        }
    }
}

impl Data {
    /// Whether every program can read this JSON.
    pub(crate) fn check_json(json: &RawValue) -> Result<(), InvalidData> {
        Ok(ijson::check_ijson(json, Self::MAX_DEPTH)?)
    }

    /// The longest data as written, in bytes: an inbox of the default 1000 entries that all have as
    /// much stays within 16 MiB.
    pub const MAX_BYTES: usize = 16 << 10;
    /// How many arrays and objects may stand within each other. A bound of ours: some parsers take no
    /// more than 64, and data stands within a page or an event.
    pub const MAX_DEPTH: usize = 32;

    /// The text as data; none where it is `null`.
    ///
    /// # Errors
    /// [`InvalidData`] when it is too long or not JSON.
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

    /// The JSON.
    #[must_use]
    pub fn as_json(&self) -> &RawValue {
        &self.0
    }
}

impl PartialEq for Data {
    /// The same spelling; `1` and `1.0` differ.
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Data {}

/// Valid JSON without the white space between its tokens.
fn strip_whitespace(json: &str) -> String {
    let (mut within, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        if within {
            within = escaped || c != '"';
            escaped = !escaped && c == '\\';
            return true;
        }
        within = c == '"';
        !matches!(c, ' ' | '\t' | '\n' | '\r')
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_neither_blank_nor_too_long() {
        assert_eq!(Message::new(" \n".into()), Err(InvalidMessage::Empty));
        assert!(Message::new("é".repeat(Message::MAX_CHARS)).is_ok());
        assert_eq!(
            Message::new("é".repeat(Message::MAX_CHARS + 1)),
            Err(InvalidMessage::TooLong(Message::MAX_CHARS + 1))
        );
    }

    #[test]
    fn a_category_is_one_short_line() {
        assert!(Category::new("comment on a photo".into()).is_ok());
        assert!(Category::new("é".repeat(Category::MAX_CHARS)).is_ok());
        assert_eq!(Category::new("é".repeat(65)), Err(InvalidCategory::TooLong(65)));
        assert_eq!(Category::new(String::new()), Err(InvalidCategory::Empty));
        assert_eq!(Category::new("\u{a0} ".into()), Err(InvalidCategory::Empty));
        for text in ["a\nb", "a\0", "\u{7f}a", "a\u{85}"] {
            assert_eq!(Category::new(text.into()), Err(InvalidCategory::Control), "{text:?}");
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
            assert_eq!(Link::new(text.into()), Err(InvalidLink::Form), "{text:?}");
        }
        for text in [" /", "/a b", "/\t/example.org", "https://example.org/\n", "/\u{2028}", "/\0"]
        {
            assert_eq!(Link::new(text.into()), Err(InvalidLink::Space), "{text:?}");
        }
        let longest = format!("/{}", "é".repeat(Link::MAX_CHARS - 1));
        assert!(Link::new(longest.clone()).is_ok());
        assert_eq!(Link::new(longest + "x"), Err(InvalidLink::TooLong(Link::MAX_CHARS + 1)));
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
