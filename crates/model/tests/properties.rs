//! Encoding and decoding are each other's inverse, for anything that can be sent, and decoding
//! never panics, for anything that can arrive.

use std::borrow::Cow;

use jiff::Timestamp;
use model::{
    Cursor, Headers, Message, Notification, NotificationId, User, UserId,
    record::{decode, encode},
};
use proptest::prelude::*;
use serde_json::value::RawValue;

fn user_id() -> impl Strategy<Value = UserId> {
    (1..=i64::MAX).prop_map(|n| UserId::new(n).expect("positive"))
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (0..=i32::MAX, -1..=i64::MAX).prop_map(|(p, o)| Cursor::new(p, o))
}

fn notification_id() -> impl Strategy<Value = NotificationId> {
    prop_oneof![
        any::<u128>().prop_map(|n| NotificationId::Uuid(uuid::Uuid::from_u128(n))),
        cursor().prop_map(NotificationId::Position),
        "\\PC{1,30}".prop_map(|s| NotificationId::from_text(&s).expect("short")),
    ]
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..4_102_444_800_000_i64).prop_map(|ms| Timestamp::from_millisecond(ms).expect("this century"))
}

proptest! {
    #[test]
    fn a_record_decodes_to_what_was_encoded(
        from in user_id(), from_name in any::<String>(),
        to in user_id(), to_name in any::<String>(),
        message in any::<String>(), category in any::<Option<String>>(), link in any::<Option<String>>(),
        data in proptest::option::of(any::<Vec<String>>()),
        id in notification_id(), sent_at in time(), at in cursor(),
    ) {
        let data = data.map(|d| serde_json::value::to_raw_value(&d).expect("strings"));
        let notification = Notification {
            from: User { id: from, name: Cow::from(&from_name) },
            to: User { id: to, name: Cow::from(&to_name) },
            message: Cow::from(&message),
            category: category.as_deref().map(Cow::from),
            link: link.as_deref().map(Cow::from),
            data: data.as_deref(),
        };
        let headers = Headers { id, sent_at, traceparent: None };
        let record = encode(&notification, &headers).expect("JSON");
        prop_assert_eq!(&record.key, &to.to_string().into_bytes());

        let wire = record.headers.iter().map(|(name, value)| (*name, value.as_slice()));
        let (read, read_headers) =
            decode(Some(&record.value), wire, at, Timestamp::UNIX_EPOCH).expect("a notification");
        prop_assert_eq!(read.from, notification.from);
        prop_assert_eq!(read.to, notification.to);
        prop_assert_eq!(read.message, notification.message);
        prop_assert_eq!(read.category, notification.category);
        prop_assert_eq!(read.link, notification.link);
        prop_assert_eq!(read.data.map(RawValue::get), notification.data.map(RawValue::get));
        prop_assert_eq!(read_headers, headers);
    }

    #[test]
    fn a_cursor_and_an_id_are_read_back_as_they_were_written(cursor in cursor(), id in notification_id()) {
        prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        prop_assert_eq!(NotificationId::from_text(&id.to_string()), Some(id));
    }

    #[test]
    fn whatever_text_an_id_or_a_cursor_is_made_of_keeps_its_spelling(text in "[0-9a-fA-F-]{1,40}|[0-9]{1,3}-[0-9]{1,4}|\\PC{1,30}") {
        prop_assert_eq!(NotificationId::from_text(&text).map(|id| id.to_string()), Some(text.clone()));
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string(), text);
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(
        value in proptest::option::of(any::<Vec<u8>>()),
        headers in any::<Vec<(String, Vec<u8>)>>(),
        text in any::<String>(),
    ) {
        let wire = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let _ = decode(value.as_deref(), wire, Cursor::new(0, 0), Timestamp::UNIX_EPOCH);
        let _ = (text.parse::<Cursor>(), text.parse::<UserId>(), Message::new(text));
    }
}

#[test]
fn a_record_as_the_go_tutorial_writes_it_decodes() {
    let value = br#"{"from":{"id":2,"name":"Bruno"},"to":{"id":1,"name":"Emma"},"message":"Bruno started following you."}"#;
    let timestamp = Timestamp::from_millisecond(1_700_000_000_000).expect("in range");
    let (read, headers) = decode(Some(value), std::iter::empty(), Cursor::new(3, 7), timestamp)
        .expect("a notification");
    assert_eq!((read.from.id.get(), &*read.from.name), (2, "Bruno"));
    assert_eq!((read.to.id.get(), &*read.to.name), (1, "Emma"));
    assert_eq!(read.message, "Bruno started following you.");
    assert_eq!(headers.id.to_string(), "3-7");
    assert_eq!(headers.sent_at, timestamp);
    assert_eq!(serde_json::to_vec(&read).expect("JSON"), value);
}

#[test]
fn what_is_no_notification_is_poison() {
    for value in [
        &b"not json"[..],
        b"{}",
        b"[]",
        br#"{"from":{"id":2,"name":"B"},"to":{"id":0,"name":"E"},"message":"m"}"#,
        br#"{"from":{"id":2,"name":"B"},"message":"m"}"#,
        br#"{"from":{"id":2,"name":"B"},"to":{"id":1,"name":"E"},"message":7}"#,
        b"\xff\xfe",
    ] {
        assert!(
            decode(Some(value), std::iter::empty(), Cursor::new(0, 0), Timestamp::UNIX_EPOCH)
                .is_err()
        );
    }
    assert!(decode(None, std::iter::empty(), Cursor::new(0, 0), Timestamp::UNIX_EPOCH).is_err());
}
