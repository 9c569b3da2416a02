//! Forged files: every checksum is right, the content is anything. Each is rejected or yields inboxes
//! that can be read, either way in little memory.

use std::time::Duration;

use event_log::RecordAnchor;
use jiff::Timestamp;
use model::{
    Action, Fingerprint, Headers, Notification, NotificationId, Partitioner, User, UserId,
};
use proptest::{collection::vec, prelude::*};

use super::{
    decode::read_snapshot,
    format::{
        FOOTER_BLOCK, HEADER_BLOCK, INBOXES_BLOCK, MAGIC, SnapshotKey, VERSION, block_checksum,
    },
    writer::write_all,
};
use crate::view::{
    entry::Entry, inbox::Limits, inboxes::Inboxes, page::PageQuery, rebuild::SourceTopic,
};

const LIMITS: Limits = Limits { entries: 3, bytes: 1 << 20, age: Duration::from_secs(3600) };

fn key() -> SnapshotKey {
    SnapshotKey {
        notifications: "n".into(),
        receipts: "r".into(),
        group: "g".into(),
        partitions: 1,
        partitioner: Partitioner::default(),
        limits: LIMITS,
    }
}

fn user(id: i64) -> UserId {
    UserId::new(id).expect("positive")
}

/// Two users with some of everything that an inbox can have.
fn inboxes() -> Inboxes {
    let mut inboxes = Inboxes::default();
    for offset in 0..9 {
        let to = User { id: user(offset % 2 + 1), name: "To".into() };
        let from = User { id: user(9), name: "Nine".into() };
        let category = (offset % 3 == 0).then(|| "c".into());
        let notification = Notification { category, ..Notification::new(from, to, "m") };
        let id = match offset % 3 {
            0 => NotificationId::generate(),
            1 => NotificationId::from_text(&format!("id-{offset}")).expect("short"),
            _ => NotificationId::from_text(&format!("0-{offset}")).expect("a place"),
        };
        let fingerprint = (offset % 2 == 0).then(|| Fingerprint::from_bits(7));
        let sent_at = Timestamp::now();
        let headers = Headers { id, sent_at, traceparent: None, fingerprint };
        let entry = Entry::new(offset, 0, &notification, headers).expect("JSON");
        inboxes.add_entry(notification.to.id, entry, LIMITS, sent_at.as_millisecond());
        let anchor = Some(RecordAnchor { offset, checksum: 1 });
        inboxes.advance_to(SourceTopic::Notifications, offset, anchor);
    }
    for (offset, action) in
        [Action::Read, Action::Unread, Action::Dismissed].into_iter().enumerate()
    {
        let ids =
            vec![NotificationId::from_text(&format!("id-{}", offset * 3 + 1)).expect("short")];
        let (user_id, offset) = (user(1 + (offset as i64) % 2), offset as i64);
        inboxes.apply_receipt(&model::Receipt { user_id, action, ids }, offset, LIMITS);
        inboxes.advance_to(
            SourceTopic::Receipts,
            offset,
            Some(RecordAnchor { offset, checksum: 2 }),
        );
    }
    inboxes
}

fn written() -> Vec<u8> {
    write_all(&inboxes(), &key(), 0, Vec::new(), || false).expect("memory").0
}

/// The kinds and contents of a file's blocks.
fn blocks(mut file: &[u8]) -> Vec<(u8, Vec<u8>)> {
    file = &file[MAGIC.len() + 4..];
    let mut blocks = Vec::new();
    while let [a, b, c, d, _, _, _, _, kind, rest @ ..] = file {
        let (content, rest) = rest.split_at(u32::from_le_bytes([*a, *b, *c, *d]) as usize);
        blocks.push((*kind, content.to_vec()));
        file = rest;
    }
    blocks
}

/// A file of these blocks in which every checksum is right.
fn file(blocks: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut file = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
    for (kind, content) in blocks {
        let mut content = content.clone();
        if *kind == FOOTER_BLOCK && content.len() >= 4 {
            let place = content.len() - 4;
            content[place..].copy_from_slice(&crc32fast::hash(&file).to_le_bytes());
        }
        file.extend((content.len() as u32).to_le_bytes());
        file.extend(block_checksum(*kind, &content).to_le_bytes());
        file.push(*kind);
        file.extend(content);
    }
    file
}

/// Fails unless the file is rejected or yields inboxes that can be read.
fn check_file(bytes: &[u8]) {
    let Ok(restored) = read_snapshot(bytes, &key(), 0) else { return };
    let mut inboxes = restored.inboxes;
    let now = Timestamp::now().as_millisecond();
    for user in inboxes.users.keys().copied().collect::<Vec<_>>() {
        let page = inboxes.read_page(0, user, &PageQuery::default(), i64::MIN);
        assert!(page.items.len() <= LIMITS.entries);
        let _ = page.to_json();
    }
    inboxes.set_low_watermark(SourceTopic::Notifications, 5);
    inboxes.expire_entries(LIMITS, now);
}

#[test]
fn a_written_file_is_made_of_the_blocks_that_these_tests_change() {
    let written = written();
    let blocks = blocks(&written);
    assert_eq!(
        blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [HEADER_BLOCK, INBOXES_BLOCK, FOOTER_BLOCK]
    );
    assert_eq!(file(&blocks), written);
    let restored = read_snapshot(&*written, &key(), 0).expect("as it was written");
    assert_eq!((restored.inboxes.users.len(), restored.entries), (2, 6));
    assert_eq!(restored.inboxes.totals.bytes, inboxes().totals.bytes);
}

#[test]
fn a_false_length_takes_no_memory() {
    let mut lying = written();
    let at = MAGIC.len() + 4;
    for length in [u32::MAX, 60 << 20] {
        lying[at..at + 4].copy_from_slice(&length.to_le_bytes());
        assert!(read_snapshot(&*lying, &key(), 0).is_err());
    }
}

proptest! {
    #[test]
    fn any_content_with_the_right_checksums_is_rejected_or_can_be_read(
        changes in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut blocks = blocks(&written());
        for (block, byte, value) in changes {
            let content = &mut blocks[block.index(3)].1;
            let index = byte.index(content.len());
            content[index] = value;
        }
        check_file(&file(&blocks));
    }

    #[test]
    fn any_items_are_rejected_or_can_be_read(items in vec(any::<u8>(), 0..200), kind in 0..5_u8) {
        let mut blocks = blocks(&written());
        blocks.insert(1, (kind, items.clone()));
        check_file(&file(&blocks));
        blocks[2].1 = items;
        check_file(&file(&blocks));
    }

    #[test]
    fn any_bytes_are_rejected(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(read_snapshot(&*bytes, &key(), 0).is_err());
        let begun = [&MAGIC[..], &VERSION.to_le_bytes(), &bytes].concat();
        prop_assert!(read_snapshot(&*begun, &key(), 0).is_err());
    }
}
