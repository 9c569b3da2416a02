//! Property tests of the line splitter: the lines do not depend on the chunks, and the buffer is bounded.

use bytes::Bytes;
use inputs::bytes;
use proptest::{collection::vec, prelude::*, sample::Index};

use super::lines::{BulkLine, LineSplitter, LineTooLong, MAX_LINE_BYTES};

/// Arbitrary bytes with line feeds, and lines of about the maximum length.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let run = prop_oneof![
        6 => bytes(),
        6 => Just(vec![b'\n']),
        2 => (MAX_LINE_BYTES - 2..MAX_LINE_BYTES + 3).prop_map(|length| vec![b'x'; length]),
        1 => (MAX_LINE_BYTES - 2..MAX_LINE_BYTES + 3).prop_map(|length| vec![b' '; length]),
        1 => (0..MAX_LINE_BYTES).prop_map(|length| vec![0xff; length]),
    ];
    vec(run, 0..10).prop_map(|runs| runs.concat())
}

/// The expected lines, computed from the whole body.
fn expected(body: &[u8]) -> Vec<BulkLine> {
    let lines = (1..).zip(body.split(|byte| *byte == b'\n'));
    let long = |text: &[u8]| text.len() > MAX_LINE_BYTES;
    lines
        .filter(|(_, text)| long(text) || !text.trim_ascii().is_empty())
        .map(|(number, text)| BulkLine {
            number,
            text: if long(text) { Err(LineTooLong) } else { Ok(Bytes::copy_from_slice(text)) },
        })
        .collect()
}

proptest! {
    #[test]
    fn lines_are_the_same_however_their_bytes_come(
        body in body(), cuts in vec(any::<Index>(), 0..40),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let (mut lines, mut found, mut held) = (LineSplitter::default(), Vec::new(), 0);
        for cut in cuts.windows(2) {
            lines.push_chunk(Bytes::copy_from_slice(&body[cut[0]..cut[1]]));
            found.extend(std::iter::from_fn(|| lines.next_line()));
            held = held.max(lines.buffer_bytes());
        }
        let ends = body.iter().filter(|byte| **byte == b'\n').count() as u64;
        prop_assert_eq!(lines.line_number(), ends + 1);
        found.extend(lines.last_line());
        prop_assert_eq!(found, expected(&body));
        prop_assert!(held <= 4 * MAX_LINE_BYTES, "{} bytes", held);
    }
}
