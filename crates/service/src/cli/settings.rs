//! Helpers for settings: the `.env` file, secrets, durations.

use std::{env, fmt, io, path::Path, time::Duration};

/// Why a `.env` file cannot be used. Never repeats its content, which may be secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EnvFileError(String);

/// Loads a `.env` file into the environment. It is searched for in the current folder and its
/// parents, and may be missing. Existing variables win.
///
/// Call it first in `main`, before a second thread starts (the environment may only be changed
/// then) and before clap parses.
pub(crate) fn load_dotenv() -> Result<(), EnvFileError> {
    let folder = env::current_dir().unwrap_or_default();
    // A folder named `.env` is usually a Python environment.
    let found = folder.ancestors().map(|folder| folder.join(".env")).find(|path| path.is_file());
    found.map_or(Ok(()), |path| load_file(&path))
}

/// Loads this file, which must exist.
pub fn load_file(path: &Path) -> Result<(), EnvFileError> {
    let file = path.display();
    let unreadable = |error: io::Error| EnvFileError(format!("cannot read {file}: {error}"));
    let malformed = |line: Option<usize>| {
        let line = line.map(|index| format!(", line {}", index + 1)).unwrap_or_default();
        EnvFileError(format!(
            "{file}{line}: not NAME=value; a value with spaces, # or $ needs 'single quotes'"
        ))
    };
    let content = std::fs::read_to_string(path).map_err(unreadable)?;
    // `set_var` panics on a NUL.
    if let Some(line) = content.lines().position(|line| line.contains('\0')) {
        return Err(malformed(Some(line)));
    }
    match dotenvy::from_read(content.as_bytes()) {
        Ok(()) => Ok(()),
        Err(dotenvy::Error::LineParse(text, _)) => {
            let first = text.lines().next().filter(|first| !first.is_empty());
            let line =
                first.and_then(|first| content.lines().position(|line| line.starts_with(first)));
            Err(malformed(line))
        }
        Err(dotenvy::Error::Io(source)) => Err(unreadable(source)),
        Err(_) => Err(malformed(None)),
    }
}

/// A value that is hidden in logs, errors and `--help`: it displays as `***`.
///
/// A clap argument of it also needs `hide_env_values = true`, because `--help` prints the
/// environment's text.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The value.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Ten years: longer values are typing errors, and some timers cannot hold them.
pub const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Not a number and a unit.
    #[error(
        "must be a whole number and a unit, such as 500ms, 10s, 5m, 2h or 30d (no unit: seconds)"
    )]
    Form,
    /// Longer than [`MAX_DURATION`].
    #[error("must be at most 3650d")]
    TooLong,
    /// Zero, where that would mean never.
    #[error("must be longer than 0")]
    Zero,
}

/// Parses a whole number and a unit (`500us`, `500ms`, `10s`, `5m`, `2h`, `30d`); without a unit it
/// is seconds. From 0 to [`MAX_DURATION`].
pub fn parse_precise_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let microseconds = match unit.trim_start() {
        "us" | "µs" => 1,
        "ms" => 1000,
        "" | "s" => 1_000_000,
        "m" => 60 * 1_000_000,
        "h" => 60 * 60 * 1_000_000,
        "d" => 24 * 60 * 60 * 1_000_000,
        _ => return Err(InvalidDuration::Form),
    };
    if number.is_empty() {
        return Err(InvalidDuration::Form);
    }
    // The number consists of digits only, so it can only overflow.
    let number: u64 = number.parse().map_err(|_| InvalidDuration::TooLong)?;
    let span = number.checked_mul(microseconds).map(Duration::from_micros);
    span.filter(|span| *span <= MAX_DURATION).ok_or(InvalidDuration::TooLong)
}

/// Like [`parse_precise_duration`], in whole milliseconds. A clap `value_parser`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let span = parse_precise_duration(text)?;
    if span.subsec_micros() % 1000 == 0 { Ok(span) } else { Err(InvalidDuration::Form) }
}

/// A [`parse_duration`] longer than 0, for limits that would let no request through at 0.
pub fn parse_positive_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let span = parse_duration(text)?;
    if span.is_zero() { Err(InvalidDuration::Zero) } else { Ok(span) }
}

#[cfg(test)]
mod fuzz {
    use inputs::{mutated_text, text};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_duration_that_is_taken_is_bounded_and_read_again_as_it_was_written(
            span in prop_oneof![text(), mutated_text("[0-9]{1,20} ?(ms|s|m|h|d)?")],
        ) {
            let Ok(found) = parse_duration(&span) else {
                prop_assert!(parse_positive_duration(&span).is_err());
                return Ok(());
            };
            prop_assert!(found <= MAX_DURATION);
            prop_assert_eq!(parse_duration(&format!("{}ms", found.as_millis())), Ok(found));
            prop_assert_eq!(parse_positive_duration(&span).is_ok(), !found.is_zero());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        for (text, seconds) in [
            ("0", 0),
            ("10", 10),
            ("10s", 10),
            ("5m", 300),
            ("2h", 7200),
            ("30d", 2_592_000),
            (" 7 s ", 7),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text:?}");
        }
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "s", "-1s", "1.5s", "1 week", "10S", "1s1s", "ten", "１s"] {
            assert_eq!(parse_duration(text), Err(InvalidDuration::Form), "{text:?}");
        }
    }

    #[test]
    fn a_duration_is_bounded() {
        assert_eq!(parse_duration("3650d"), Ok(MAX_DURATION));
        for text in ["3651d", "18446744073709551615s", "99999999999999999999"] {
            assert_eq!(parse_duration(text), Err(InvalidDuration::TooLong), "{text:?}");
        }
        assert_eq!(parse_positive_duration("0s"), Err(InvalidDuration::Zero));
        assert_eq!(parse_positive_duration("1ms"), Ok(Duration::from_millis(1)));
    }

    #[test]
    fn a_secret_never_shows_itself() {
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_malformed_env_file_is_named_with_its_line_and_without_its_content() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "# settings\n\nDATABASE_URL postgres://u:hunter2@h\n")
            .expect("a writable file");
        let error = load_file(file.path()).expect_err("a line without =").to_string();
        assert!(error.contains("line 3"), "{error}");
        assert!(error.contains(&file.path().display().to_string()), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_env_file_that_is_not_text_is_an_error() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        for bytes in [&b"A=\xff\n"[..], b"A=1\0\n"] {
            std::fs::write(file.path(), bytes).expect("a writable file");
            assert!(load_file(file.path()).is_err(), "{bytes:?}");
        }
    }
}
