//! Values, entries and inboxes as bytes of a block, each beside its inverse. The caller writes the
//! tag of an item.

use std::sync::Arc;

use event_log::RecordAnchor;
use model::{Action, Cursor, Fingerprint, NotificationId, UserId};
use uuid::Uuid;

use super::format::{Decoded, SnapshotKey, damaged};
use crate::view::{
    EntryState,
    entry::Entry,
    inbox::{Eviction, EvictionReason, Inbox},
};

/// Bits of an entry's first byte beside those of [`EntryState`].
const FINGERPRINT: u8 = 4;
const CATEGORY: u8 = 8;
const _: () = assert!(EntryState::BITS & (FINGERPRINT | CATEGORY) == 0);

pub(super) fn put_int(block: &mut Vec<u8>, value: i64) {
    block.extend(value.to_le_bytes());
}

/// Appends the length in 4 bytes, then the text. A longer one cannot be, as no record is that large,
/// and the encoder refuses so large a block.
pub(super) fn put_text(block: &mut Vec<u8>, text: &str) {
    block.extend((text.len() as u32).to_le_bytes());
    block.extend(text.as_bytes());
}

pub(super) fn put_id(block: &mut Vec<u8>, id: &NotificationId) {
    match id {
        NotificationId::Uuid(uuid) => {
            block.push(0);
            block.extend(uuid.as_bytes());
        }
        NotificationId::Position(cursor) => {
            block.push(1);
            put_int(block, i64::from(cursor.partition));
            put_int(block, cursor.offset);
        }
        NotificationId::Other(text) => {
            block.push(2);
            put_text(block, text);
        }
    }
}

pub(super) fn put_anchor(block: &mut Vec<u8>, anchor: Option<RecordAnchor>) {
    block.push(u8::from(anchor.is_some()));
    if let Some(RecordAnchor { offset, checksum }) = anchor {
        put_int(block, offset);
        block.extend(checksum.to_le_bytes());
    }
}

pub(super) fn put_epoch(block: &mut Vec<u8>, epoch: Option<u32>) {
    block.push(u8::from(epoch.is_some()));
    block.extend(epoch.into_iter().flat_map(u32::to_le_bytes));
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

/// The unread rest of a block.
pub(super) struct BlockReader<'a>(pub(super) &'a [u8]);

impl<'a> BlockReader<'a> {
    /// Fails if something is left.
    pub(super) fn expect_end(&self) -> Decoded<()> {
        if self.0.is_empty() { Ok(()) } else { damaged("a block is too long") }
    }

    fn take_bytes(&mut self, length: usize) -> Decoded<&'a [u8]> {
        let Some((taken, rest)) = self.0.split_at_checked(length) else {
            return damaged("a block is too short");
        };
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn take_array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        self.take_bytes(N)?.try_into().or(damaged("a block is too short"))
    }

    pub(super) fn take_byte(&mut self) -> Decoded<u8> {
        self.take_array().map(|[byte]| byte)
    }

    pub(super) fn take_int(&mut self) -> Decoded<i64> {
        self.take_array().map(i64::from_le_bytes)
    }

    /// A number from `min` on, below the greatest, so that one more can be added.
    pub(super) fn take_int_from(&mut self, min: i64) -> Decoded<i64> {
        let value = self.take_int()?;
        if (min..i64::MAX).contains(&value) { Ok(value) } else { damaged("a number is wrong") }
    }

    pub(super) fn take_text(&mut self) -> Decoded<&'a str> {
        let length = u32::from_le_bytes(self.take_array()?) as usize;
        std::str::from_utf8(self.take_bytes(length)?).or(damaged("a text is not UTF-8"))
    }

    pub(super) fn take_id(&mut self) -> Decoded<NotificationId> {
        match self.take_byte()? {
            0 => Ok(NotificationId::Uuid(Uuid::from_bytes(self.take_array()?))),
            1 => {
                let partition =
                    i32::try_from(self.take_int_from(0)?).or(damaged("an id is wrong"))?;
                Ok(NotificationId::Position(Cursor::new(partition, self.take_int_from(-1)?)))
            }
            // Ids are compared by variant, so each must have the variant of its spelling.
            2 => match NotificationId::from_text(self.take_text()?) {
                Some(id @ NotificationId::Other(_)) => Ok(id),
                _ => damaged("an id is wrong"),
            },
            _ => damaged("an id of an unknown kind"),
        }
    }

    pub(super) fn take_epoch(&mut self) -> Decoded<Option<u32>> {
        match self.take_byte()? {
            0 => Ok(None),
            1 => self.take_array().map(u32::from_le_bytes).map(Some),
            _ => damaged("an epoch is wrong"),
        }
    }

    pub(super) fn take_anchor(&mut self) -> Decoded<Option<RecordAnchor>> {
        match self.take_byte()? {
            0 => Ok(None),
            1 => {
                let offset = self.take_int_from(0)?;
                let checksum = u32::from_le_bytes(self.take_array()?);
                Ok(Some(RecordAnchor { offset, checksum }))
            }
            _ => damaged("an anchor is wrong"),
        }
    }
}

/// The beginning of an inbox.
pub(super) struct UserItem {
    pub(super) user: UserId,
    pub(super) next_receipt_offset: i64,
    pub(super) last_eviction: Option<Eviction>,
}

pub(super) fn put_user(block: &mut Vec<u8>, user: UserId, inbox: &Inbox) {
    put_int(block, user.get());
    put_int(block, inbox.next_receipt_offset);
    match inbox.last_eviction(i64::MIN) {
        None => block.push(0),
        Some(eviction) => {
            block.push(match eviction.reason {
                EvictionReason::Evicted => 1,
                EvictionReason::Expired => 2,
            });
            put_int(block, eviction.through);
            put_int(block, eviction.sent_at_ms);
        }
    }
}

pub(super) fn take_user(block: &mut BlockReader<'_>) -> Decoded<UserItem> {
    let user = UserId::new(block.take_int()?).or(damaged("a user's id is not positive"))?;
    let next_receipt_offset = block.take_int_from(0)?;
    let kind = block.take_byte()?;
    let mut take_eviction = |reason| -> Decoded<_> {
        let (through, sent_at_ms) = (block.take_int_from(0)?, block.take_int()?);
        Ok(Some(Eviction { through, sent_at_ms, reason }))
    };
    let last_eviction = match kind {
        0 => None,
        1 => take_eviction(EvictionReason::Evicted)?,
        2 => take_eviction(EvictionReason::Expired)?,
        _ => return damaged("an eviction of an unknown kind"),
    };
    Ok(UserItem { user, next_receipt_offset, last_eviction })
}

pub(super) fn put_entry(block: &mut Vec<u8>, entry: &Entry) {
    let Entry { offset, sent_at_ms, id, fingerprint, category, state, json } = entry;
    let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    block.push(
        state.to_bits()
            | bit(fingerprint.is_some(), FINGERPRINT)
            | bit(category.is_some(), CATEGORY),
    );
    put_int(block, *offset);
    put_int(block, *sent_at_ms);
    put_id(block, id);
    if let Some(fingerprint) = fingerprint {
        block.extend(fingerprint.to_bits().to_le_bytes());
    }
    for text in [category, json].into_iter().flatten() {
        put_text(block, text);
    }
}

pub(super) fn take_entry(block: &mut BlockReader<'_>) -> Decoded<Entry> {
    let bits = block.take_byte()?;
    if bits & !(EntryState::BITS | FINGERPRINT | CATEGORY) != 0 {
        return damaged("an entry of an unknown kind");
    }
    let state = EntryState::from_bits(bits);
    let (offset, sent_at_ms, id) = (block.take_int_from(0)?, block.take_int()?, block.take_id()?);
    let fingerprint = (bits & FINGERPRINT != 0).then(|| block.take_array()).transpose()?;
    let fingerprint = fingerprint.map(|bits| Fingerprint::from_bits(u64::from_le_bytes(bits)));
    let mut take_text =
        |is_there: bool| is_there.then(|| block.take_text().map(Arc::<str>::from)).transpose();
    let (category, json) = (take_text(bits & CATEGORY != 0)?, take_text(!state.dismissed)?);
    Ok(Entry { offset, sent_at_ms, id, fingerprint, category, state, json })
}

pub(super) fn put_pending(block: &mut Vec<u8>, id: &NotificationId, action: Action, offset: i64) {
    put_id(block, id);
    block.push(match action {
        Action::Read => 0,
        Action::Unread => 1,
        Action::Dismissed => 2,
    });
    put_int(block, offset);
}

pub(super) fn take_pending(block: &mut BlockReader<'_>) -> Decoded<(NotificationId, Action, i64)> {
    let (id, action, offset) = (block.take_id()?, block.take_byte()?, block.take_int_from(0)?);
    let action = match action {
        0 => Action::Read,
        1 => Action::Unread,
        2 => Action::Dismissed,
        _ => return damaged("a receipt of an unknown kind"),
    };
    Ok((id, action, offset))
}
