//! A snapshot and what follows it are the same as everything from the beginning; anything else than
//! what was written is refused.

use std::{
    borrow::Cow,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use consumer::view::{
    Limits, NotLive, Query, Since, SnapshotManager, View,
    fold::{Notifications, Receipts, SayLive},
    snapshot::{Refused, SnapshotKey, decode, store::Store, taking::Taking},
};
use event_log::{PartitionHandler, Record, RecordAnchor, RecordOutcome, StartAt, Watermarks};
use jiff::Timestamp;
use model::{
    Action, Cursor, Fingerprint, Headers, Notification, Partitioner, Receipt, User,
    record::{encode_notification, encode_receipt},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{Bench, NOW, Nobody, held, id, user};

const LIMITS: Limits = Limits { entries: 3, age: Duration::from_secs(3600) };
const USERS: i64 = 4;

fn about(partitions: u32, limits: Limits) -> SnapshotKey {
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
struct Logged {
    receipt: bool,
    offset: i64,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<(&'static str, Cow<'static, [u8]>)>,
}

impl Logged {
    fn fold(&self, bench: &mut Bench) -> RecordOutcome {
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

/// What a record says; offsets come later.
#[derive(Debug, Clone)]
enum Said {
    Notify { to: i64, id: usize, old: bool, content: Option<u64> },
    Act { of: i64, action: Action, ids: Vec<usize> },
    Rubbish { receipt: bool },
}

fn said() -> impl Strategy<Value = Said> {
    // Few of each, so that they meet: duplicates, reused keys, receipts for what is not there.
    let id = 0..9_usize;
    let notify = (1..=USERS, id.clone(), prop::bool::weighted(0.15), option::of(1..3_u64))
        .prop_map(|(to, id, old, content)| Said::Notify { to, id, old, content });
    let action = select(&[Action::Read, Action::Unread, Action::Dismissed][..]);
    let act = (1..=USERS, action, vec(id, 1..4)).prop_map(|(of, action, ids)| Said::Act {
        of,
        action,
        ids,
    });
    prop_oneof![
        6 => notify,
        4 => act,
        1 => any::<bool>().prop_map(|receipt| Said::Rubbish { receipt }),
    ]
}

/// The log of all that, in the order in which it is folded.
fn logged(said: &[(Said, i64)], now: Timestamp) -> Vec<Logged> {
    let mut next = [0, 0];
    let mut log = Vec::new();
    for (said, skipped) in said {
        let headers = |id| Headers { id, sent_at: now, traceparent: None, fingerprint: None };
        let (receipt, record) = match said {
            Said::Notify { to, id: n, old, content } => {
                let notification = Notification {
                    from: User { id: user(9), name: "Nine".into() },
                    to: User { id: user(*to), name: "To".into() },
                    message: format!("{n} {content:?}").into(),
                    category: (n % 2 == 0).then(|| "even".into()),
                    link: None,
                    data: None,
                };
                let ago = jiff::SignedDuration::from_secs(if *old { 7200 } else { 0 });
                let fingerprint = content.map(Fingerprint::from_bits);
                let headers = Headers { sent_at: now - ago, fingerprint, ..headers(id(*n)) };
                (false, encode_notification(&notification, &headers).expect("JSON"))
            }
            Said::Act { of, action, ids } => {
                let ids = ids.iter().copied().map(id).collect();
                let receipt = Receipt { user_id: user(*of), action: *action, ids };
                (true, encode_receipt(&receipt, &headers(id(0))).expect("JSON"))
            }
            Said::Rubbish { receipt } => {
                let mut record = model::record::encode_canary(now);
                record.key = b"1".into();
                (*receipt, record)
            }
        };
        let next = &mut next[usize::from(receipt)];
        *next += skipped;
        let (key, value, headers) = (record.key, record.value, record.headers);
        log.push(Logged { receipt, offset: *next, key, value, headers });
        *next += 1;
    }
    log
}

/// A view that keeps snapshots, not assigned yet.
fn bench(keeping: &Arc<SnapshotManager>) -> Bench {
    let bench = Bench::new(keeping.store().about().limits);
    bench.view.keep(Arc::clone(keeping));
    bench
}

/// All that a reader can see.
async fn seen(bench: &Bench, last: i64) -> Vec<String> {
    let mut all = Vec::new();
    for user in 1..=USERS {
        let unread = Query { unread: true, ..Query::default() };
        let mut queries = vec![Query::default(), unread];
        let cursor = |offset| Since::Cursor(Cursor::new(0, offset));
        queries.extend((-1..=last).map(|at| Query { since: cursor(at), ..Query::default() }));
        for query in queries {
            let page = bench.read(user, &query).await.expect("live");
            all.push(format!("{user} {:?} {} {:?}", query.since, page.to_json(), page.version));
        }
    }
    let tally = held(bench).tally;
    all.push(format!("{} {}", tally.entries, tally.bytes));
    all
}

fn ends(log: &[Logged]) -> [i64; 2] {
    [false, true].map(|receipts| {
        let of = log.iter().rev().find(|logged| logged.receipt == receipts);
        of.map_or(0, |logged| logged.offset + 1)
    })
}

fn extents(bench: &mut Bench, log: &[Logged]) {
    let [notifications, receipts] = ends(log);
    bench.notifications.on_watermarks(0, Watermarks { low: 0, high: notifications });
    bench.receipts.on_watermarks(0, Watermarks { low: 0, high: receipts });
}

/// Everything from the beginning; and what became of each record.
fn replayed(log: &[Logged], bench: &mut Bench) -> Vec<RecordOutcome> {
    bench.assign(0);
    extents(bench, log);
    let verdicts = log.iter().map(|logged| logged.fold(bench)).collect();
    bench.go_live();
    verdicts
}

/// The snapshot's, and what follows it, as the log's drivers give it; what became of that.
fn resumed(log: &[Logged], bench: &mut Bench) -> Vec<(usize, RecordOutcome)> {
    let starts = [bench.notifications.on_assigned(0), bench.receipts.on_assigned(0)];
    let marks = starts.map(|start| match start {
        StartAt::Beginning => -1,
        StartAt::After(mark) => mark.offset,
    });
    extents(bench, log);
    let mut verdicts = Vec::new();
    for (index, logged) in log.iter().enumerate() {
        if logged.offset > marks[usize::from(logged.receipt)] {
            verdicts.push((index, logged.fold(bench)));
        }
    }
    bench.go_live();
    verdicts
}

/// A snapshot in memory, taken while the log goes on: after `first` records, then so many users and
/// so many records in turn.
fn taken(bench: &mut Bench, log: &[Logged], first: usize, steps: &[(usize, usize)]) -> Vec<u8> {
    bench.assign(0);
    bench.go_live();
    let mut records = log.iter();
    for logged in records.by_ref().take(first) {
        logged.fold(bench);
    }
    let about = about(1, LIMITS);
    let mut taking =
        Taking::begin(&bench.view, &about, 0, Vec::new()).expect("memory").expect("live");
    let mut steps = steps.iter();
    loop {
        let (users, between) = steps.next().copied().unwrap_or((1, 0));
        let more = taking.step(users).expect("a step");
        for logged in records.by_ref().take(between) {
            logged.fold(bench);
        }
        if !more {
            return taking.end().expect("an end").0;
        }
    }
}

fn keeping(folder: &tempfile::TempDir, limits: Limits) -> Arc<SnapshotManager> {
    SnapshotManager::open(folder.path(), about(1, limits)).expect("a folder")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_snapshot_taken_in_steps_and_what_follows_are_the_same_as_everything_from_the_beginning(
        said in vec((said(), 0..3_i64), 0..80),
        first in 0..60_usize,
        steps in vec((1..3_usize, 0..8_usize), 0..5),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = logged(&said, Timestamp::now());
        let last = ends(&log)[0];
        runtime().block_on(async {
            let keeping = keeping(&folder, LIMITS);
            let bytes = taken(&mut bench(&keeping), &log, first.min(log.len()), &steps);
            fs::write(keeping.store().path(0), bytes).expect("a file");
            keeping.load().await;

            let mut whole = Bench::new(LIMITS);
            let verdicts = replayed(&log, &mut whole);
            let mut restored = bench(&keeping);
            let of_tail = resumed(&log, &mut restored);
            prop_assert_eq!(seen(&restored, last).await, seen(&whole, last).await);
            for (index, verdict) in of_tail {
                prop_assert_eq!(&verdict, &verdicts[index], "record {}", index);
            }
            // And so is what is kept of that in its turn.
            restored.notifications.on_revoked(0);
            keeping.finish(crate::snapshots::DEADLINE).await;
            keeping.load().await;
            let mut again = bench(&keeping);
            prop_assert!(resumed(&log, &mut again).is_empty());
            prop_assert_eq!(seen(&again, last).await, seen(&whole, last).await);
            Ok(())
        })?;
    }

    #[test]
    fn what_was_changed_cut_or_continued_is_refused(
        said in vec((said(), 0..3_i64), 0..40),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        more in vec(any::<u8>(), 1..20),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = logged(&said, Timestamp::now());
        let _guard = runtime();
        let _in_it = _guard.enter();
        let keeping = keeping(&folder, LIMITS);
        let whole = taken(&mut bench(&keeping), &log, log.len() / 2, &[(1, 3), (1, 3)]);
        let about = about(1, LIMITS);
        prop_assert!(decode::read(&*whole, &about, 0).is_ok());

        let index = at.index(whole.len());
        let mut changed = whole.clone();
        changed[index] ^= 1 << bit;
        prop_assert!(decode::read(&*changed, &about, 0).is_err(), "byte {}", index);
        prop_assert!(decode::read(&whole[..index], &about, 0).is_err(), "cut at {}", index);
        let continued = [&*whole, &*more].concat();
        prop_assert!(decode::read(&*continued, &about, 0).is_err());
    }
}

/// Longer than anything here takes, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(60);

fn notification(to: i64, id: usize) -> (Said, i64) {
    (Said::Notify { to, id, old: false, content: None }, 0)
}

/// A snapshot of these, as the end of a process leaves it.
async fn left(keeping: &Arc<SnapshotManager>, log: &[Logged]) {
    let mut before = bench(keeping);
    replayed(log, &mut before);
    before.notifications.on_revoked(0);
    keeping.finish(DEADLINE).await;
    assert!(keeping.store().path(0).exists());
}

#[tokio::test]
async fn a_partition_that_was_live_is_written_when_it_is_revoked_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeping = keeping(&folder, LIMITS);
    let log = logged(&[notification(1, 0), notification(2, 1)], Timestamp::now());

    let mut unfinished = bench(&keeping);
    unfinished.assign(0);
    log[0].fold(&mut unfinished);
    unfinished.notifications.on_revoked(0);
    let mut void = bench(&keeping);
    replayed(&log, &mut void);
    void.notifications.on_reset(0, "for this test");
    void.notifications.on_revoked(0);
    keeping.finish(DEADLINE).await;
    assert!(!keeping.store().path(0).exists());

    left(&keeping, &log).await;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &std::path::Path| {
            fs::metadata(path).expect("it is there").permissions().mode() & 0o777
        };
        let file = keeping.store().path(0);
        assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700));
    }
    // What turns out to be void is not there at the next start either.
    let mut next = bench(&keeping);
    keeping.load().await;
    assert!(matches!(
        next.notifications.on_assigned(0),
        StartAt::After(RecordAnchor { offset: 1, .. })
    ));
    next.notifications.on_reset(0, "for this test");
    next.notifications.on_revoked(0);
    assert_eq!(next.notifications.on_assigned(0), StartAt::Beginning);
    assert!(!keeping.store().path(0).exists());
}

#[tokio::test]
async fn a_restored_partition_answers_only_when_both_topics_are_read_to_their_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeping = keeping(&folder, LIMITS);
    let read = (Said::Act { of: 1, action: Action::Read, ids: vec![0] }, 0);
    let log = logged(&[notification(1, 0), read, notification(1, 1)], Timestamp::now());
    left(&keeping, &log[..2]).await;
    keeping.load().await;

    let mut next = bench(&keeping);
    next.notifications.on_assigned(0);
    next.notifications.on_watermarks(0, Watermarks { low: 0, high: 2 });
    assert_eq!(next.receipts.on_assigned(0), {
        let headers = log[1].headers.iter().map(|(name, value)| (*name, &**value));
        let (key, value) = (Some(&*log[1].key), Some(&*log[1].value));
        let headers = headers.collect();
        let record = Record { partition: 0, offset: 0, timestamp_ms: 0, key, value, headers };
        StartAt::After(record.anchor())
    });
    next.receipts.on_watermarks(0, Watermarks { low: 0, high: 1 });
    next.receipts.on_live(0);
    let progress = match next.read(1, &Query::default()).await {
        Err(NotLive::Rebuilding { progress, .. }) => Some(progress),
        _ => None,
    };
    let progress = progress.expect("it is being read");
    assert_eq!((progress.restored, progress.records, progress.total), (1, 0, Some(1)));
    log[2].fold(&mut next);
    next.notifications.on_live(0);
    let page = next.read(1, &Query::default()).await.expect("live");
    assert_eq!((page.items.len(), page.unread), (2, 1));
}

#[tokio::test]
async fn what_retention_has_removed_since_is_not_in_a_restored_inbox_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeping = keeping(&folder, LIMITS);
    let said: Vec<_> = (0..8).map(|n| notification(if n < 6 { 1 } else { 2 }, n)).collect();
    let log = logged(&said, Timestamp::now());
    left(&keeping, &log).await;
    keeping.load().await;
    let mut restored = bench(&keeping);
    restored.notifications.on_assigned(0);
    restored.receipts.on_assigned(0);
    let mut whole = Bench::new(LIMITS);
    whole.assign(5);
    for bench in [&mut restored, &mut whole] {
        bench.notifications.on_watermarks(0, Watermarks { low: 5, high: 8 });
        bench.receipts.on_watermarks(0, Watermarks { low: 0, high: 0 });
    }
    log[5..].iter().for_each(|logged| drop(logged.fold(&mut whole)));
    restored.go_live();
    whole.go_live();
    assert_eq!(seen(&restored, 7).await, seen(&whole, 7).await);
}

#[tokio::test]
async fn a_log_that_lost_what_a_snapshot_has_makes_the_partition_start_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeping = keeping(&folder, LIMITS);
    let said: Vec<_> = (0..6).map(|n| notification(n % USERS + 1, 0)).collect();
    let log = logged(&said, Timestamp::now());
    let bytes = taken(&mut bench(&keeping), &log, 2, &[(1, 2), (1, 0)]);
    // The end of the log, or another record in the place of the last that the snapshot may have.
    let mut other = log.clone();
    other[3].value = log[0].value.clone();
    for (log, goes_on) in [(&log[..3], false), (&other[..], true)] {
        fs::write(keeping.store().path(0), &bytes).expect("a file");
        keeping.load().await;
        let mut next = bench(&keeping);
        assert_eq!(next.notifications.take_invalidated(), None);
        let followed = resumed(log, &mut next);
        assert_eq!(followed.len(), log.len() - 2);
        assert!(
            matches!(next.read(1, &Query::default()).await, Err(NotLive::Rebuilding { .. })),
            "{goes_on}"
        );
        assert_eq!(next.notifications.take_invalidated(), Some(0));
        // As the log's driver does then.
        next.notifications.on_reset(0, "it is stale");
        next.notifications.on_revoked(0);
        assert_eq!(next.notifications.take_invalidated(), None);
        assert!(resumed(log, &mut next).len() == log.len());
        assert!(next.read(1, &Query::default()).await.is_ok());
    }
    // The receipts' reader may be the one who finds out.
    fs::write(keeping.store().path(0), &bytes).expect("a file");
    keeping.load().await;
    let mut next = bench(&keeping);
    next.notifications.on_assigned(0);
    next.receipts.on_assigned(0);
    next.receipts.on_reset(0, "for this test");
    assert_eq!(next.notifications.take_invalidated(), Some(0));
    assert_eq!(next.receipts.on_assigned(0), StartAt::Beginning);
    next.notifications.on_reset(0, "it is stale");
    next.notifications.on_revoked(0);
    next.notifications.on_assigned(0);
    // A word that is still on its way from before is of no account now.
    next.receipts.on_reset(0, "for this test");
    assert_eq!(next.notifications.take_invalidated(), None);
}

#[tokio::test]
async fn a_receipt_that_is_still_on_its_way_from_an_earlier_assignment_is_not_folded() {
    let mut bench = Bench::live(LIMITS);
    let read = (Said::Act { of: 1, action: Action::Read, ids: vec![0] }, 0);
    let log = logged(&[notification(1, 0), read], Timestamp::now());
    bench.notifications.on_revoked(0);
    bench.notifications.on_assigned(0);
    log[0].fold(&mut bench);
    log[1].fold(&mut bench);
    bench.receipts.on_assigned(0);
    bench.go_live();
    let page = bench.read(1, &Query::default()).await.expect("live");
    assert_eq!((page.unread, page.version.2), (1, 0));
}

#[tokio::test]
async fn a_snapshot_for_other_settings_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeping = keeping(&folder, LIMITS);
    let log = logged(&[notification(1, 0)], Timestamp::now());
    left(&keeping, &log).await;
    let bytes = fs::read(keeping.store().path(0)).expect("a file");
    let right = about(1, LIMITS);
    assert!(decode::read(&*bytes, &right, 0).is_ok());
    let others = [
        (SnapshotKey { notifications: "other".into(), ..right.clone() }, 0),
        (SnapshotKey { receipts: "other".into(), ..right.clone() }, 0),
        (SnapshotKey { group: "other".into(), ..right.clone() }, 0),
        (SnapshotKey { partitions: 2, ..right.clone() }, 0),
        (SnapshotKey { partitioner: Partitioner::Crc32, ..right.clone() }, 0),
        (SnapshotKey { limits: Limits { entries: 4, ..LIMITS }, ..right.clone() }, 0),
        (
            SnapshotKey {
                limits: Limits { age: Duration::from_secs(1), ..LIMITS },
                ..right.clone()
            },
            0,
        ),
        (right.clone(), 1),
    ];
    for (about, number) in others {
        let refused = decode::read(&*bytes, &about, number);
        assert!(matches!(refused, Err(Refused::Settings)), "{about:?}");
    }
    let mut newer = bytes;
    newer[8] += 1;
    assert!(matches!(decode::read(&*newer, &right, 0), Err(Refused::Format(2))));
}

#[tokio::test]
async fn a_folder_is_one_process_s_and_what_a_killed_one_left_unfinished_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path(), about(1, LIMITS)).expect("a folder");
    let (older, _) = store.draft(0).expect("a draft");
    let (newer, _) = store.draft(0).expect("a draft");
    let (void, _) = store.draft(0).expect("a draft");
    let (killed, _) = store.draft(0).expect("a draft");
    assert!(store.publish(newer).expect("a disk"));
    assert!(!store.publish(older).expect("a disk"), "there is a newer one");
    assert!(store.path(0).exists());
    store.void(0);
    assert!(!store.publish(void).expect("a disk"), "it is of before");
    assert!(!store.path(0).exists());
    assert!(Store::open(folder.path(), about(1, LIMITS)).is_err(), "in use");
    std::mem::forget(killed);
    drop(store);
    let path = folder.path().join("topic-notifications");
    let files = || fs::read_dir(&path).expect("a folder").count();
    assert_eq!(files(), 2, "the lock and the unfinished one");
    let store = Store::open(folder.path(), about(1, LIMITS)).expect("free again");
    assert_eq!(files(), 1);
    assert!(store.read(0).expect("nothing is fine").is_none());
}

#[tokio::test]
async fn notifications_that_went_astray_are_shown_from_a_snapshot_too() {
    const PARTITIONS: u32 = 2;
    let folder = tempfile::tempdir().expect("a folder");
    let about = about(PARTITIONS, LIMITS);
    let keeping = SnapshotManager::open(folder.path(), about).expect("a folder");
    let view = || {
        let view = Arc::new(View::new(PARTITIONS, Partitioner::default(), LIMITS));
        view.keep(Arc::clone(&keeping));
        let say: SayLive = Arc::new(|_| ());
        let mut notifications =
            Notifications::into(Arc::clone(&view), "n".into(), Nobody, Arc::clone(&say));
        notifications.renew_lease();
        (Arc::clone(&view), notifications, Receipts::into(view, "r".into(), say))
    };
    let log = logged(&[notification(1, 0)], Timestamp::now());
    let (first, mut notifications, mut receipts) = view();
    let go_live = |notifications: &mut Notifications<Nobody>, receipts: &mut Receipts| {
        for partition in 0..2 {
            notifications.on_assigned(partition);
            receipts.on_assigned(partition);
            notifications.on_live(partition);
            receipts.on_live(partition);
        }
    };
    go_live(&mut notifications, &mut receipts);
    let away = 1 - first.home(user(1));
    let headers = log[0].headers.iter().map(|(name, value)| (*name, &**value)).collect();
    notifications.on_record(&Record {
        partition: away,
        offset: 0,
        timestamp_ms: 0,
        key: Some(&log[0].key),
        value: Some(&log[0].value),
        headers,
    });
    notifications.on_revoked(away);
    keeping.finish(DEADLINE).await;
    keeping.load().await;
    let (second, mut notifications, mut receipts) = view();
    go_live(&mut notifications, &mut receipts);
    let page = second.read(user(1), &Query::default(), NOW).await.expect("live");
    assert_eq!(page.items.len(), 1);
}

#[tokio::test]
async fn what_nobody_was_assigned_is_forgotten_and_stays_on_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let keeping = keeping(&folder, LIMITS);
    let log = logged(&[notification(1, 0)], Timestamp::now());
    left(&keeping, &log).await;
    keeping.load().await;
    keeping.forget();
    assert_eq!(bench(&keeping).notifications.on_assigned(0), StartAt::Beginning);
    assert!(keeping.store().path(0).exists());
    // Once is enough, too.
    keeping.load().await;
    let mut next = bench(&keeping);
    let start = Instant::now();
    assert!(matches!(next.notifications.on_assigned(0), StartAt::After(_)));
    next.notifications.on_revoked(0);
    assert_eq!(next.notifications.on_assigned(0), StartAt::Beginning);
    assert!(start.elapsed() < DEADLINE);
}
