//! Inboxes out of the view into a snapshot. A revoked partition is written at once. A live one is
//! copied in short steps, between which records are applied and readers are answered; the snapshot
//! has beside each inbox up to which offsets it has every record, so that none is applied twice.

use std::{
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use model::UserId;

use super::{
    format::{
        BLOCK_BYTES, ENTRY_ITEM, FOOTER_BLOCK, Footer, HEADER_BLOCK, Header, INBOXES_BLOCK, MAGIC,
        MAX_BLOCK_BYTES, OFFSETS_ITEM, PENDING_ITEM, SnapshotKey, USER_ITEM, VERSION,
        block_checksum,
    },
    items::{put_anchor, put_entry, put_int, put_key, put_pending, put_user},
};
use crate::view::{Inboxes, View, inbox::Inbox, inboxes::MAX_CONFLICTS};

/// The longest that a step holds the partition's lock: a writer that waits for it makes readers wait
/// too.
const MAX_STEP: Duration = Duration::from_millis(1);
/// Users that a step copies between two looks at the clock.
const USERS_PER_CLOCK_CHECK: usize = 32;
/// Users that [`write_all`] writes between two checks for cancellation.
const USERS_PER_CANCEL_CHECK: usize = 256;

/// Why a snapshot was not finished.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The partition is not the one that the snapshot began with.
    #[error("the partition was revoked meanwhile")]
    Revoked,
    /// More conflicts came meanwhile than are remembered.
    #[error("too many Idempotency-Keys were reused meanwhile")]
    Conflicts,
    /// The process ends.
    #[error("cancelled")]
    Cancelled,
    /// The file cannot be written.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// Counts of a snapshot.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnapshotCounts {
    /// Inboxes.
    pub users: u64,
    /// Entries of all inboxes, dismissed ones too.
    pub entries: u64,
    /// Length of the file.
    pub bytes: u64,
}

/// Writes a live partition, step by step.
pub struct SnapshotWriter<W> {
    view: Arc<View>,
    number: i32,
    /// Epoch of the inboxes that the snapshot began with.
    epoch: u64,
    pub(super) header: Header,
    /// Users that are not written yet.
    users: Vec<UserId>,
    encoder: Encoder<W>,
}

impl<W: Write> SnapshotWriter<W> {
    /// Begins a snapshot of partition `number`; `None` if that is not live.
    pub fn begin(
        view: &Arc<View>,
        key: &SnapshotKey,
        number: i32,
        out: W,
    ) -> io::Result<Option<Self>> {
        // A user that appears later has only records after the header's.
        let started = view.partition(number).and_then(|partition| {
            partition.read_if_complete(|inboxes| {
                let users: Vec<_> = inboxes.users.keys().copied().collect();
                (inboxes.epoch, Header::new(inboxes), users)
            })
        });
        let Some((epoch, header, users)) = started else { return Ok(None) };
        let encoder = Encoder::new(out, key, number, &header)?;
        Ok(Some(Self { view: Arc::clone(view), number, epoch, header, users, encoder }))
    }

    /// Copies at most `max_users` inboxes within `MAX_STEP`, then writes them. Returns false after
    /// the last one.
    pub fn write_step(&mut self, max_users: usize) -> Result<bool, WriteError> {
        let (mut copies, users) = (Vec::new(), &mut self.users);
        let last_offsets = read_epoch(&self.view, self.number, self.epoch, |inboxes| {
            let until = Instant::now() + MAX_STEP;
            for count in 0..max_users {
                if count % USERS_PER_CLOCK_CHECK == USERS_PER_CLOCK_CHECK - 1
                    && Instant::now() >= until
                {
                    break;
                }
                let Some(user) = users.pop() else { break };
                // An inbox that was dropped meanwhile held only expired entries.
                copies.extend(inboxes.users.get(&user).map(|inbox| (user, inbox.clone())));
            }
            inboxes.last_offsets
        })?;
        self.encoder.set_offsets(last_offsets);
        for (user, inbox) in &copies {
            self.encoder.write_inbox(*user, inbox)?;
        }
        Ok(!self.users.is_empty())
    }

    /// Writes the footer.
    pub fn finish(self) -> Result<(W, SnapshotCounts), WriteError> {
        let footer = read_epoch(&self.view, self.number, self.epoch, |inboxes| {
            footer(inboxes, &self.header)
        })?;
        Ok(self.encoder.finish(&footer.ok_or(WriteError::Conflicts)?)?)
    }
}

/// Reads the inboxes of this epoch.
fn read_epoch<R>(
    view: &View,
    number: i32,
    epoch: u64,
    read: impl FnOnce(&Inboxes) -> R,
) -> Result<R, WriteError> {
    let found = view.partition(number).and_then(|partition| {
        partition.read_if_complete(|inboxes| (inboxes.epoch == epoch).then(|| read(inboxes)))
    });
    found.flatten().ok_or(WriteError::Revoked)
}

/// Writes a revoked partition at once, unless it `is_cancelled`.
pub(super) fn write_all<W: Write>(
    inboxes: &Inboxes,
    key: &SnapshotKey,
    number: i32,
    out: W,
    is_cancelled: impl Fn() -> bool,
) -> Result<(W, SnapshotCounts), WriteError> {
    let header = Header::new(inboxes);
    let mut encoder = Encoder::new(out, key, number, &header)?;
    for (count, (user, inbox)) in inboxes.users.iter().enumerate() {
        if count % USERS_PER_CANCEL_CHECK == 0 && is_cancelled() {
            return Err(WriteError::Cancelled);
        }
        encoder.write_inbox(*user, inbox)?;
    }
    let footer = footer(inboxes, &header).ok_or(WriteError::Conflicts)?;
    Ok(encoder.finish(&footer)?)
}

/// `None` if conflicts since the header were dropped from the inboxes' list.
fn footer(inboxes: &Inboxes, header: &Header) -> Option<Footer> {
    let first = header.next_offset();
    let conflicts = &inboxes.conflict_offsets;
    let dropped = conflicts.len() == MAX_CONFLICTS && conflicts.front() > Some(&first);
    let conflict_offsets = conflicts.iter().copied().filter(|offset| *offset >= first).collect();
    let (anchors, complete_from) = (inboxes.anchors, inboxes.complete_from);
    (!dropped).then_some(Footer { anchors, complete_from, conflict_offsets })
}

/// Encodes one snapshot, a block at a time.
struct Encoder<W> {
    out: W,
    block: Vec<u8>,
    /// Checksum of everything written.
    file_hash: crc32fast::Hasher,
    counts: SnapshotCounts,
}

impl<W: Write> Encoder<W> {
    fn new(out: W, key: &SnapshotKey, number: i32, header: &Header) -> io::Result<Self> {
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
    fn set_offsets(&mut self, last_offsets: [i64; 2]) {
        self.block.push(OFFSETS_ITEM);
        last_offsets.into_iter().for_each(|last| put_int(&mut self.block, last));
    }

    fn write_inbox(&mut self, user: UserId, inbox: &Inbox) -> io::Result<()> {
        self.block.push(USER_ITEM);
        put_user(&mut self.block, user, inbox);
        for entry in &inbox.entries {
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
        self.counts.entries += inbox.entries.len() as u64;
        self.write_full_block()
    }

    fn finish(mut self, footer: &Footer) -> io::Result<(W, SnapshotCounts)> {
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
