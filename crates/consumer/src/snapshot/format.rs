//! The file's layout. All numbers are little-endian.
//!
//! A file is `MAGIC`, `VERSION` (4 bytes), and blocks: the length of the content (4 bytes), a
//! CRC-32 of kind, length and content (4), the kind (1), the content. The first block is the
//! `HEADER_BLOCK`, then come any number of `INBOXES_BLOCK`s, then the `FOOTER_BLOCK` with a
//! CRC-32 of the whole file up to it. The file ends there.
//!
//! An `INBOXES_BLOCK` holds items, each with a tag of one byte. `OFFSETS_ITEM` has the offsets up
//! to which the users after it have every record. `USER_ITEM` begins an inbox, whose
//! `ENTRY_ITEM`s and `PENDING_ITEM`s follow. An inbox may span several blocks, an item may not.

use std::io;

use event_log::RecordAnchor;
use model::Partitioner;

use crate::view::{Inboxes, Limits};

/// The first bytes of every file.
pub(super) const MAGIC: &[u8; 8] = b"ntf-snap";
/// Version of the layout. Files of another one are rejected.
pub(super) const VERSION: u32 = 2;

pub(super) const HEADER_BLOCK: u8 = 1;
pub(super) const INBOXES_BLOCK: u8 = 2;
pub(super) const FOOTER_BLOCK: u8 = 3;

pub(super) const OFFSETS_ITEM: u8 = 1;
pub(super) const USER_ITEM: u8 = 2;
pub(super) const ENTRY_ITEM: u8 = 3;
pub(super) const PENDING_ITEM: u8 = 4;

/// The encoder writes a block once it has this many bytes.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// The largest content of a block: [`BLOCK_BYTES`] and one item.
pub(super) const MAX_BLOCK_BYTES: usize = 64 << 20;

/// Everything that must be the same for a snapshot to be usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotKey {
    /// The notifications' topic.
    pub notifications: String,
    /// The receipts' topic.
    pub receipts: String,
    /// The group, whose committed offsets say which poison records are in the dead-letter queue.
    pub group: String,
    /// Number of partitions of each topic.
    pub partitions: u32,
    /// How a recipient's id becomes a partition.
    pub partitioner: Partitioner,
    /// The bounds of every inbox.
    pub limits: Limits,
}

/// The position in the log at which a snapshot begins: a reader continues after it. Arrays have the
/// notifications' value first, then the receipts'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The epochs of the two logs; `None` of a log without one.
    pub(super) topic_epochs: [Option<u32>; 2],
    /// Offset of the last record applied; −1 before any.
    pub(super) last_offsets: [i64; 2],
    /// Anchor of that record; `None` before any.
    pub(super) anchors: [Option<RecordAnchor>; 2],
}

impl Header {
    pub(super) fn new(inboxes: &Inboxes) -> Self {
        let Inboxes { topic_epochs, last_offsets, anchors, .. } = *inboxes;
        Self { topic_epochs, last_offsets, anchors }
    }

    /// The offset of the notifications from which on a reader continues.
    pub(super) fn next_offset(&self) -> i64 {
        self.anchors[0].map_or(0, |anchor| anchor.offset + 1)
    }
}

/// The values that are known only at the end of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    /// The last record that the inboxes may contain. If records were applied meanwhile, it is
    /// beyond the header's, and the log must still have it too.
    pub(super) anchors: [Option<RecordAnchor>; 2],
    /// Offset from which on the notifications are complete.
    pub(super) complete_from: i64,
    /// Offsets of the notifications after the header's that reused an Idempotency-Key.
    pub(super) conflict_offsets: Vec<i64>,
}

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotRejected {
    /// It has another version of the layout.
    #[error("its format version is {0}, this program reads {VERSION}")]
    Format(u32),
    /// It was made for other topics, partitions, limits or another group.
    #[error("it was made with other settings: topic, partitions, partitioner, group or limits")]
    Settings,
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
}

impl SnapshotRejected {
    /// The value of the metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Format(_) => "format",
            Self::Settings => "settings",
            Self::Damaged(_) => "damaged",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl From<io::Error> for SnapshotRejected {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends too early"),
            _ => Self::Unreadable(error),
        }
    }
}

pub(super) type Decoded<T> = Result<T, SnapshotRejected>;

pub(super) fn damaged<T>(why: &'static str) -> Decoded<T> {
    Err(SnapshotRejected::Damaged(why))
}

/// The CRC-32 of a block.
pub(super) fn block_checksum(kind: u8, content: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&[kind]);
    hash.update(&(content.len() as u64).to_le_bytes());
    hash.update(content);
    hash.finalize()
}
