//! Settings before and while clap parses them: the `.env` file, values that must not be shown,
//! and spans of time. It never decides what a setting means.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Why a `.env` file that exists could not be used. Its text never repeats what the file says,
/// because that is where secrets are.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// It could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line of it is not `NAME=value`.
    #[error(
        "{}{}: not NAME=value; a value with spaces, # or $ needs 'single quotes'",
        path.display(),
        line.map(|n| format!(", line {n}")).unwrap_or_default()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line from 1, where it is known.
        line: Option<usize>,
    },
}

/// Puts what a `.env` file says into the environment, and returns the file's path. The file is
/// looked for in the current folder and then in each one above it; that there is none is fine.
/// What the environment already has wins over the file.
///
/// Call it first in `main`, before there is a second thread (the environment of a process may
/// only be changed then) and before clap parses.
///
/// # Errors
/// [`EnvFileError`] when there is a file that cannot be read or understood.
pub fn load_dotenv() -> Result<Option<PathBuf>, EnvFileError> {
    let Ok(folder) = env::current_dir() else {
        return Ok(None);
    };
    // A folder named `.env` is usually a Python environment, and no business of ours.
    let Some(path) = folder.ancestors().map(|f| f.join(".env")).find(|p| p.is_file()) else {
        return Ok(None);
    };
    load_file(&path)?;
    Ok(Some(path))
}

/// The same for the file at this path, which must exist.
///
/// # Errors
/// [`EnvFileError`] when it cannot be read or understood.
pub fn load_file(path: &Path) -> Result<(), EnvFileError> {
    let unreadable = |source| EnvFileError::Unreadable { path: path.to_owned(), source };
    let malformed = |line| EnvFileError::Malformed { path: path.to_owned(), line };
    let content = std::fs::read_to_string(path).map_err(unreadable)?;
    // No variable can hold a NUL, and setting one that does panics.
    if let Some(line) = content.lines().position(|line| line.contains('\0')) {
        return Err(malformed(Some(line + 1)));
    }
    match dotenvy::from_read(content.as_bytes()) {
        Ok(()) => Ok(()),
        Err(dotenvy::Error::LineParse(text, _)) => {
            let first = text.lines().next().filter(|first| !first.is_empty());
            let line =
                first.and_then(|first| content.lines().position(|line| line.starts_with(first)));
            Err(malformed(line.map(|line| line + 1)))
        }
        Err(dotenvy::Error::Io(source)) => Err(unreadable(source)),
        Err(_) => Err(malformed(None)),
    }
}

/// A value that must not be seen in logs, error texts or `--help`: it shows itself as `***`.
///
/// As a clap argument it also needs `hide_env_values = true`, because `--help` prints the
/// environment's text, not ours.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that needs it.
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

/// The longest [`duration`], ten years: longer ones are typing errors, and some timers cannot
/// hold them.
pub const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Why a text is not a [`duration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// It has another form.
    #[error(
        "must be a whole number and a unit, such as 500ms, 10s, 5m, 2h or 30d (no unit: seconds)"
    )]
    Form,
    /// It is longer than [`MAX_DURATION`].
    #[error("must be at most 3650d")]
    TooLong,
    /// It is zero where that would mean never.
    #[error("must be longer than 0")]
    Zero,
}

/// A span of time as a setting spells it: a whole number and a unit (`500ms`, `10s`, `5m`, `2h`,
/// `30d`); without a unit it is seconds. From 0 to [`MAX_DURATION`]. A clap `value_parser`.
///
/// # Errors
/// [`InvalidDuration`], which says what the form is.
pub fn duration(text: &str) -> Result<Duration, InvalidDuration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit.trim_start() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return Err(InvalidDuration::Form),
    };
    if number.is_empty() {
        return Err(InvalidDuration::Form);
    }
    // What fails from here is a number of digits alone, so it is only too large.
    let number: u64 = number.parse().map_err(|_| InvalidDuration::TooLong)?;
    let span = number.checked_mul(milliseconds).map(Duration::from_millis);
    span.filter(|span| *span <= MAX_DURATION).ok_or(InvalidDuration::TooLong)
}

/// A [`duration`] longer than 0, for limits that would otherwise never let anything through.
///
/// # Errors
/// [`InvalidDuration`], which says what the form is.
pub fn positive_duration(text: &str) -> Result<Duration, InvalidDuration> {
    duration(text).and_then(
        |span| {
            if span.is_zero() { Err(InvalidDuration::Zero) } else { Ok(span) }
        },
    )
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
            let Ok(found) = duration(&span) else {
                prop_assert!(positive_duration(&span).is_err());
                return Ok(());
            };
            prop_assert!(found <= MAX_DURATION);
            prop_assert_eq!(duration(&format!("{}ms", found.as_millis())), Ok(found));
            prop_assert_eq!(positive_duration(&span).is_ok(), !found.is_zero());
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
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text:?}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "s", "-1s", "1.5s", "1 week", "10S", "1s1s", "ten", "１s"] {
            assert_eq!(duration(text), Err(InvalidDuration::Form), "{text:?}");
        }
    }

    #[test]
    fn a_duration_is_bounded() {
        assert_eq!(duration("3650d"), Ok(MAX_DURATION));
        for text in ["3651d", "18446744073709551615s", "99999999999999999999"] {
            assert_eq!(duration(text), Err(InvalidDuration::TooLong), "{text:?}");
        }
        assert_eq!(positive_duration("0s"), Err(InvalidDuration::Zero));
        assert_eq!(positive_duration("1ms"), Ok(Duration::from_millis(1)));
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
