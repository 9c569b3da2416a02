//! Generated records and queries: for any of them, every page and every event is JSON on one line.

use std::{sync::Arc, time::Duration};

use consumer::view::{Feed, Limits, PageQuery, Selector, Since, feed::FeedEvent, page::FeedStart};
use event_log::{PartitionHandler, Record};
use inputs::{bytes, json, json_string, mutated, text};
use model::{Action, Cursor, NotificationId};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::Value;

use crate::{Bench, NOW, user};

const ACTIONS: [Action; 3] = [Action::Read, Action::Unread, Action::Dismissed];

/// A record of either topic, for one of two users. There are few ids, so that they collide.
#[derive(Debug, Clone)]
struct Made {
    receipt: bool,
    value: Option<Vec<u8>>,
    id: Vec<u8>,
    time: Vec<u8>,
    timestamp_ms: i64,
    /// Number of offsets that the log skips before it.
    skipped: i64,
}

fn id() -> impl Strategy<Value = String> {
    select(&["a", "b", "0-0", "0-1", "é\\n\"", "00000000-0000-7000-8000-000000000001"][..])
        .prop_map(String::from)
}

fn notification() -> impl Strategy<Value = Vec<u8>> {
    let optional = |name: &'static str, value: BoxedStrategy<String>| {
        option::of(value).prop_map(move |value| {
            value.map(|value| format!(",\"{name}\":{value}")).unwrap_or_default()
        })
    };
    let category = optional("category", json_string().boxed());
    let data = optional("data", json().boxed());
    (1..3, json_string(), json_string(), category, data).prop_map(
        |(to, name, message, category, data)| {
            format!(
                "{{\"from\":{{\"id\":9,\"name\":{name}}},\"to\":{{\"id\":{to},\"name\":\"\"}},\
             \"message\":{message}{category}{data}}}"
            )
            .into_bytes()
        },
    )
}

fn receipt() -> impl Strategy<Value = Vec<u8>> {
    (1..3, select(&["read", "unread", "dismissed"][..]), vec(id(), 0..4)).prop_map(
        |(user, action, ids)| {
            let ids = Value::from(ids);
            format!("{{\"user_id\":{user},\"action\":\"{action}\",\"ids\":{ids}}}").into_bytes()
        },
    )
}

fn made() -> impl Strategy<Value = Made> {
    let of_receipt = any::<bool>();
    const TIMES: [&str; 3] =
        ["2026-01-01T00:00:00Z", "9999-12-30T22:00:00Z", "-009999-01-02T01:59:59Z"];
    let time = prop_oneof![bytes(), select(&TIMES[..]).prop_map(|time| time.as_bytes().to_vec())];
    let id = prop_oneof![4 => id().prop_map(String::into_bytes), 1 => bytes()];
    let timestamp = prop_oneof![any::<i64>(), 0..i64::from(u32::MAX) * 1000];
    let valid = prop_oneof![
        3 => notification().prop_map(|value| (false, value)),
        2 => receipt().prop_map(|value| (true, value)),
    ];
    let broken = (of_receipt, prop_oneof![bytes(), mutated(notification()), mutated(receipt())]);
    let value = prop_oneof![
        6 => valid.prop_map(|(receipt, value)| (receipt, Some(value))),
        2 => broken.prop_map(|(receipt, value)| (receipt, Some(value))),
        1 => any::<bool>().prop_map(|receipt| (receipt, None)),
    ];
    (value, id, time, timestamp, prop_oneof![9 => Just(0), 1 => 0..1_000_000_000_000_i64]).prop_map(
        |((receipt, value), id, time, timestamp_ms, skipped)| Made {
            receipt,
            value,
            id,
            time,
            timestamp_ms,
            skipped,
        },
    )
}

fn since() -> impl Strategy<Value = Since> {
    let offset = prop_oneof![-1..20_i64, -1..=i64::MAX];
    prop_oneof![
        Just(Since::Newest),
        Just(Since::Beginning),
        (0..2_i32, offset)
            .prop_map(|(partition, offset)| Since::Cursor(Cursor::new(partition, offset))),
        any::<i64>().prop_map(Since::Time),
    ]
}

/// Fails unless the text is one line of JSON.
fn is_one_line_of_json(json: &str) -> Result<(), TestCaseError> {
    prop_assert!(!json.contains(['\n', '\r']), "{}", json);
    let read = serde_json::from_str::<Value>(json);
    prop_assert!(read.is_ok(), "{:?} of {}", read, json);
    Ok(())
}

fn apply_records(bench: &mut Bench, made: &[Made]) {
    let mut offsets = [-1, -1];
    for one in made {
        let offset = &mut offsets[usize::from(one.receipt)];
        *offset += 1 + one.skipped;
        let record = Record {
            partition: 0,
            offset: *offset,
            timestamp_ms: one.timestamp_ms,
            key: None,
            value: one.value.as_deref(),
            headers: [("ce_id", one.id.as_slice()), ("ce_time", one.time.as_slice())]
                .into_iter()
                .collect(),
        };
        if one.receipt {
            bench.receipts.on_record(&record);
        } else {
            bench.notifications.on_record(&record);
        }
    }
}

async fn is_readable(
    bench: &Bench,
    query: &PageQuery,
    start: &FeedStart,
    which: &Selector,
) -> Result<(), TestCaseError> {
    for to in 1..3 {
        // A query ahead of the view fails after its timeout, which is 0 here.
        if let Ok(page) = bench.read(to, query).await {
            is_one_line_of_json(&page.to_json())?;
            prop_assert!(page.items.len() <= query.limit.unwrap_or(usize::MAX));
        }
        for action in ACTIONS {
            let would = bench.view.would_change(user(to), action, which, NOW).await;
            prop_assert!(would.is_ok_and(|would| would.changed.len() <= 5));
        }
        let view = Arc::clone(&bench.view);
        let Ok((mut feed, mut events)) = Feed::open(view, user(to), start.clone(), 1, NOW).await
        else {
            continue;
        };
        // The feed sends a heartbeat once it has sent every entry.
        while !matches!(events.last(), Some(FeedEvent::Heartbeat(_))) {
            events.extend(feed.heartbeat());
            prop_assert!(events.len() < 100);
        }
        for event in &events {
            let mut json = String::new();
            event.write_data(&mut json);
            if event.has_data() {
                is_one_line_of_json(&json)?;
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn for_any_records_every_page_and_event_is_one_line_of_json(
        before in vec(made(), 0..6), after in vec(made(), 0..4),
        since in since(), limit in option::of(prop_oneof![0..4_usize, any::<usize>()]),
        unread in any::<bool>(), category in option::of(text()),
        at_least in option::of(-1..30_i64), which in prop_oneof![
            Just(Selector::All),
            any::<i64>().prop_map(|offset| {
                Selector::Through(Cursor { partition: 0, offset, epoch: None })
            }),
            vec(id(), 0..4).prop_map(|ids| {
                Selector::Ids(ids.iter().filter_map(|id| NotificationId::from_text(id)).collect())
            }),
        ],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut bench = Bench::live(Limits { entries: 5, bytes: 1 << 20, age: Duration::from_secs(3600) });
            let query = PageQuery {
                since, limit, unread, category: category.clone(),
                at_least: at_least.map(|offset| Cursor::new(0, offset)), wait: NOW,
            };
            let start = FeedStart { since, limit, category: category.map(Into::into) };
            apply_records(&mut bench, &before);
            is_readable(&bench, &query, &start, &which).await?;
            bench.view.expire_entries();
            is_readable(&bench, &query, &start, &which).await?;
            let more: Vec<_> = before.iter().chain(&after).cloned().collect();
            let mut bench = Bench::live(Limits::default());
            apply_records(&mut bench, &more);
            bench.view.expire_entries();
            prop_assert!(bench.read(1, &PageQuery::default()).await.is_ok());
            Ok(())
        })?;
    }
}
