//! Compares printed answers with real ones.
//!
//! Ids, cursors, times and tokens differ from run to run: one is as good as another. So do a few
//! numbers ([`varies`]). Line breaks inside JSON and empty lines do not count. A line `…` stands for
//! any lines, and the text `"…"` in JSON for any text.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Deserializer, Value};
use uuid::Uuid;

/// Stands for anything.
const ANYTHING: &str = "…";

/// Headers whose values differ from run to run.
const VARYING_HEADERS: [&str; 3] = ["date:", "etag:", "content-length:"];

/// Returns true if the answer is the printed one in shape. Adds the printed ids and cursors, and
/// those of the answer, to `actual`.
pub(super) fn matches(printed: &str, answer: &str, actual: &mut HashMap<String, String>) -> bool {
    match (json_values(printed), json_values(answer)) {
        (Some(printed), Some(answer)) => {
            printed.len() == answer.len()
                && printed.iter().zip(&answer).all(|(p, a)| match_values("", p, a, actual))
        }
        _ => {
            let lines = |text| str::lines(text).map(str::trim).filter(|line| !line.is_empty());
            let (printed, answer): (Vec<_>, Vec<_>) =
                (lines(printed).collect(), lines(answer).collect());
            match_lines(&printed, &answer, actual)
        }
    }
}

/// The JSON values that a text consists of; `None` if it is not JSON alone.
fn json_values(text: &str) -> Option<Vec<Value>> {
    Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().ok()
}

fn match_lines(printed: &[&str], answer: &[&str], actual: &mut HashMap<String, String>) -> bool {
    match (printed, answer) {
        ([], []) => true,
        ([ANYTHING, printed @ ..], answer) => {
            (0..=answer.len()).any(|skip| match_lines(printed, &answer[skip..], actual))
        }
        ([first, printed @ ..], [line, answer @ ..]) => {
            match_line(first, line, actual) && match_lines(printed, answer, actual)
        }
        _ => false,
    }
}

fn match_line(printed: &str, answer: &str, actual: &mut HashMap<String, String>) -> bool {
    let name = |line: &str| line.split_inclusive(':').next().unwrap_or_default().to_lowercase();
    if VARYING_HEADERS.contains(&&*name(printed)) {
        return name(printed) == name(answer);
    }
    // A field of Server-Sent Events.
    let json = |line: &str| serde_json::from_str(line.trim_start_matches("data:")).ok();
    match (json(printed), json(answer)) {
        (Some(printed), Some(answer)) => match_values("", &printed, &answer, actual),
        _ => match_texts(printed, answer, actual),
    }
}

fn match_values(
    key: &str,
    printed: &Value,
    answer: &Value,
    actual: &mut HashMap<String, String>,
) -> bool {
    match (printed, answer) {
        (Value::Object(printed), Value::Object(answer)) => {
            printed.len() == answer.len()
                && printed.iter().all(|(key, printed)| {
                    answer.get(key).is_some_and(|it| match_values(key, printed, it, actual))
                })
        }
        (Value::Array(printed), Value::Array(answer)) => {
            printed.len() == answer.len()
                && printed.iter().zip(answer).all(|(p, a)| match_values(key, p, a, actual))
        }
        (Value::String(printed), Value::String(answer)) => {
            printed == ANYTHING || match_texts(printed, answer, actual)
        }
        (Value::Number(printed), Value::Number(answer)) => printed == answer || varies(key),
        _ => printed == answer,
    }
}

/// Returns true if the number of this name differs from run to run.
fn varies(key: &str) -> bool {
    matches!(key, "lag" | "position" | "records" | "total")
        || key.contains("seconds")
        || key.ends_with("_ms")
}

fn match_texts(printed: &str, answer: &str, actual: &mut HashMap<String, String>) -> bool {
    let (printed, answer) = (words(printed), words(answer));
    printed.len() == answer.len()
        && printed.iter().zip(&answer).all(|(&printed, &answer)| {
            let kind = kind(printed);
            if kind.is_some() && kind == self::kind(answer) {
                actual.insert(printed.to_owned(), answer.to_owned());
                return true;
            }
            printed == answer
        })
}

#[derive(PartialEq)]
enum Kind {
    Id,
    Cursor,
    Time,
    Token,
}

fn kind(word: &str) -> Option<Kind> {
    if word.parse::<Uuid>().is_ok() {
        Some(Kind::Id)
    } else if is_cursor(word) {
        Some(Kind::Cursor)
    } else if word.parse::<Timestamp>().is_ok() {
        Some(Kind::Time)
    } else {
        word.starts_with("eyJ").then_some(Kind::Token)
    }
}

/// Partition, offset or `start`, and perhaps a part of hexadecimal digits that names the log.
fn is_cursor(word: &str) -> bool {
    let mut parts = word.split('-');
    let mut part_is = |is: fn(&str) -> bool| parts.next().is_some_and(is);
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    part_is(is_number)
        && part_is(|part| part == "start" || part.parse::<u64>().is_ok())
        && parts.next().is_none_or(|part| part.bytes().all(|b| b.is_ascii_hexdigit()))
        && parts.next().is_none()
}

/// Splits a text into words, which may be ids, cursors and so on, and what is between them.
fn words(text: &str) -> Vec<&str> {
    let in_word = |c: char| c.is_ascii_alphanumeric() || "-_.:+".contains(c);
    let mut words = Vec::new();
    let mut begin = 0;
    for (at, c) in text.char_indices() {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|before| in_word(before) != in_word(c)) {
            words.push(&text[begin..at]);
            begin = at;
        }
    }
    words.push(&text[begin..]);
    words
}

/// The text with printed ids and cursors replaced by the actual ones.
pub(super) fn replace_words(text: &str, actual: &HashMap<String, String>) -> String {
    words(text).into_iter().map(|word| actual.get(word).map_or(word, String::as_str)).collect()
}

#[test]
fn an_answer_matches_in_shape() {
    let matches = |printed, answer| super::answer::matches(printed, answer, &mut HashMap::new());
    for (printed, answer) in [
        ("{\"cursor\":\"3-0\",\n \"unread\":2}", "{\"unread\":2,\"cursor\":\"5-7\"}"),
        ("{\"line\":1}\n{\"lag\":2}\n", "{\"line\":1} {\"lag\":0}"),
        ("{\"message\":\"…\"}", "{\"message\":\"No.\"}"),
        ("{\"cursor\":\"3-start\"}", "{\"cursor\":\"3-0-5f3a9c01\"}"),
        ("id: 3-0\ndata: {\"at\":\"3-0\"}\n…", "id: 4-9\n\ndata: {\"at\": \"4-9\"}\nid: 4-10"),
        ("HTTP/1.1 200 OK\n…\netag: \"a\"", "HTTP/1.1 200 OK\ndate: now\nETag: \"b\""),
    ] {
        assert!(matches(printed, answer), "{printed} {answer}");
    }
    for (printed, answer) in [
        ("{\"unread\":2}", "{\"unread\":3}"),
        ("{\"unread\":2}", "{\"unread\":2,\"more\":true}"),
        ("{\"cursor\":\"3-0\"}", "{\"cursor\":null}"),
        ("{\"message\":\"one\"}", "{\"message\":\"two\"}"),
        ("[1]", "[1,1]"),
        ("id: 3-0", "id: 3-0\ndata: {}"),
    ] {
        assert!(!matches(printed, answer), "{printed} {answer}");
    }
}

#[test]
fn a_later_command_takes_the_ids_of_the_answers() {
    let mut actual = HashMap::new();
    assert!(matches("{\"cursor\":\"3-0\"}", "{\"cursor\":\"4-9\"}", &mut actual));
    let command = "curl \"…?since=3-0&limit=1\"";
    assert_eq!(replace_words(command, &actual), "curl \"…?since=4-9&limit=1\"");
}
