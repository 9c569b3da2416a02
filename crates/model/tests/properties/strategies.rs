//! Generated valid values.

use jiff::Timestamp;
use model::{
    Action, Cursor, Fingerprint, Headers, NotificationId, Receipt, UserId,
    record::{EncodedRecord, encode_receipt},
};
use proptest::prelude::*;

pub(crate) fn user_id() -> impl Strategy<Value = UserId> {
    (1..=i64::MAX).prop_map(|n| UserId::new(n).expect("positive"))
}

pub(crate) fn cursor() -> impl Strategy<Value = Cursor> {
    (position(), any::<Option<u32>>()).prop_map(|(position, epoch)| position.with_epoch(epoch))
}

/// A cursor without an epoch.
pub(crate) fn position() -> impl Strategy<Value = Cursor> {
    (0..=i32::MAX, -1..=i64::MAX).prop_map(|(p, o)| Cursor::new(p, o))
}

pub(crate) fn notification_id() -> impl Strategy<Value = NotificationId> {
    prop_oneof![
        any::<u128>().prop_map(|n| NotificationId::Uuid(uuid::Uuid::from_u128(n))),
        position().prop_map(NotificationId::Position),
        "\\PC{1,30}".prop_map(|s| NotificationId::from_text(&s).expect("short")),
    ]
}

pub(crate) fn sent_time() -> impl Strategy<Value = Timestamp> {
    (0..4_102_444_800_000_i64).prop_map(|ms| Timestamp::from_millisecond(ms).expect("this century"))
}

pub(crate) fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<i64>().prop_map(serde_json::Value::from),
        "[a-z \\\\\"\n]{0,8}".prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            proptest::collection::btree_map("[a-z ]{1,3}", inner, 0..3)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

pub(crate) fn record_headers() -> impl Strategy<Value = Headers> {
    let traceparent = proptest::option::of("00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]");
    let fingerprint = proptest::option::of(any::<u64>().prop_map(Fingerprint::from_bits));
    (notification_id(), sent_time(), traceparent, fingerprint).prop_map(
        |(id, sent_at, traceparent, fingerprint)| Headers { id, sent_at, traceparent, fingerprint },
    )
}

/// The value of a notification's record, with unknown and with duplicate fields.
pub(crate) fn notification_json() -> impl Strategy<Value = Vec<u8>> {
    let user = || {
        (user_id(), inputs::json_string())
            .prop_map(|(id, name)| format!("{{\"id\":{id},\"name\":{name}}}"))
    };
    let from = user().prop_map(|user| format!("\"from\":{user}"));
    let to = user().prop_map(|user| format!("\"to\":{user}"));
    let message = inputs::json_string().prop_map(|text| format!("\"message\":{text}"));
    let names = &["category", "link", "data", "data", "message", "more", "to"][..];
    let more = (proptest::sample::select(names), inputs::json())
        .prop_map(|(name, value)| format!("\"{name}\":{value}"));
    (from, to, message, proptest::collection::vec(more, 0..3)).prop_map(
        |(from, to, message, more)| {
            let fields: Vec<_> = [from, to, message].into_iter().chain(more).collect();
            format!("{{{}}}", fields.join(",")).into_bytes()
        },
    )
}

pub(crate) fn receipt() -> impl Strategy<Value = EncodedRecord> {
    let action = proptest::sample::select(&[Action::Read, Action::Unread, Action::Dismissed][..]);
    let ids = proptest::collection::vec(notification_id(), 0..6);
    (user_id(), action, ids, record_headers()).prop_map(|(user_id, action, ids, headers)| {
        encode_receipt(&Receipt { user_id, action, ids }, &headers).expect("JSON")
    })
}
