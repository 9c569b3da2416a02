//! Checks what streams tell that resume by their cursor.

use std::{collections::HashSet, time::Duration};

use model::Cursor;

use super::{History, Outcome, Reading, Shown, TestMessage, Violation};

/// What one stream has told, over all its connections.
#[derive(Debug, Default)]
pub(super) struct OpenStream {
    user: i64,
    told: HashSet<TestMessage>,
    /// Told since the last gap, which may begin the inbox again.
    told_since_gap: HashSet<TestMessage>,
    last: Option<Cursor>,
}

impl History {
    /// Begins a stream with the whole inbox of this user.
    pub fn open_stream(&mut self, stream: u64, user: i64) {
        self.streams.insert(stream, OpenStream { user, ..OpenStream::default() });
    }

    /// Records that a stream was opened or resumed.
    pub fn record_stream_opened(&mut self) {
        self.totals.streams_opened += 1;
    }

    /// Checks a notification that a stream told.
    pub fn record_streamed(&mut self, stream: u64, instance: usize, at: Duration, shown: &Shown) {
        self.totals.streamed += 1;
        let Some(open) = self.streams.get(&stream) else { return };
        let user = open.user;
        let Some(value) = self.find_sent(user, shown) else {
            let example = format!("{shown:?} on stream {stream} was never sent to user {user}");
            return self.record_violation(Violation::Foreign, example);
        };
        // A stream is an answer too: no later answer may show less.
        let (at_least, shown_here) = (None, Vec::new());
        let reading = Reading { user, instance, began: at, ended: at, at_least, shown: shown_here };
        self.note_shown(&reading, value, shown.cursor);
        let Some(open) = self.streams.get_mut(&stream) else { return };
        open.told.insert(value);
        let is_new = open.told_since_gap.insert(value);
        let last = open.last.replace(shown.cursor);
        if !is_new || last.is_some_and(|last| last >= shown.cursor) {
            let last = last.map_or_else(String::new, |last| format!(" after {last}"));
            let example = format!(
                "stream {stream} of user {user}: {value} at {}{last}, told {}by consumer {instance} at {:.3} s",
                shown.cursor,
                if is_new { "" } else { "again " },
                at.as_secs_f64(),
            );
            self.record_violation(Violation::StreamTwice, example);
        }
    }

    /// Records a gap that a stream told.
    pub fn record_gap(&mut self, stream: u64, what: &str) {
        self.totals.gaps += 1;
        if !self.forgot {
            let example = format!("stream {stream} was told {what}");
            self.record_violation(Violation::StreamGap, example);
        }
        if let Some(open) = self.streams.get_mut(&stream) {
            open.last = None;
            open.told_since_gap.clear();
        }
    }

    /// What was acknowledged before this time and a stream has not told.
    #[must_use]
    pub fn missing_on_streams(&self, before: Duration) -> Vec<(u64, TestMessage)> {
        let missing = self.streams.iter().flat_map(|(number, stream)| {
            let sent = self.to.get(&stream.user).map(Vec::as_slice).unwrap_or_default();
            let due = sent.iter().filter(move |value| match self.sends[value].outcome {
                Outcome::Acknowledged { at, .. } => at < before,
                Outcome::Pending | Outcome::Unknown | Outcome::Forgotten => false,
            });
            due.filter(|value| !stream.told.contains(value)).map(|value| (*number, *value))
        });
        missing.collect()
    }

    /// Ends all streams. What was acknowledged before this time must have been told.
    pub fn close_streams(&mut self, before: Duration) {
        for (stream, value) in self.missing_on_streams(before) {
            let last = self.streams.get(&stream).and_then(|stream| stream.last);
            let last = last.map_or_else(|| "nothing".to_owned(), |last| last.to_string());
            let example = format!(
                "stream {stream} has not told {}; its last was {last}",
                self.describe_message(value)
            );
            self.record_violation(Violation::StreamLost, example);
        }
        self.streams.clear();
    }
}
