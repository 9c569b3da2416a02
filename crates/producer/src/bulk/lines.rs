//! Splits a body into lines. A line within one chunk is a slice of it; a line that spans chunks is
//! buffered, up to a limit.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// Maximum length of a line without its line feed. A message, a link and data of maximum length fit.
pub(crate) const MAX_LINE_BYTES: usize = 64 << 10;

/// The line is longer than [`MAX_LINE_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineTooLong;

/// A line that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BulkLine {
    /// The line's number, from 1; blank lines count.
    pub(crate) number: u64,
    pub(crate) text: Result<Bytes, LineTooLong>,
}

#[derive(Debug, Default)]
pub(crate) struct LineSplitter {
    /// The rest of the current chunk.
    chunk: Bytes,
    /// The beginning of a line that continues in `chunk`.
    partial: BytesMut,
    /// True if that line is too long already; `partial` is then empty.
    too_long: bool,
    finished_lines: u64,
}

impl LineSplitter {
    /// Adds a chunk. Call it only after [`next_line`](Self::next_line) returned `None`.
    pub(crate) fn push_chunk(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "the current chunk is not split yet");
        self.chunk = chunk;
    }

    /// Returns the next complete line of the current chunk.
    pub(crate) fn next_line(&mut self) -> Option<BulkLine> {
        while let Some(end) = memchr(b'\n', &self.chunk) {
            let mut text = self.chunk.split_to(end + 1);
            text.truncate(end);
            let line = self.end_line(text);
            if line.is_some() {
                return line;
            }
        }
        let rest = std::mem::take(&mut self.chunk);
        if self.partial.len() + rest.len() > MAX_LINE_BYTES {
            self.too_long = true;
            self.partial = BytesMut::new();
        }
        if !self.too_long {
            self.partial.extend_from_slice(&rest);
        }
        None
    }

    /// Returns the last line if the body does not end with a line feed.
    pub(crate) fn last_line(&mut self) -> Option<BulkLine> {
        if self.partial.is_empty() && !self.too_long { None } else { self.end_line(Bytes::new()) }
    }

    /// The number of the line that continues with the next byte.
    pub(crate) fn line_number(&self) -> u64 {
        self.finished_lines + 1
    }

    /// The size of the buffer for a line that spans chunks.
    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.partial.capacity()
    }

    /// Returns the line that ends with these bytes, unless it is blank.
    fn end_line(&mut self, end: Bytes) -> Option<BulkLine> {
        self.finished_lines += 1;
        let too_long = std::mem::take(&mut self.too_long);
        let text = if self.partial.is_empty() {
            end
        } else {
            self.partial.extend_from_slice(&end);
            self.partial.split().freeze()
        };
        if too_long || text.len() > MAX_LINE_BYTES {
            return Some(BulkLine { number: self.finished_lines, text: Err(LineTooLong) });
        }
        let blank = text.trim_ascii().is_empty();
        (!blank).then_some(BulkLine { number: self.finished_lines, text: Ok(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of these chunks.
    fn cut<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<BulkLine> {
        let (mut lines, mut found) = (LineSplitter::default(), Vec::new());
        for chunk in chunks {
            lines.push_chunk(Bytes::copy_from_slice(chunk));
            found.extend(std::iter::from_fn(|| lines.next_line()));
            assert!(lines.buffer_bytes() <= 4 * MAX_LINE_BYTES, "memory is bounded");
        }
        found.extend(lines.last_line());
        found
    }

    fn line(number: u64, text: &'static str) -> BulkLine {
        BulkLine { number, text: Ok(Bytes::from_static(text.as_bytes())) }
    }

    #[test]
    fn lines_are_numbered_with_the_blank_ones_which_are_left_out() {
        assert_eq!(cut([&b"a\n\n \t\r\nb\r\nc"[..]]), [line(1, "a"), line(4, "b\r"), line(5, "c")]);
        assert_eq!(cut([&b""[..], b"\n", b""]), []);
        assert_eq!(cut([&b"a"[..], b"b", b"\n", b"c\n"]), [line(1, "ab"), line(2, "c")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_of_and_not_kept() {
        let longest = vec![b'x'; MAX_LINE_BYTES];
        let found = cut([&longest[..], b"\n", &longest, b"x\n", &longest, &longest, b"\nd", b"e"]);
        let lengths: Vec<_> =
            found.iter().map(|line| line.text.as_ref().map(Bytes::len).ok()).collect();
        assert_eq!(lengths, [Some(MAX_LINE_BYTES), None, None, Some(2)]);
        assert_eq!(found.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        // At the end of the body, without a line feed.
        assert_eq!(cut([&longest[..], &longest]), [BulkLine { number: 1, text: Err(LineTooLong) }]);
        let mut twice = longest.clone();
        twice.extend_from_slice(b"x\ny");
        assert_eq!(
            cut([&twice[..]]),
            [BulkLine { number: 1, text: Err(LineTooLong) }, line(2, "y")]
        );
    }
}
