//! Snapshots: a snapshot and the records after it give the same view as the whole log; any other bytes
//! than those that were written are rejected.

mod files;
mod properties;
mod restore;

use std::{
    borrow::Cow,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use consumer::{
    snapshot::{
        SnapshotKey, SnapshotManager, SnapshotRejected, SnapshotStore, SnapshotWriter,
        decode::read_snapshot,
    },
    view::{Limits, NotLive, PageQuery, Since},
};
use event_log::{PartitionHandler, Record, RecordAnchor, RecordOutcome, StartAt, Watermarks};
use jiff::Timestamp;
use model::{
    Action, Cursor, Fingerprint, Headers, Notification, Partitioner, Receipt, User,
    record::{encode_notification, encode_receipt},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{Bench, id, totals, user};

/// So few bytes that three long entries have no room.
const LIMITS: Limits = Limits { entries: 3, bytes: 450, age: Duration::from_secs(3600) };
const USERS: i64 = 4;

fn snapshot_key(partitions: u32, limits: Limits) -> SnapshotKey {
    SnapshotKey {
        notifications: "notifications".into(),
        receipts: "notifications.receipts".into(),
        group: "notifications-group".into(),
        partitions,
        partitioner: Partitioner::default(),
        limits,
    }
}

/// A record of either topic.
#[derive(Debug, Clone)]
struct LoggedRecord {
    receipt: bool,
    offset: i64,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<(&'static str, Cow<'static, [u8]>)>,
}

impl LoggedRecord {
    fn apply(&self, bench: &mut Bench) -> RecordOutcome {
        let headers = self.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let record = Record {
            partition: 0,
            offset: self.offset,
            timestamp_ms: 0,
            key: Some(&self.key),
            value: Some(&self.value),
            headers,
        };
        if self.receipt {
            bench.receipts.on_record(&record)
        } else {
            bench.notifications.on_record(&record)
        }
    }
}

/// The content of a record without its offset.
#[derive(Debug, Clone)]
enum Content {
    Notify { to: i64, id: usize, old: bool, content: Option<u64> },
    Act { of: i64, action: Action, ids: Vec<usize> },
    Garbage { receipt: bool },
}

fn content() -> impl Strategy<Value = Content> {
    // Few of each, so that they collide: duplicates, reused keys, receipts for absent entries.
    let id = 0..9_usize;
    let notify = (1..=USERS, id.clone(), prop::bool::weighted(0.15), option::of(1..3_u64))
        .prop_map(|(to, id, old, content)| Content::Notify { to, id, old, content });
    let action = select(&[Action::Read, Action::Unread, Action::Dismissed][..]);
    let act = (1..=USERS, action, vec(id, 1..4)).prop_map(|(of, action, ids)| Content::Act {
        of,
        action,
        ids,
    });
    prop_oneof![
        6 => notify,
        4 => act,
        1 => any::<bool>().prop_map(|receipt| Content::Garbage { receipt }),
    ]
}

/// A log with these records, in the order in which they are applied.
fn build_log(contents: &[(Content, i64)], now: Timestamp) -> Vec<LoggedRecord> {
    let mut next = [0, 0];
    let mut log = Vec::new();
    for (contents, skipped) in contents {
        let headers = |id| Headers { id, sent_at: now, traceparent: None, fingerprint: None };
        let (receipt, record) = match contents {
            Content::Notify { to, id: n, old, content } => {
                let from = User { id: user(9), name: "Nine".into() };
                let to = User { id: user(*to), name: "To".into() };
                let notification = Notification {
                    category: (n % 2 == 0).then(|| "even".into()),
                    ..Notification::new(from, to, format!("{n} {content:?}"))
                };
                let ago = jiff::SignedDuration::from_secs(if *old { 7200 } else { 0 });
                let fingerprint = content.map(Fingerprint::from_bits);
                let headers = Headers { sent_at: now - ago, fingerprint, ..headers(id(*n)) };
                (false, encode_notification(&notification, &headers).expect("JSON"))
            }
            Content::Act { of, action, ids } => {
                let ids = ids.iter().copied().map(id).collect();
                let receipt = Receipt { user_id: user(*of), action: *action, ids };
                (true, encode_receipt(&receipt, &headers(id(0))).expect("JSON"))
            }
            Content::Garbage { receipt } => {
                let mut record = model::record::encode_canary(now);
                record.key = b"1".into();
                (*receipt, record)
            }
        };
        let next = &mut next[usize::from(receipt)];
        *next += skipped;
        let (key, value, headers) = (record.key, record.value, record.headers);
        log.push(LoggedRecord { receipt, offset: *next, key, value, headers });
        *next += 1;
    }
    log
}

/// A view with snapshots, not assigned yet.
fn new_bench(manager: &Arc<SnapshotManager>) -> Bench {
    let key = &manager.store.key;
    Bench::with_snapshots(key.partitions, key.limits, Some(Arc::clone(manager)))
}

/// Everything that readers can see.
async fn read_everything(bench: &Bench, last: i64) -> Vec<String> {
    let mut all = Vec::new();
    for user in 1..=USERS {
        let unread = PageQuery { unread: true, ..PageQuery::default() };
        let mut queries = vec![PageQuery::default(), unread];
        let cursor = |offset| Since::Cursor(Cursor::new(0, offset));
        queries
            .extend((-1..=last).map(|at| PageQuery { since: cursor(at), ..PageQuery::default() }));
        for query in queries {
            let page = bench.read(user, &query).await.expect("live");
            all.push(format!("{user} {:?} {} {:?}", query.since, page.to_json(), page.version));
        }
    }
    let totals = totals(bench).inboxes;
    all.push(format!("{} {}", totals.entries, totals.bytes));
    all
}

fn end_offsets(log: &[LoggedRecord]) -> [i64; 2] {
    [false, true].map(|receipts| {
        let of = log.iter().rev().find(|logged| logged.receipt == receipts);
        of.map_or(0, |logged| logged.offset + 1)
    })
}

fn set_watermarks(bench: &mut Bench, log: &[LoggedRecord]) {
    let [notifications, receipts] = end_offsets(log);
    bench.notifications.on_watermarks(0, Watermarks { low: 0, high: notifications });
    bench.receipts.on_watermarks(0, Watermarks { low: 0, high: receipts });
}

/// Applies the whole log. Returns the outcome of each record.
fn replay_all(log: &[LoggedRecord], bench: &mut Bench) -> Vec<RecordOutcome> {
    bench.assign(0);
    set_watermarks(bench, log);
    let outcomes = log.iter().map(|logged| logged.apply(bench)).collect();
    bench.go_live();
    outcomes
}

/// Restores the snapshot and applies the records after it, as the drivers do. Returns their indices
/// and outcomes.
fn resume(log: &[LoggedRecord], bench: &mut Bench) -> Vec<(usize, RecordOutcome)> {
    let starts = [bench.notifications.on_assigned(0), bench.receipts.on_assigned(0)];
    let anchored = starts.map(|start| match start {
        StartAt::Beginning => -1,
        StartAt::After(anchor) => anchor.offset,
    });
    set_watermarks(bench, log);
    let mut outcomes = Vec::new();
    for (index, logged) in log.iter().enumerate() {
        if logged.offset > anchored[usize::from(logged.receipt)] {
            outcomes.push((index, logged.apply(bench)));
        }
    }
    bench.go_live();
    outcomes
}

/// A snapshot in memory that begins after `first` records. Each step writes that many users, then
/// applies that many records.
fn write_in_steps(
    bench: &mut Bench,
    log: &[LoggedRecord],
    first: usize,
    steps: &[(usize, usize)],
) -> Vec<u8> {
    bench.assign(0);
    bench.go_live();
    let mut records = log.iter();
    for logged in records.by_ref().take(first) {
        logged.apply(bench);
    }
    let key = snapshot_key(1, LIMITS);
    let mut writer =
        SnapshotWriter::begin(&bench.view, &key, 0, Vec::new()).expect("memory").expect("live");
    let mut steps = steps.iter();
    loop {
        let (users, between) = steps.next().copied().unwrap_or((1, 0));
        let more = writer.write_step(users).expect("a step");
        for logged in records.by_ref().take(between) {
            logged.apply(bench);
        }
        if !more {
            return writer.finish().expect("an end").0;
        }
    }
}

fn manager(folder: &tempfile::TempDir, limits: Limits) -> Arc<SnapshotManager> {
    SnapshotManager::open(folder.path(), snapshot_key(1, limits)).expect("a folder")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Longer than any step of these tests, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(60);

fn notification(to: i64, id: usize) -> (Content, i64) {
    (Content::Notify { to, id, old: false, content: None }, 0)
}

/// Writes a snapshot of these records, as a process does at its end.
async fn leave_snapshot(manager: &Arc<SnapshotManager>, log: &[LoggedRecord]) {
    let mut before = new_bench(manager);
    replay_all(log, &mut before);
    before.notifications.on_revoked(0);
    manager.finish_writes(DEADLINE).await;
    assert!(manager.store.file_path(0).exists());
}
