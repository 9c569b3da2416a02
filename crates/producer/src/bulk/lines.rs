//! Bytes as they arrive, cut into lines. A line within one chunk is a slice of it; one that spans
//! chunks is put together, up to a bound.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// The longest line, in bytes without its end: more than a message, a link and data need together.
pub(crate) const MAX_LINE: usize = 64 << 10;

/// The line is longer than [`MAX_LINE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// One line that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// From 1, blank lines counted.
    pub(crate) number: u64,
    /// Without its end.
    pub(crate) text: Result<Bytes, TooLong>,
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// What came last and is not cut yet.
    chunk: Bytes,
    /// The beginning of a line that goes on in `chunk`.
    begun: BytesMut,
    /// Whether the line that goes on in `chunk` is too long already; `begun` is then empty.
    too_long: bool,
    /// How many lines have ended.
    ended: u64,
}

impl Lines {
    /// Takes more bytes. To be called when [`next`](Self::next) has no more lines.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "bytes that are not cut yet");
        self.chunk = chunk;
    }

    /// The next whole line.
    pub(crate) fn next(&mut self) -> Option<Line> {
        while let Some(end) = memchr(b'\n', &self.chunk) {
            let mut text = self.chunk.split_to(end + 1);
            text.truncate(end);
            let line = self.line(text);
            if line.is_some() {
                return line;
            }
        }
        let rest = std::mem::take(&mut self.chunk);
        if self.begun.len() + rest.len() > MAX_LINE {
            self.too_long = true;
            self.begun = BytesMut::new();
        }
        if !self.too_long {
            self.begun.extend_from_slice(&rest);
        }
        None
    }

    /// The last line, where the bytes did not end with the end of one.
    pub(crate) fn last(&mut self) -> Option<Line> {
        if self.begun.is_empty() && !self.too_long { None } else { self.line(Bytes::new()) }
    }

    /// The number of the line that the next byte belongs to.
    pub(crate) fn number(&self) -> u64 {
        self.ended + 1
    }

    /// How many bytes are kept, or kept free, for a line that goes on.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.begun.capacity()
    }

    /// The line that ends with these bytes, unless it is blank.
    fn line(&mut self, end: Bytes) -> Option<Line> {
        self.ended += 1;
        let too_long = std::mem::take(&mut self.too_long);
        let text = if self.begun.is_empty() {
            end
        } else {
            self.begun.extend_from_slice(&end);
            self.begun.split().freeze()
        };
        if too_long || text.len() > MAX_LINE {
            return Some(Line { number: self.ended, text: Err(TooLong) });
        }
        let blank = text.trim_ascii().is_empty();
        (!blank).then_some(Line { number: self.ended, text: Ok(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of these chunks.
    fn cut<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Vec<Line> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(Bytes::copy_from_slice(chunk));
            found.extend(std::iter::from_fn(|| lines.next()));
            assert!(lines.held() <= 4 * MAX_LINE, "memory is bounded");
        }
        found.extend(lines.last());
        found
    }

    fn line(number: u64, text: &'static str) -> Line {
        Line { number, text: Ok(Bytes::from_static(text.as_bytes())) }
    }

    #[test]
    fn lines_are_numbered_with_the_blank_ones_which_are_left_out() {
        assert_eq!(cut([&b"a\n\n \t\r\nb\r\nc"[..]]), [line(1, "a"), line(4, "b\r"), line(5, "c")]);
        assert_eq!(cut([&b""[..], b"\n", b""]), []);
        assert_eq!(cut([&b"a"[..], b"b", b"\n", b"c\n"]), [line(1, "ab"), line(2, "c")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_of_and_not_kept() {
        let longest = vec![b'x'; MAX_LINE];
        let found = cut([&longest[..], b"\n", &longest, b"x\n", &longest, &longest, b"\nd", b"e"]);
        let lengths: Vec<_> =
            found.iter().map(|line| line.text.as_ref().map(Bytes::len).ok()).collect();
        assert_eq!(lengths, [Some(MAX_LINE), None, None, Some(2)]);
        assert_eq!(found.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        // And at the very end, without an end of its own.
        assert_eq!(cut([&longest[..], &longest]), [Line { number: 1, text: Err(TooLong) }]);
        let mut twice = longest.clone();
        twice.extend_from_slice(b"x\ny");
        assert_eq!(cut([&twice[..]]), [Line { number: 1, text: Err(TooLong) }, line(2, "y")]);
    }
}
