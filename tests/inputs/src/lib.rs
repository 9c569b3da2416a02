//! Generated input for the property tests of the other crates: arbitrary text and bytes, valid JSON
//! with edge cases, and mutations of valid input. It depends on no parser under test.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

/// Delimiters and keywords of parsers, and edge cases of Unicode and of numbers.
const PIECES: [&str; 58] = [
    "",
    " ",
    "\t",
    "\r\n",
    "\n\n",
    "\0",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{feff}",
    "\u{202e}",
    "\u{200d}",
    "\u{fffd}",
    "\u{10ffff}",
    "e\u{301}",
    "ß",
    "İ",
    "𝟙",
    "１",
    "💩",
    "{",
    "}",
    "[",
    "]",
    "[null,null]",
    ":",
    ",",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\\udc00\\ud800",
    "null",
    "true",
    "0",
    "-0",
    "-1",
    "+1",
    "01",
    "1e999",
    "1E400",
    "0.1",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "99999999999999999999999999999999999999999",
    "-start",
    "%",
    "%00",
    "%ff",
    "&",
    "=",
    "W/",
    "*",
    "\\\"",
    "\u{0660}",
];

/// Arbitrary text: printable or not, random or built of pieces, short or long.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => any::<String>(),
        3 => "[ -~]{0,60}",
        2 => "\\PC{0,60}",
        3 => vec(any_piece(), 0..12).prop_map(|pieces| pieces.concat()),
        1 => repeated_piece(),
    ]
}

/// Arbitrary bytes, UTF-8 or not.
pub fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..200), text().prop_map(String::into_bytes)]
}

/// Valid JSON with edge cases: huge numbers, lone surrogates, duplicate names, thousands of nested
/// brackets, white space between tokens.
pub fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(&["null", "true", "false", "{}", "[]", "[null,null]"][..]).prop_map(String::from),
        select(&["0", "-0", "1e999", "-1E400", "1e-999", "0.10", "18446744073709551616"][..])
            .prop_map(String::from),
        any::<i64>().prop_map(|number| number.to_string()),
        "[1-9][0-9]{0,60}",
        json_string(),
        nested_json(),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        let space = || select(&["", "", " ", "\n", "\r\n\t"][..]);
        prop_oneof![
            (vec(inner.clone(), 0..5), space())
                .prop_map(|(values, space)| format!("[{space}{}{space}]", values.join(","))),
            (vec((json_string(), inner), 0..5), space()).prop_map(|(members, space)| {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value)| format!("{space}{name}{space}:{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// A JSON string. Each of its escapes is valid, but a pair may hold a lone surrogate.
pub fn json_string() -> impl Strategy<Value = String> {
    let plain = "[^\"\\\\\\x00-\\x1f]{0,12}";
    let escape =
        select(&["", "\\n", "\\u0000", "\\ud800", "\\udc00", "\\ud83d\\udca9", "\\\""][..]);
    (plain, escape, plain).prop_map(|(one, escape, other)| format!("\"{one}{escape}{other}\""))
}

/// Valid input with up to three mutations: truncated, bits flipped, a part removed, repeated or
/// inserted.
pub fn mutated(valid: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (valid, vec(any_mutation(), 0..4)).prop_map(|(mut bytes, mutations)| {
        for mutation in mutations {
            mutation.apply_to(&mut bytes);
        }
        bytes
    })
}

/// Valid text with up to three mutations; invalid UTF-8 becomes U+FFFD.
pub fn mutated_text(valid: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    mutated(valid.prop_map(String::into_bytes))
        .prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn any_piece() -> impl Strategy<Value = String> {
    select(&PIECES[..]).prop_map(String::from)
}

/// One piece, repeated so often that a parser with more than linear time becomes slow.
fn repeated_piece() -> impl Strategy<Value = String> {
    (any_piece(), 0..8000_usize).prop_map(|(piece, times)| piece.repeat(times))
}

/// Nested brackets, deep enough to overflow the stack of a recursive parser.
fn nested_json() -> impl Strategy<Value = String> {
    let levels = prop_oneof![20 => 0..200_usize, 1 => 0..20_000_usize];
    (levels, any::<bool>()).prop_map(|(levels, objects)| {
        let (open, close) = if objects { ("{\"a\":", "}") } else { ("[", "]") };
        format!("{}0{}", open.repeat(levels), close.repeat(levels))
    })
}

#[derive(Debug, Clone)]
enum Mutation {
    Cut(Index),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
}

fn any_mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    prop_oneof![
        at().prop_map(Mutation::Cut),
        (at(), 1..=255_u8).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (at(), (0..8_u8).prop_map(|bit| 1 << bit)).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (at(), prop_oneof![9 => any_piece(), 1 => nested_json()])
            .prop_map(|(at, piece)| Mutation::Insert(at, piece.into_bytes())),
        (at(), 1..20_usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (at(), 1..60_usize, 1..4_usize)
            .prop_map(|(at, length, times)| Mutation::Repeat(at, length, times)),
    ]
}

impl Mutation {
    fn apply_to(self, bytes: &mut Vec<u8>) {
        // A gap between two bytes, before the first or after the last.
        let place = |at: Index, bytes: &[u8]| at.index(bytes.len() + 1);
        match self {
            Self::Cut(at) => bytes.truncate(place(at, bytes)),
            Self::Flip(at, bits) => {
                let at = place(at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Self::Insert(at, piece) => {
                let at = place(at, bytes);
                bytes.splice(at..at, piece);
            }
            Self::Remove(at, length) => {
                let at = place(at, bytes);
                bytes.drain(at..bytes.len().min(at + length));
            }
            Self::Repeat(at, length, times) => {
                let at = place(at, bytes);
                let part = bytes[at..bytes.len().min(at + length)].repeat(times);
                bytes.splice(at..at, part);
            }
        }
    }
}
