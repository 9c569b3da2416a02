//! One user's entries, oldest first, bounded in number.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use model::NotificationId;

use super::entry::Entry;

/// How much an inbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The newest so many entries, at least 1.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1000 }
    }
}

/// What happened to an entry on its way into an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is the newest now.
    New,
    /// The inbox holds one of the same id already; nothing changed.
    Duplicate,
}

/// An inbox.
#[derive(Debug, Default)]
pub struct Inbox {
    entries: VecDeque<Entry>,
    /// A short hash of each entry's id, in the same order: looking for a duplicate reads 4 bytes
    /// an entry, side by side, instead of the entries themselves.
    hashes: VecDeque<u32>,
}

impl Inbox {
    /// Adds an entry, whose offset is above all others, and forgets the oldest beyond the limit.
    pub fn add(&mut self, entry: Entry, limits: Limits) -> Added {
        let hash = short_hash(&entry.id);
        if self.holds(&entry.id, hash) {
            return Added::Duplicate;
        }
        while self.entries.len() >= limits.entries.max(1) {
            self.entries.pop_front();
            self.hashes.pop_front();
        }
        self.entries.push_back(entry);
        self.hashes.push_back(hash);
        Added::New
    }

    fn holds(&self, id: &NotificationId, hash: u32) -> bool {
        let (front, back) = self.hashes.as_slices();
        (front.contains(&hash) || back.contains(&hash))
            && self.entries.iter().any(|entry| entry.id == *id)
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// How many entries are not read.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.entries.len()
    }
}

fn short_hash(id: &NotificationId) -> u32 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
    // The upper half is as good as the lower.
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: i64, id: &str) -> Entry {
        let id = NotificationId::from_text(id).expect("short");
        Entry { offset, sent_at_ms: 0, id, json: "{".into() }
    }

    #[test]
    fn an_inbox_holds_the_newest_and_nothing_twice() {
        let limits = Limits { entries: 3 };
        let mut inbox = Inbox::default();
        for (offset, id) in [(1, "a"), (2, "b"), (5, "c"), (6, "d")] {
            assert_eq!(inbox.add(entry(offset, id), limits), Added::New);
        }
        assert_eq!(inbox.add(entry(7, "c"), limits), Added::Duplicate);
        let offsets: Vec<_> = inbox.entries().map(|entry| entry.offset).collect();
        assert_eq!(offsets, [2, 5, 6]);
        // What was forgotten may come again: the bound of the promise is the inbox itself.
        assert_eq!(inbox.add(entry(8, "a"), limits), Added::New);
    }
}
