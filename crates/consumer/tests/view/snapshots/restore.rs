//! Partitions that start from a snapshot.

use super::*;

#[tokio::test]
async fn a_restored_partition_answers_only_when_both_topics_are_read_to_their_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = manager(&folder, LIMITS);
    let read = (Content::Act { of: 1, action: Action::Read, ids: vec![0] }, 0);
    let log = build_log(&[notification(1, 0), read, notification(1, 1)], Timestamp::now());
    leave_snapshot(&manager, &log[..2]).await;
    manager.load_all().await;

    let mut next = new_bench(&manager);
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
    let progress = match next.read(1, &PageQuery::default()).await {
        Err(NotLive::Rebuilding(_, progress)) => Some(progress),
        _ => None,
    };
    let progress = progress.expect("it is being read");
    assert_eq!((progress.restored, progress.records, progress.total), (1, 0, Some(1)));
    log[2].apply(&mut next);
    next.notifications.on_live(0);
    let page = next.read(1, &PageQuery::default()).await.expect("live");
    assert_eq!((page.items.len(), page.unread), (2, 1));
}

#[tokio::test]
async fn records_that_retention_has_removed_since_are_not_in_a_restored_inbox_either() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = manager(&folder, LIMITS);
    let contents: Vec<_> = (0..8).map(|n| notification(if n < 6 { 1 } else { 2 }, n)).collect();
    let log = build_log(&contents, Timestamp::now());
    leave_snapshot(&manager, &log).await;
    manager.load_all().await;
    let mut restored = new_bench(&manager);
    restored.notifications.on_assigned(0);
    restored.receipts.on_assigned(0);
    let mut whole = Bench::new(LIMITS);
    whole.assign(5);
    for bench in [&mut restored, &mut whole] {
        bench.notifications.on_watermarks(0, Watermarks { low: 5, high: 8 });
        bench.receipts.on_watermarks(0, Watermarks { low: 0, high: 0 });
    }
    log[5..].iter().for_each(|logged| drop(logged.apply(&mut whole)));
    restored.go_live();
    whole.go_live();
    assert_eq!(read_everything(&restored, 7).await, read_everything(&whole, 7).await);
}

#[tokio::test]
async fn a_log_that_lost_what_a_snapshot_has_makes_the_partition_start_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = manager(&folder, LIMITS);
    let contents: Vec<_> = (0..6).map(|n| notification(n % USERS + 1, 0)).collect();
    let log = build_log(&contents, Timestamp::now());
    let bytes = write_in_steps(&mut new_bench(&manager), &log, 2, &[(1, 2), (1, 0)]);
    // The log has lost its end, or has another record in place of the last one that the snapshot may
    // contain.
    let mut other = log.clone();
    other[3].value = log[0].value.clone();
    for (log, goes_on) in [(&log[..3], false), (&other[..], true)] {
        fs::write(manager.store.file_path(0), &bytes).expect("a file");
        manager.load_all().await;
        let mut next = new_bench(&manager);
        assert_eq!(next.notifications.take_invalidated(), None);
        let followed = resume(log, &mut next);
        assert_eq!(followed.len(), log.len() - 2);
        assert!(
            matches!(next.read(1, &PageQuery::default()).await, Err(NotLive::Rebuilding(..))),
            "{goes_on}"
        );
        assert_eq!(next.notifications.take_invalidated(), Some(0));
        // The driver's calls after an invalidation.
        next.notifications.on_reset(0, "for this test");
        next.notifications.on_revoked(0);
        assert_eq!(next.notifications.take_invalidated(), None);
        assert!(resume(log, &mut next).len() == log.len());
        assert!(next.read(1, &PageQuery::default()).await.is_ok());
    }
    // The receipts' reader may find out first.
    fs::write(manager.store.file_path(0), &bytes).expect("a file");
    manager.load_all().await;
    let mut next = new_bench(&manager);
    next.notifications.on_assigned(0);
    next.receipts.on_assigned(0);
    next.receipts.on_reset(0, "for this test");
    assert_eq!(next.notifications.take_invalidated(), Some(0));
    assert_eq!(next.receipts.on_assigned(0), StartAt::Beginning);
    next.notifications.on_reset(0, "for this test");
    next.notifications.on_revoked(0);
    next.notifications.on_assigned(0);
    // A reset that the receipts' reader reports for the previous assignment is ignored.
    next.receipts.on_reset(0, "for this test");
    assert_eq!(next.notifications.take_invalidated(), None);
}

#[tokio::test]
async fn a_receipt_that_was_read_for_an_earlier_assignment_is_not_applied() {
    let mut bench = Bench::live(LIMITS);
    let read = (Content::Act { of: 1, action: Action::Read, ids: vec![0] }, 0);
    let log = build_log(&[notification(1, 0), read], Timestamp::now());
    bench.notifications.on_revoked(0);
    bench.notifications.on_assigned(0);
    log[0].apply(&mut bench);
    log[1].apply(&mut bench);
    bench.receipts.on_assigned(0);
    bench.go_live();
    let page = bench.read(1, &PageQuery::default()).await.expect("live");
    assert_eq!((page.unread, page.version.2), (1, 0));
}

#[tokio::test]
async fn notifications_that_went_astray_are_shown_from_a_snapshot_too() {
    const PARTITIONS: u32 = 2;
    let folder = tempfile::tempdir().expect("a folder");
    let key = snapshot_key(PARTITIONS, LIMITS);
    let manager = SnapshotManager::open(folder.path(), key).expect("a folder");
    let log = build_log(&[notification(1, 0)], Timestamp::now());
    let go_live = |bench: &mut Bench| {
        for partition in 0..2 {
            bench.notifications.on_assigned(partition);
            bench.receipts.on_assigned(partition);
            bench.notifications.on_live(partition);
            bench.receipts.on_live(partition);
        }
    };
    let mut first = new_bench(&manager);
    go_live(&mut first);
    let away = 1 - first.view.home_partition(user(1));
    let headers = log[0].headers.iter().map(|(name, value)| (*name, &**value)).collect();
    first.notifications.on_record(&Record {
        partition: away,
        offset: 0,
        timestamp_ms: 0,
        key: Some(&log[0].key),
        value: Some(&log[0].value),
        headers,
    });
    first.notifications.on_revoked(away);
    manager.finish_writes(DEADLINE).await;
    manager.load_all().await;
    let mut second = new_bench(&manager);
    go_live(&mut second);
    let page = second.read(1, &PageQuery::default()).await.expect("live");
    assert_eq!(page.items.len(), 1);
}

#[tokio::test]
async fn a_snapshot_of_a_log_with_another_epoch_makes_the_partition_start_over() {
    let epochs = |bench: &mut Bench, epochs: [Option<u32>; 2]| {
        bench.notifications.on_topic_epoch(epochs[0]);
        bench.receipts.on_topic_epoch(epochs[1]);
    };
    let log = build_log(&[notification(1, 0), notification(2, 1)], Timestamp::now());
    for written in [[Some(7), Some(8)], [None, None]] {
        let folder = tempfile::tempdir().expect("a folder");
        let manager = manager(&folder, LIMITS);
        let mut before = new_bench(&manager);
        epochs(&mut before, written);
        let bytes = write_in_steps(&mut before, &log, 2, &[]);
        for (found, is_used) in [
            (written, true),
            ([Some(9), written[1]], false),
            // The receipts' topic alone was created again.
            ([written[0], Some(9)], false),
        ] {
            // The epochs become known before the assignment, or after it.
            for is_early in [true, false] {
                fs::write(manager.store.file_path(0), &bytes).expect("a file");
                manager.load_all().await;
                let mut next = new_bench(&manager);
                if is_early {
                    epochs(&mut next, found);
                }
                next.notifications.on_assigned(0);
                next.receipts.on_assigned(0);
                if !is_early {
                    epochs(&mut next, found);
                }
                let invalid = (!is_used).then_some(0);
                assert_eq!(next.notifications.take_invalidated(), invalid, "{written:?} {found:?}");
            }
        }
    }
}
