//! Inboxes into bytes, a block at a time.

use std::io::{self, Write};

use event_log::RecordAnchor;
use model::{Action, NotificationId, UserId};

use super::{
    Begin, End, SnapshotKey,
    format::{
        BLOCK, CATEGORY, DISMISSED, END, ENTRY, FINGERPRINT, HEADER, INBOXES, MAGIC, MOST_BLOCK,
        PENDING, READ, SINCE, USER, VERSION, checksum,
    },
};
use crate::view::{
    entry::Entry,
    inbox::{Eviction, Inbox},
};

/// Writes one snapshot.
pub struct Encoder<W> {
    out: W,
    block: Vec<u8>,
    /// Of everything written.
    total: crc32fast::Hasher,
    written: Written,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Inboxes.
    pub users: u64,
    /// Their entries.
    pub entries: u64,
    /// The file's length.
    pub bytes: u64,
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(out: W, about: &SnapshotKey, number: i32, begin: &Begin) -> io::Result<Self> {
        let (block, total) = (Vec::new(), crc32fast::Hasher::new());
        let mut new = Self { out, block, total, written: Written::default() };
        new.put(MAGIC)?;
        new.put(&VERSION.to_le_bytes())?;
        header(&mut new.block, about, number);
        for (last, mark) in begin.last.iter().zip(begin.marks) {
            int(&mut new.block, *last);
            optional_mark(&mut new.block, mark);
        }
        new.flush(HEADER)?;
        Ok(new)
    }

    /// The users that follow are folded up to these offsets.
    pub(super) fn since(&mut self, last: [i64; 2]) {
        self.block.push(SINCE);
        last.into_iter().for_each(|last| int(&mut self.block, last));
    }

    pub(super) fn inbox(&mut self, user: UserId, inbox: &Inbox) -> io::Result<()> {
        let block = &mut self.block;
        block.push(USER);
        int(block, user.get());
        int(block, inbox.touched());
        match inbox.last_evicted() {
            None => block.push(0),
            Some(evicted) => {
                block.push(match evicted.reason {
                    Eviction::Evicted => 1,
                    Eviction::Expired => 2,
                });
                int(block, evicted.through);
                int(block, evicted.sent_at_ms);
            }
        }
        for held in inbox.entries() {
            self.block.push(ENTRY);
            entry(&mut self.block, held);
            self.flush_if_full()?;
        }
        for (notification, action, offset) in inbox.pending() {
            let block = &mut self.block;
            block.push(PENDING);
            id(block, notification);
            block.push(match action {
                Action::Read => 0,
                Action::Unread => 1,
                Action::Dismissed => 2,
            });
            int(block, offset);
            self.flush_if_full()?;
        }
        self.written.users += 1;
        self.written.entries += inbox.entries().len() as u64;
        self.flush_if_full()
    }

    pub(super) fn end(mut self, end: &End) -> io::Result<(W, Written)> {
        self.flush(INBOXES)?;
        let total = self.total.clone().finalize();
        let block = &mut self.block;
        int(block, self.written.users.cast_signed());
        int(block, self.written.entries.cast_signed());
        int(block, end.low);
        end.marks.into_iter().for_each(|mark| optional_mark(block, mark));
        int(block, end.conflicts.len() as i64);
        end.conflicts.iter().for_each(|offset| int(block, *offset));
        block.extend(total.to_le_bytes());
        self.flush(END)?;
        self.out.flush()?;
        Ok((self.out, self.written))
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.block.len() < BLOCK { Ok(()) } else { self.flush(INBOXES) }
    }

    fn flush(&mut self, kind: u8) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let length = u32::try_from(block.len()).ok().filter(|_| block.len() <= MOST_BLOCK);
        let length = length.ok_or_else(|| io::Error::other("an entry is too large"))?;
        self.put(&length.to_le_bytes())?;
        self.put(&checksum(kind, &block).to_le_bytes())?;
        self.put(&[kind])?;
        self.put(&block)?;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.total.update(bytes);
        self.written.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// What a snapshot is of; the decoder compares it as a whole.
pub(super) fn header(block: &mut Vec<u8>, about: &SnapshotKey, number: i32) {
    let SnapshotKey { notifications, receipts, group, partitions, partitioner, limits } = about;
    for text in [notifications, receipts, group, &partitioner.to_string()] {
        bytes(block, text.as_bytes());
    }
    int(block, i64::from(*partitions));
    int(block, i64::from(number));
    int(block, limits.entries as i64);
    int(block, i64::try_from(limits.age.as_millis()).unwrap_or(i64::MAX));
}

fn entry(block: &mut Vec<u8>, entry: &Entry) {
    let Entry { offset, sent_at_ms, id: identity, fingerprint, category, read, json } = entry;
    let bit = |there: bool, bit: u8| if there { bit } else { 0 };
    block.push(
        bit(*read, READ)
            | bit(json.is_none(), DISMISSED)
            | bit(fingerprint.is_some(), FINGERPRINT)
            | bit(category.is_some(), CATEGORY),
    );
    int(block, *offset);
    int(block, *sent_at_ms);
    id(block, identity);
    if let Some(fingerprint) = fingerprint {
        block.extend(fingerprint.to_bits().to_le_bytes());
    }
    for text in [category, json].into_iter().flatten() {
        bytes(block, text.as_bytes());
    }
}

fn id(block: &mut Vec<u8>, id: &NotificationId) {
    match id {
        NotificationId::Uuid(uuid) => {
            block.push(0);
            block.extend(uuid.as_bytes());
        }
        NotificationId::Position(cursor) => {
            block.push(1);
            int(block, i64::from(cursor.partition));
            int(block, cursor.offset);
        }
        NotificationId::Other(text) => {
            block.push(2);
            bytes(block, text.as_bytes());
        }
    }
}

fn optional_mark(block: &mut Vec<u8>, mark: Option<RecordAnchor>) {
    block.push(u8::from(mark.is_some()));
    if let Some(RecordAnchor { offset, checksum }) = mark {
        int(block, offset);
        block.extend(checksum.to_le_bytes());
    }
}

fn int(block: &mut Vec<u8>, value: i64) {
    block.extend(value.to_le_bytes());
}

/// The length beyond 4 bytes cannot be: no record is so large. A block that large is refused.
fn bytes(block: &mut Vec<u8>, bytes: &[u8]) {
    block.extend((bytes.len() as u32).to_le_bytes());
    block.extend(bytes);
}
