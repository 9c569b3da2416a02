//! Decoding generated input does not panic. Decoded values keep their documented bounds and are
//! equal after they are written and read again.

use inputs::{bytes, json, mutated, mutated_text, text};
use jiff::Timestamp;
use model::{
    Category, Cursor, Data, Fingerprint, Headers, Link, Message, NotificationId, UserId, UserName,
    headers::MAX_ID_BYTES,
    record::{decode_notification, decode_receipt, encode_notification, encode_receipt},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::Value;

use crate::strategies::{
    cursor, notification_id, notification_json, receipt, record_headers, user_id,
};

const AT: Cursor = Cursor { partition: 3, offset: 7, epoch: None };

/// Headers with known and unknown names, repeated or missing, with arbitrary values.
fn wire() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let known = &["ce_id", "ce_time", "traceparent", "ce_fingerprint", "ce_type", "ce_specversion"];
    let name = prop_oneof![4 => select(&known[..]).prop_map(String::from), 1 => text()];
    let value = prop_oneof![
        bytes(),
        mutated(notification_id().prop_map(|id| id.to_string().into_bytes())),
        mutated("[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,9})?(Z|[+-][01][0-9]:[0-5][0-9])".prop_map(String::into_bytes)),
        "[0-9a-f]{16}|0{16}".prop_map(String::into_bytes),
    ];
    let ours = record_headers().prop_map(|headers| {
        let headers = headers.encode("notification.sent").into_iter();
        headers.map(|(name, value)| (name.to_owned(), value.into_owned())).collect::<Vec<_>>()
    });
    (ours, vec((name, value), 0..5), any::<bool>()).prop_map(|(ours, others, both)| {
        if both { ours.into_iter().chain(others).collect() } else { others }
    })
}

fn read(wire: &[(String, Vec<u8>)]) -> Headers {
    let wire = wire.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    Headers::decode(wire, AT, Timestamp::UNIX_EPOCH)
}

/// The nesting depth of valid JSON.
fn depth(json: &str) -> usize {
    let (mut deepest, mut depth, mut within, mut escaped) = (0, 0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if within => escaped = true,
            b'"' => within = !within,
            b'[' | b'{' if !within => depth += 1,
            b']' | b'}' if !within => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

proptest! {
    #[test]
    fn a_record_is_poison_or_is_read_again_as_it_was_written(
        value in prop_oneof![1 => option::of(bytes()), 5 => mutated(notification_json()).prop_map(Some)],
        wire in wire(), again in cursor(),
    ) {
        let borrowed = wire.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let decoded = decode_notification(value.as_deref(), borrowed, AT, Timestamp::UNIX_EPOCH);
        let Ok((notification, headers)) = decoded else { return Ok(()) };
        prop_assert!(notification.to.id.get() >= 1 && notification.from.id.get() >= 1);

        let record = encode_notification(&notification, &headers).expect("JSON");
        // The recipient's program can parse it.
        let whole = serde_json::from_slice::<Value>(&record.value);
        prop_assert!(whole.is_ok(), "{:?}", whole);

        let borrowed = record.headers.iter().map(|(name, value)| (*name, &**value));
        let (same, same_headers) =
            decode_notification(Some(&record.value), borrowed, again, Timestamp::MAX).expect("a notification");
        prop_assert_eq!(&same_headers, &headers);
        prop_assert_eq!(encode_notification(&same, &same_headers).expect("JSON"), record);
    }

    #[test]
    fn headers_are_within_their_bounds_and_read_again_as_they_were_written(wire in wire()) {
        let headers = read(&wire);
        prop_assert!((1..=MAX_ID_BYTES).contains(&headers.id.to_string().len()));
        prop_assert!(headers.traceparent.as_ref().is_none_or(|it| it.len() <= MAX_ID_BYTES));
        prop_assert_eq!(headers.sent_at.subsec_nanosecond() % 1_000_000, 0);
        let written: Vec<_> = headers.encode("notification.sent").into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
        prop_assert_eq!(read(&written), headers);
    }

    #[test]
    fn a_receipt_is_poison_or_is_read_again_as_it_was_written(
        value in prop_oneof![1 => option::of(bytes()), 5 => mutated(receipt().prop_map(|it| it.value)).prop_map(Some)],
        headers in record_headers(),
    ) {
        if let Ok(receipt) = decode_receipt(value.as_deref()) {
            let record = encode_receipt(&receipt, &headers).expect("JSON");
            prop_assert_eq!(decode_receipt(Some(&record.value)).expect("a receipt"), receipt);
        }
    }

    #[test]
    fn what_has_one_spelling_is_taken_in_no_other(
        text in prop_oneof![
            text(),
            mutated_text(cursor().prop_map(|it| it.to_string())),
            mutated_text(user_id().prop_map(|it| it.to_string())),
            mutated_text(any::<u64>().prop_map(|it| Fingerprint::from_bits(it).to_string())),
            "0{14}[0-9a-f]{2}",
            mutated_text(notification_id().prop_map(|it| it.to_string())),
        ],
    ) {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string(), text.clone());
            prop_assert!(cursor.partition >= 0 && cursor.offset >= -1);
        }
        if let Ok(id) = text.parse::<UserId>() {
            prop_assert_eq!(id.to_string(), text.clone());
            prop_assert!(id.get() >= 1);
        }
        if let Ok(fingerprint) = text.parse::<Fingerprint>() {
            prop_assert_eq!(fingerprint.to_string(), text.clone());
        }
        match NotificationId::from_text(&text) {
            Some(id) => prop_assert_eq!(id.to_string(), text),
            None => prop_assert!(text.is_empty() || text.len() > MAX_ID_BYTES),
        }
    }

    #[test]
    fn a_text_that_is_taken_keeps_its_bounds(
        text in prop_oneof![
            text(),
            mutated_text("https?://[a-z.]{1,12}/[a-z?#=]{0,12}|/[a-z/?]{0,12}"),
            mutated_text("[ a-zé]{1,120}"),
            (4000..4200_usize).prop_map(|length| "é".repeat(length)),
        ],
    ) {
        let (length, controls) = (text.chars().count(), text.chars().any(char::is_control));
        if let Ok(message) = Message::new(text.clone()) {
            prop_assert!(length <= Message::MAX_CHARS && !text.trim().is_empty());
            prop_assert_eq!(message.as_str(), text.as_str());
        }
        if let Ok(category) = Category::new(text.clone()) {
            prop_assert!(length <= Category::MAX_CHARS && !controls && !text.trim().is_empty());
            prop_assert_eq!(category.as_str(), text.as_str());
        }
        if let Ok(link) = Link::new(text.clone()) {
            prop_assert!(length <= Link::MAX_CHARS && !controls && !text.contains(char::is_whitespace));
            let link = link.as_str().replace('\\', "/").to_ascii_lowercase();
            let path = link.starts_with('/') && !link.starts_with("//");
            prop_assert!(path || link.starts_with("http://") || link.starts_with("https://"), "{}", link);
        }
        if let Ok(name) = UserName::new(&text) {
            let name = name.as_str();
            prop_assert!((1..=UserName::MAX_CHARS).contains(&name.chars().count()));
            prop_assert_eq!(name.trim(), name);
            prop_assert!(!name.contains(char::is_control));
        }
    }

    #[test]
    fn data_that_is_taken_is_json_that_every_program_reads(
        text in prop_oneof![3 => json(), 2 => mutated_text(json()), 1 => text()],
    ) {
        let Ok(Some(data)) = Data::from_json(&text) else { return Ok(()) };
        let kept = data.as_json().get();
        prop_assert!(kept.len() <= Data::MAX_BYTES && !kept.contains(['\n', '\r']));
        prop_assert!(depth(kept) <= Data::MAX_DEPTH);
        let (meant, said) = (serde_json::from_str::<Value>(kept), serde_json::from_str::<Value>(&text));
        prop_assert_eq!(meant.map_err(|error| error.to_string()), said.map_err(|_| String::new()));
        prop_assert_eq!(Data::from_json(kept), Ok(Some(data.clone())));
    }
}
