//! Records that were removed from the log on purpose: no answer must have them any more.

use std::collections::HashMap;

use model::Cursor;

use super::{History, Outcome};

impl History {
    /// The log was made again: everything that was sent until now may be gone. Call it before the
    /// topic is deleted, and again when the new one exists.
    pub fn forget_all(&mut self) {
        self.forgot = true;
        for sent in self.sends.values_mut() {
            sent.outcome = Outcome::Forgotten;
        }
        self.unanswered.clear();
    }

    /// Retention has removed all records below these offsets, by partition.
    pub fn forget_below(&mut self, low_offsets: &HashMap<i32, i64>) {
        self.forgot = true;
        for sent in self.sends.values_mut() {
            let cursor = match sent.outcome {
                Outcome::Acknowledged { cursor, .. } => Some(cursor),
                _ => sent.first_shown.map(|first| first.cursor),
            };
            let is_below = |cursor: Cursor| {
                low_offsets.get(&cursor.partition).is_some_and(|low| cursor.offset < *low)
            };
            if cursor.is_some_and(is_below) {
                sent.outcome = Outcome::Forgotten;
            }
        }
    }
}
