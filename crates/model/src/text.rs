//! Length and character rules shared by messages, categories, links and user names.

/// Why a text was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// It is empty or only white space.
    #[error("must not be empty")]
    Empty,
    #[error("must have at most {max} characters, but has {found}")]
    TooLong { max: usize, found: usize },
    #[error("must not have control characters")]
    Control,
    /// A link has white space or a control character. Browsers drop some of them.
    #[error("must not have white space or control characters")]
    Space,
    #[error("must be an http:// or https:// URL, or a path that begins with a single /")]
    NotALink,
}

/// Fails if the text has more than `max` Unicode scalar values.
pub(crate) fn check_length(text: &str, max: usize) -> Result<(), InvalidText> {
    match text.chars().count() {
        found if found > max => Err(InvalidText::TooLong { max, found }),
        _ => Ok(()),
    }
}

/// Fails if the text is blank, has a control character or more than `max` Unicode scalar values.
pub(crate) fn check_line(text: &str, max: usize) -> Result<(), InvalidText> {
    if text.trim().is_empty() {
        return Err(InvalidText::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidText::Control);
    }
    check_length(text, max)
}
