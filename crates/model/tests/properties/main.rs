//! Decoding is the inverse of encoding for every valid value, and never panics on generated input.

mod strategies;
mod fuzz;

use std::borrow::Cow;

use jiff::Timestamp;
use model::{
    Cursor, Data, Fingerprint, Headers, Link, Notification, NotificationId, User,
    record::{decode_notification, encode_notification},
};
use proptest::prelude::*;
use serde_json::value::RawValue;
use strategies::{cursor, json_value, notification_id, sent_time, user_id};

proptest! {
    #[test]
    fn a_record_decodes_to_what_was_encoded(
        from in user_id(), from_name in any::<String>(),
        to in user_id(), to_name in any::<String>(),
        message in any::<String>(), category in any::<Option<String>>(), link in any::<Option<String>>(),
        data in proptest::option::of(any::<Vec<String>>()),
        id in notification_id(), sent_at in sent_time(), at in cursor(),
        fingerprint in proptest::option::of(any::<u64>().prop_map(Fingerprint::from_bits)),
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
        let headers = Headers { id, sent_at, traceparent: None, fingerprint };
        let record = encode_notification(&notification, &headers).expect("JSON");
        prop_assert_eq!(&record.key, &to.to_string().into_bytes());

        let wire = record.headers.iter().map(|(name, value)| (*name, &**value));
        let (read, read_headers) =
            decode_notification(Some(&record.value), wire, at, Timestamp::UNIX_EPOCH).expect("a notification");
        prop_assert_eq!(read.from, notification.from);
        prop_assert_eq!(read.to, notification.to);
        prop_assert_eq!(read.message, notification.message);
        prop_assert_eq!(read.category, notification.category);
        let allowed = notification.link.filter(|link| Link::new(link.to_string()).is_ok());
        prop_assert_eq!(read.link, allowed);
        prop_assert_eq!(read.data.map(RawValue::get), notification.data.map(RawValue::get));
        prop_assert_eq!(read_headers, headers);
    }

    #[test]
    fn a_cursor_and_an_id_are_read_back_as_they_were_written(cursor in cursor(), id in notification_id()) {
        prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        prop_assert_eq!(NotificationId::from_text(&id.to_string()), Some(id));
    }

    #[test]
    fn whatever_text_an_id_or_a_cursor_is_made_of_keeps_its_spelling(
        text in "[0-9a-fA-F-]{1,40}|[0-9]{1,3}-([0-9]{1,4}|start)(-[0-9a-fA-F]{7,9})?|\\PC{1,30}",
    ) {
        prop_assert_eq!(NotificationId::from_text(&text).map(|id| id.to_string()), Some(text.clone()));
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string(), text);
        }
    }

    #[test]
    fn a_cursor_is_of_one_log_and_without_an_epoch_of_none_that_has_one(
        cursor in cursor(), epoch in any::<Option<u32>>(),
    ) {
        prop_assert!(cursor.is_of_log(cursor.epoch));
        let is_unread = cursor.offset == -1 && cursor.epoch.is_none();
        prop_assert_eq!(cursor.is_of_log(epoch), cursor.epoch == epoch || is_unread);
    }

    #[test]
    fn data_means_what_was_written_and_is_one_line(written in json_value(), spaces in "[ \t\r\n]{0,3}") {
        // White space where JSON allows it: no string in here has a bracket or a comma.
        let space = |c| match c {
            '[' | ']' | ',' | ':' => format!("{spaces}{c}{spaces}"),
            c => String::from(c),
        };
        let spaced: String = written.to_string().chars().map(space).collect();
        let data = Data::from_json(&spaced).expect("JSON");
        let kept = data.as_ref().map_or("null", |data| data.as_json().get());
        prop_assert!(!kept.contains(['\n', '\r']));
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(kept).expect("JSON"), written);
    }

    #[test]
    fn a_link_that_is_taken_never_leads_to_another_host_in_disguise(text in "[/\\\\a-z:.]{0,12}|https?://[a-z/\\\\]{0,9}") {
        if let Ok(link) = Link::new(text) {
            let link = link.as_str().replace('\\', "/");
            prop_assert!(link.starts_with("http") || !link.starts_with("//"), "{link}");
        }
    }
}

#[test]
fn a_record_as_the_go_tutorial_writes_it_decodes() {
    let value = br#"{"from":{"id":2,"name":"Bruno"},"to":{"id":1,"name":"Emma"},"message":"Bruno started following you."}"#;
    let timestamp = Timestamp::from_millisecond(1_700_000_000_000).expect("in range");
    let (read, headers) =
        decode_notification(Some(value), std::iter::empty(), Cursor::new(3, 7), timestamp)
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
        br#"[{"id":2,"name":"B"},{"id":1,"name":"E"},"m"]"#,
        br#"{"from":[2,"B"],"to":{"id":1,"name":"E"},"message":"m"}"#,
        br#"{"from":{"id":2,"name":"B"},"to":[1,"E"],"message":"m"}"#,
        br#"{"from":{"id":2,"name":"B"},"to":{"id":1,"name":"E"},"message":"m"} x"#,
        br#"{"from":{"id":2,"name":"B"},"to":{"id":0,"name":"E"},"message":"m"}"#,
        br#"{"from":{"id":2,"name":"B"},"message":"m"}"#,
        br#"{"from":{"id":2,"name":"B"},"to":{"id":1,"name":"E"},"message":7}"#,
        br#"{"from":{"id":2,"name":"B"},"to":{"id":1,"name":"E"},"message":"m","data":"\ud800"}"#,
        br#"{"from":{"id":2,"name":"B"},"to":{"id":1,"name":"E"},"message":"m","data":1e999}"#,
        b"\xff\xfe",
    ] {
        assert!(
            decode_notification(
                Some(value),
                std::iter::empty(),
                Cursor::new(0, 0),
                Timestamp::UNIX_EPOCH
            )
            .is_err()
        );
    }
    assert!(
        decode_notification(None, std::iter::empty(), Cursor::new(0, 0), Timestamp::UNIX_EPOCH)
            .is_err()
    );
}

#[test]
fn a_link_that_this_producer_would_refuse_is_left_out() {
    let read = |link: &str| {
        let value = format!(
            r#"{{"from":{{"id":2,"name":"B"}},"to":{{"id":1,"name":"E"}},"message":"m","link":"{link}"}}"#
        );
        let at = Cursor::new(0, 0);
        let read = decode_notification(
            Some(value.as_bytes()),
            std::iter::empty(),
            at,
            Timestamp::UNIX_EPOCH,
        );
        read.expect("a notification").0.link.map(Cow::into_owned)
    };
    for kept in ["https://example.org/a", "/posts/7"] {
        assert_eq!(read(kept).as_deref(), Some(kept));
    }
    for left_out in [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "//evil.example",
        " /a",
        "",
    ] {
        assert_eq!(read(left_out), None, "{left_out:?}");
    }
}
