//! Inboxes, their entries and their pending receipts as items of a block, each beside its inverse.
//! The tag is the caller's.

use std::sync::Arc;

use model::{Action, Fingerprint, NotificationId, UserId};

use super::{
    bytes::{BlockReader, put_id, put_int, put_text},
    format::{Decoded, SnapshotRejected, damaged},
};
use crate::view::{
    EntryState,
    entry::Entry,
    inbox::{Eviction, EvictionReason, Inbox},
};

/// Bits of an entry's first byte beside those of [`EntryState`].
const FINGERPRINT: u8 = 4;
const CATEGORY: u8 = 8;
const _: () = assert!(EntryState::BITS & (FINGERPRINT | CATEGORY) == 0);

/// The beginning of an inbox.
pub(super) struct UserItem {
    pub(super) user: UserId,
    pub(super) next_receipt_offset: i64,
    pub(super) last_eviction: Option<Eviction>,
}

pub(super) fn put_user(block: &mut Vec<u8>, user: UserId, inbox: &Inbox) {
    put_int(block, user.get());
    put_int(block, inbox.next_receipt_offset());
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
    let user = UserId::new(block.take_int()?)
        .map_err(|_| SnapshotRejected::Damaged("a user's id is not positive"))?;
    let next_receipt_offset = block.take_int_from(0)?;
    let reason = match block.take_byte()? {
        0 => None,
        1 => Some(EvictionReason::Evicted),
        2 => Some(EvictionReason::Expired),
        _ => return damaged("an eviction of an unknown kind"),
    };
    let last_eviction = match reason {
        None => None,
        Some(reason) => {
            let (through, sent_at_ms) = (block.take_int_from(0)?, block.take_int()?);
            Some(Eviction { through, sent_at_ms, reason })
        }
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
        block.extend(fingerprint.bits().to_le_bytes());
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
    let fingerprint = if bits & FINGERPRINT != 0 {
        Some(Fingerprint::new(u64::from_le_bytes(block.take_array()?)))
    } else {
        None
    };
    let mut take_text = |is_there: bool| -> Decoded<Option<Arc<str>>> {
        if is_there { block.take_text().map(|text| Some(text.into())) } else { Ok(None) }
    };
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
