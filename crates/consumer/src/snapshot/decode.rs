//! A file back into inboxes. Any bytes are either rejected or yield what was written, in memory that
//! is bounded by their number.

use std::{
    collections::{HashMap, VecDeque},
    io::Read,
};

use event_log::RecordAnchor;
use model::{Action, NotificationId, UserId};

use super::{
    format::{
        Decoded, ENTRY_ITEM, FOOTER_BLOCK, HEADER_BLOCK, Header, INBOXES_BLOCK, MAGIC,
        MAX_BLOCK_BYTES, OFFSETS_ITEM, PENDING_ITEM, SnapshotKey, SnapshotRejected, USER_ITEM,
        VERSION, block_checksum, damaged,
    },
    items::{BlockReader, UserItem, put_key, take_entry, take_pending, take_user},
};
use crate::view::{
    Inboxes, entry::Entry, inbox::Inbox, inboxes::MAX_CONFLICTS, rebuild::ReplayFilter,
};

/// A partition from a snapshot.
#[derive(Debug)]
pub struct RestoredPartition {
    pub(crate) inboxes: Inboxes,
    /// Notifications in it, dismissed ones too.
    pub entries: u64,
    /// True if some are for users whose home is another partition.
    pub(crate) has_misplaced: bool,
}

/// Reads the snapshot of partition `number`.
pub fn read_snapshot(
    input: impl Read,
    key: &SnapshotKey,
    number: i32,
) -> Decoded<RestoredPartition> {
    let mut file = SnapshotFile { input, file_hash: crc32fast::Hasher::new() };
    let mut start = [0; 12];
    file.read_bytes(&mut start)?;
    let (magic, version) = start.split_at(MAGIC.len());
    if magic != MAGIC {
        return damaged("it does not begin like a snapshot");
    }
    let version = u32::from_le_bytes(version.try_into().unwrap_or_default());
    if version != VERSION {
        return Err(SnapshotRejected::Format(version));
    }
    let (HEADER_BLOCK, content) = file.read_block()? else {
        return damaged("it has no header");
    };
    let mut expected = Vec::new();
    put_key(&mut expected, key, number);
    let Some(header) = content.strip_prefix(&*expected) else {
        return Err(SnapshotRejected::Settings);
    };
    let header = take_header(BlockReader(header))?;
    let mut assembler = Assembler::new(key, number, header);
    loop {
        let file_checksum = file.file_hash.clone().finalize();
        match file.read_block()? {
            (INBOXES_BLOCK, content) => assembler.add_items(BlockReader(&content))?,
            (FOOTER_BLOCK, content) => {
                if file.input.read(&mut [0])? != 0 {
                    return damaged("it goes on after its end");
                }
                return assembler.finish(BlockReader(&content), file_checksum);
            }
            _ => return damaged("it has a block of an unknown kind"),
        }
    }
}

fn take_header(mut block: BlockReader<'_>) -> Decoded<Header> {
    let topic_epochs = [block.take_epoch()?, block.take_epoch()?];
    let mut header = Header { topic_epochs, last_offsets: [-1; 2], anchors: [None; 2] };
    for (last, anchor) in header.last_offsets.iter_mut().zip(&mut header.anchors) {
        (*last, *anchor) = (block.take_int_from(-1)?, block.take_anchor()?);
        if anchor.is_some_and(|anchor: RecordAnchor| anchor.offset > *last) {
            return damaged("its header contradicts itself");
        }
    }
    block.expect_end()?;
    Ok(header)
}

struct SnapshotFile<R> {
    input: R,
    /// Checksum of everything read so far.
    file_hash: crc32fast::Hasher,
}

impl<R: Read> SnapshotFile<R> {
    fn read_bytes(&mut self, bytes: &mut [u8]) -> Decoded<()> {
        self.input.read_exact(bytes)?;
        self.file_hash.update(bytes);
        Ok(())
    }

    fn read_block(&mut self) -> Decoded<(u8, Vec<u8>)> {
        let mut frame = [0; 9];
        self.read_bytes(&mut frame)?;
        let [a, b, c, d, e, f, g, h, kind] = frame;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_BLOCK_BYTES {
            return damaged("a block is too long");
        }
        // Grows with the bytes that are there, so that a false length allocates little.
        let mut content = Vec::new();
        let limited = self.input.by_ref().take(length as u64);
        { limited }.read_to_end(&mut content)?;
        if content.len() != length {
            return damaged("it ends too early");
        }
        if block_checksum(kind, &content) != u32::from_le_bytes([e, f, g, h]) {
            return damaged("a checksum is wrong");
        }
        self.file_hash.update(&content);
        Ok((kind, content))
    }
}

/// An inbox whose items are not complete yet.
struct PartialInbox {
    item: UserItem,
    entries: Vec<Entry>,
    pending: HashMap<NotificationId, (Action, i64)>,
}

/// Puts the items of all blocks together.
struct Assembler<'a> {
    key: &'a SnapshotKey,
    number: i32,
    restored: RestoredPartition,
    /// The header's offsets.
    header_offsets: [i64; 2],
    /// Offsets up to which the next users' inboxes have every record.
    offsets: [i64; 2],
    /// These offsets by user, for users whose records come again.
    applied: HashMap<UserId, [i64; 2]>,
    partial: Option<PartialInbox>,
}

impl<'a> Assembler<'a> {
    fn new(key: &'a SnapshotKey, number: i32, header: Header) -> Self {
        let Header { topic_epochs, last_offsets, anchors } = header;
        let inboxes = Inboxes {
            topic_epochs,
            last_offsets,
            anchors,
            is_restored: true,
            ..Inboxes::default()
        };
        Self {
            key,
            number,
            restored: RestoredPartition { inboxes, entries: 0, has_misplaced: false },
            header_offsets: last_offsets,
            offsets: last_offsets,
            applied: HashMap::new(),
            partial: None,
        }
    }

    fn add_items(&mut self, mut block: BlockReader<'_>) -> Decoded<()> {
        while !block.0.is_empty() {
            match block.take_byte()? {
                OFFSETS_ITEM => {
                    self.finish_inbox()?;
                    for offset in &mut self.offsets {
                        *offset = block.take_int_from(*offset)?;
                    }
                }
                USER_ITEM => {
                    self.finish_inbox()?;
                    self.begin_inbox(take_user(&mut block)?)?;
                }
                ENTRY_ITEM => self.add_entry(take_entry(&mut block)?)?,
                PENDING_ITEM => {
                    let Some(partial) = &mut self.partial else {
                        return damaged("a receipt without an inbox");
                    };
                    let (id, action, offset) = take_pending(&mut block)?;
                    if offset >= partial.item.next_receipt_offset {
                        return damaged("a receipt is newer than its inbox");
                    }
                    partial.pending.insert(id, (action, offset));
                }
                _ => return damaged("it has an item of an unknown kind"),
            }
        }
        Ok(())
    }

    fn begin_inbox(&mut self, item: UserItem) -> Decoded<()> {
        if item.next_receipt_offset - 1 > self.offsets[1]
            || item.last_eviction.is_some_and(|eviction| eviction.through > self.offsets[0])
        {
            return damaged("an inbox is ahead of the log");
        }
        let SnapshotKey { partitioner, partitions, .. } = self.key;
        let home = partitioner.partition_for(item.user.record_key().as_bytes(), *partitions);
        self.restored.has_misplaced |= home != self.number;
        self.partial = Some(PartialInbox { item, entries: Vec::new(), pending: HashMap::new() });
        Ok(())
    }

    fn add_entry(&mut self, entry: Entry) -> Decoded<()> {
        let Some(partial) = &mut self.partial else {
            return damaged("an entry without an inbox");
        };
        let previous = partial.entries.last().map(|entry| entry.offset);
        let previous = previous.or(partial.item.last_eviction.map(|eviction| eviction.through));
        let is_valid = previous.is_none_or(|previous| previous < entry.offset)
            && entry.offset <= self.offsets[0]
            && partial.entries.len() < self.key.limits.entries.max(1);
        if !is_valid {
            return damaged("an inbox has entries that it cannot have");
        }
        partial.entries.push(entry);
        Ok(())
    }

    fn finish_inbox(&mut self) -> Decoded<()> {
        let Some(PartialInbox { item, entries, pending }) = self.partial.take() else {
            return Ok(());
        };
        let UserItem { user, next_receipt_offset, last_eviction } = item;
        let newest = entries.last().map(|entry| entry.offset);
        let newest = newest.max(last_eviction.map(|eviction| eviction.through)).unwrap_or(-1);
        // No record of any other inbox comes again.
        if newest > self.header_offsets[0] || next_receipt_offset - 1 > self.header_offsets[1] {
            self.applied.insert(user, self.offsets);
        }
        self.restored.entries += entries.len() as u64;
        let totals = &mut self.restored.inboxes.totals;
        let inbox = Inbox::from_parts(entries, last_eviction, pending, next_receipt_offset, totals);
        match self.restored.inboxes.users.insert(user, inbox) {
            None => Ok(()),
            Some(_) => damaged("a user has two inboxes"),
        }
    }

    fn finish(
        mut self,
        mut block: BlockReader<'_>,
        file_checksum: u32,
    ) -> Decoded<RestoredPartition> {
        self.finish_inbox()?;
        let (users, entries) = (block.take_int_from(0)?, block.take_int_from(0)?);
        self.restored.inboxes.complete_from = block.take_int_from(0)?;
        let anchors = [block.take_anchor()?, block.take_anchor()?];
        let conflicts = block.take_int_from(0)?;
        if conflicts > MAX_CONFLICTS as i64 {
            return damaged("it has too many reused keys");
        }
        self.restored.inboxes.conflict_offsets =
            (0..conflicts).map(|_| block.take_int_from(0)).collect::<Decoded<VecDeque<_>>>()?;
        let written_checksum = block.take_array()?;
        block.expect_end()?;
        let is_complete = users == self.restored.inboxes.users.len() as i64
            && entries == self.restored.entries.cast_signed()
            && u32::from_le_bytes(written_checksum) == file_checksum;
        if !is_complete {
            return damaged("something of it is missing");
        }
        let mut expected = anchors;
        let offsets = self.header_offsets.into_iter().zip(self.offsets);
        for (expected, (header_offset, offset)) in expected.iter_mut().zip(offsets) {
            // If no record was applied meanwhile, the reader starts after the last one.
            *expected = expected.filter(|anchor| anchor.offset > header_offset);
            if expected.map_or(header_offset, |anchor| anchor.offset) < offset {
                return damaged("its footer contradicts its inboxes");
            }
        }
        if expected != [None, None] {
            let filter = ReplayFilter { applied: self.applied, expected };
            self.restored.inboxes.replay_filter = Some(Box::new(filter));
        }
        Ok(self.restored)
    }
}
