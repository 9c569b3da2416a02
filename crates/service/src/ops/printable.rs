//! Foreign text for a terminal or a log.

/// At most `max_chars` characters of a text, on one line, with everything escaped that would not be
/// shown as it is: control characters and terminal sequences, line breaks of every kind, and marks
/// that change the direction of what follows (<https://trojansource.codes>). A longer text ends in `…`.
#[must_use]
pub fn printable(text: &str, max_chars: usize) -> String {
    let end = text.char_indices().nth(max_chars).map_or(text.len(), |(at, _)| at);
    let mut shown = String::with_capacity(end + 8);
    for c in text[..end].chars() {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            _ if c.is_ascii() => shown.extend(c.escape_debug()),
            // Accents and vowel signs are escaped at the beginning only.
            _ => shown.extend(String::from_iter(['x', c]).escape_debug().skip(1)),
        }
    }
    if end < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_one_short_line_without_a_trick() {
        for (text, shown) in [
            ("{\"a\":'b\\c'}", "{\"a\":'b\\c'}"),
            ("Grüße, мир, 世界, नमस्ते, e\u{301} 🎉", "Grüße, мир, 世界, नमस्ते, e\u{301} 🎉"),
            ("a\nb\r\tc\0", "a\\nb\\r\\tc\\0"),
            ("\u{1b}[2J\u{9b}31m\u{7f}", "\\u{1b}[2J\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2066}c\u{200b}\u{feff}", "a\\u{202e}b\\u{2066}c\\u{200b}\\u{feff}"),
            ("a\u{2028}b\u{85}", "a\\u{2028}b\\u{85}"),
        ] {
            assert_eq!(printable(text, 100), shown);
        }
        assert_eq!(printable("ééé", 3), "ééé");
        assert_eq!(printable("éééé", 3), "ééé…");
        assert_eq!(printable("", 0), "");
    }
}
