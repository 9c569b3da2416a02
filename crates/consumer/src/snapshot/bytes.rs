//! Numbers, texts, ids and anchors as bytes, each beside its inverse.

use event_log::RecordAnchor;
use model::{Cursor, NotificationId};
use uuid::Uuid;

use super::format::{Decoded, SnapshotRejected, damaged};

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

/// The unread rest of a block.
pub(super) struct BlockReader<'a>(&'a [u8]);

impl<'a> BlockReader<'a> {
    pub(super) fn new(content: &'a [u8]) -> Self {
        Self(content)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if something is left.
    pub(super) fn expect_end(&self) -> Decoded<()> {
        if self.is_empty() { Ok(()) } else { damaged("a block is too long") }
    }

    fn take_bytes(&mut self, length: usize) -> Decoded<&'a [u8]> {
        match self.0.split_at_checked(length) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => damaged("a block is too short"),
        }
    }

    pub(super) fn take_array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let taken = self.take_bytes(N)?;
        taken.try_into().map_err(|_| SnapshotRejected::Damaged("a block is too short"))
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
        let text = std::str::from_utf8(self.take_bytes(length)?);
        text.map_err(|_| SnapshotRejected::Damaged("a text is not UTF-8"))
    }

    pub(super) fn take_id(&mut self) -> Decoded<NotificationId> {
        match self.take_byte()? {
            0 => Ok(NotificationId::Uuid(Uuid::from_bytes(self.take_array()?))),
            1 => {
                let partition = i32::try_from(self.take_int_from(0)?);
                let partition =
                    partition.map_err(|_| SnapshotRejected::Damaged("an id is wrong"))?;
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
