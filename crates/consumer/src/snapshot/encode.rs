//! Inboxes into a file, a block at a time.

use std::io::{self, Write};

use model::UserId;

use super::{
    bytes::{put_anchor, put_int, put_text},
    format::{
        BLOCK_BYTES, ENTRY_ITEM, FOOTER_BLOCK, Footer, HEADER_BLOCK, Header, INBOXES_BLOCK, MAGIC,
        MAX_BLOCK_BYTES, OFFSETS_ITEM, PENDING_ITEM, SnapshotKey, USER_ITEM, VERSION,
        block_checksum,
    },
    items::{put_entry, put_pending, put_user},
};
use crate::view::inbox::Inbox;

/// Encodes one snapshot.
pub struct Encoder<W> {
    out: W,
    block: Vec<u8>,
    /// Checksum of everything written.
    file_hash: crc32fast::Hasher,
    counts: SnapshotCounts,
}

/// Counts of a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SnapshotCounts {
    /// Inboxes.
    pub users: u64,
    /// Entries of all inboxes, dismissed ones too.
    pub entries: u64,
    /// Length of the file.
    pub bytes: u64,
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(out: W, key: &SnapshotKey, number: i32, header: &Header) -> io::Result<Self> {
        let (block, file_hash) = (Vec::new(), crc32fast::Hasher::new());
        let mut encoder = Self { out, block, file_hash, counts: SnapshotCounts::default() };
        encoder.write_bytes(MAGIC)?;
        encoder.write_bytes(&VERSION.to_le_bytes())?;
        put_key(&mut encoder.block, key, number);
        for (last, anchor) in header.last_offsets.iter().zip(header.anchors) {
            put_int(&mut encoder.block, *last);
            put_anchor(&mut encoder.block, anchor);
        }
        encoder.write_block(HEADER_BLOCK)?;
        Ok(encoder)
    }

    /// Notes that the inboxes that follow have the records up to these offsets.
    pub(super) fn set_offsets(&mut self, last_offsets: [i64; 2]) {
        self.block.push(OFFSETS_ITEM);
        last_offsets.into_iter().for_each(|last| put_int(&mut self.block, last));
    }

    pub(super) fn write_inbox(&mut self, user: UserId, inbox: &Inbox) -> io::Result<()> {
        self.block.push(USER_ITEM);
        put_user(&mut self.block, user, inbox);
        for entry in inbox.entries() {
            self.block.push(ENTRY_ITEM);
            put_entry(&mut self.block, entry);
            self.write_full_block()?;
        }
        for (id, action, offset) in inbox.pending_receipts() {
            self.block.push(PENDING_ITEM);
            put_pending(&mut self.block, id, action, offset);
            self.write_full_block()?;
        }
        self.counts.users += 1;
        self.counts.entries += inbox.entries().len() as u64;
        self.write_full_block()
    }

    pub(super) fn finish(mut self, footer: &Footer) -> io::Result<(W, SnapshotCounts)> {
        self.write_block(INBOXES_BLOCK)?;
        let file_checksum = self.file_hash.clone().finalize();
        let block = &mut self.block;
        put_int(block, self.counts.users.cast_signed());
        put_int(block, self.counts.entries.cast_signed());
        put_int(block, footer.complete_from);
        footer.anchors.into_iter().for_each(|anchor| put_anchor(block, anchor));
        put_int(block, footer.conflict_offsets.len() as i64);
        footer.conflict_offsets.iter().for_each(|offset| put_int(block, *offset));
        block.extend(file_checksum.to_le_bytes());
        self.write_block(FOOTER_BLOCK)?;
        self.out.flush()?;
        Ok((self.out, self.counts))
    }

    fn write_full_block(&mut self) -> io::Result<()> {
        if self.block.len() < BLOCK_BYTES { Ok(()) } else { self.write_block(INBOXES_BLOCK) }
    }

    fn write_block(&mut self, kind: u8) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        let length = u32::try_from(block.len()).ok().filter(|_| block.len() <= MAX_BLOCK_BYTES);
        let length = length.ok_or_else(|| io::Error::other("an entry is too large"))?;
        self.write_bytes(&length.to_le_bytes())?;
        self.write_bytes(&block_checksum(kind, &block).to_le_bytes())?;
        self.write_bytes(&[kind])?;
        self.write_bytes(&block)?;
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file_hash.update(bytes);
        self.counts.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Appends the key and the partition. The decoder compares these bytes as a whole.
pub(super) fn put_key(block: &mut Vec<u8>, key: &SnapshotKey, number: i32) {
    let SnapshotKey { notifications, receipts, group, partitions, partitioner, limits } = key;
    for text in [notifications, receipts, group, &partitioner.to_string()] {
        put_text(block, text);
    }
    put_int(block, i64::from(*partitions));
    put_int(block, i64::from(number));
    put_int(block, limits.entries as i64);
    put_int(block, i64::try_from(limits.age.as_millis()).unwrap_or(i64::MAX));
}
