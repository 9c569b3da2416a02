//! What encoder and decoder agree on. All numbers are little-endian.
//!
//! A file is [`MAGIC`], [`VERSION`] (4 bytes), and blocks: the length of the content (4 bytes), a
//! CRC-32 of kind, length and content (4), the kind (1), the content. The first block is the
//! [`HEADER`], then come any number of [`INBOXES`], then the [`END`] with a CRC-32 of the whole
//! file up to that, and nothing after it.
//!
//! `INBOXES` are items, each with a tag of one byte. [`SINCE`] says up to which offsets the users
//! after it are folded, [`USER`] begins an inbox, [`ENTRY`] and [`PENDING`] belong to it. No item
//! is in two blocks; an inbox may be.

/// How every file begins.
pub(super) const MAGIC: &[u8; 8] = b"ntf-snap";
/// Of the format. Another one is not read.
pub(super) const VERSION: u32 = 1;

pub(super) const HEADER: u8 = 1;
pub(super) const INBOXES: u8 = 2;
pub(super) const END: u8 = 3;

pub(super) const SINCE: u8 = 1;
pub(super) const USER: u8 = 2;
pub(super) const ENTRY: u8 = 3;
pub(super) const PENDING: u8 = 4;

/// A block is written when it has so many bytes.
pub(super) const BLOCK: usize = 256 << 10;
/// The largest content of a block, which is one item's more than [`BLOCK`] at most.
pub(super) const MOST_BLOCK: usize = 64 << 20;

/// Bits of an entry.
pub(super) const READ: u8 = 1;
pub(super) const DISMISSED: u8 = 2;
pub(super) const FINGERPRINT: u8 = 4;
pub(super) const CATEGORY: u8 = 8;

/// The CRC-32 of a block.
pub(super) fn checksum(kind: u8, content: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(&[kind]);
    hash.update(&(content.len() as u64).to_le_bytes());
    hash.update(content);
    hash.finalize()
}
