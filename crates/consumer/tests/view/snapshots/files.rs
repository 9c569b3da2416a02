//! The files: when they are written, when they are rejected, and the folder.

use super::*;

#[tokio::test]
async fn a_partition_that_was_live_is_written_when_it_is_revoked_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = manager(&folder, LIMITS);
    let log = build_log(&[notification(1, 0), notification(2, 1)], Timestamp::now());

    let mut unfinished = new_bench(&manager);
    unfinished.assign(0);
    log[0].apply(&mut unfinished);
    unfinished.notifications.on_revoked(0);
    let mut invalidated = new_bench(&manager);
    replay_all(&log, &mut invalidated);
    invalidated.notifications.on_reset(0, "for this test");
    invalidated.notifications.on_revoked(0);
    manager.finish_writes(DEADLINE).await;
    assert!(!manager.store.file_path(0).exists());

    leave_snapshot(&manager, &log).await;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &std::path::Path| {
            fs::metadata(path).expect("it is there").permissions().mode() & 0o777
        };
        let file = manager.store.file_path(0);
        assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700));
    }
    // An invalidated snapshot is gone at the next start too.
    let mut next = new_bench(&manager);
    manager.load_all().await;
    assert!(matches!(
        next.notifications.on_assigned(0),
        StartAt::After(RecordAnchor { offset: 1, .. })
    ));
    next.notifications.on_reset(0, "for this test");
    next.notifications.on_revoked(0);
    assert_eq!(next.notifications.on_assigned(0), StartAt::Beginning);
    assert!(!manager.store.file_path(0).exists());
}

#[tokio::test]
async fn a_snapshot_for_other_settings_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = manager(&folder, LIMITS);
    let log = build_log(&[notification(1, 0)], Timestamp::now());
    leave_snapshot(&manager, &log).await;
    let bytes = fs::read(manager.store.file_path(0)).expect("a file");
    let right = snapshot_key(1, LIMITS);
    assert!(read_snapshot(&*bytes, &right, 0).is_ok());
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
    for (key, number) in others {
        let refused = read_snapshot(&*bytes, &key, number);
        assert!(matches!(refused, Err(SnapshotRejected::Settings)), "{key:?}");
    }
    // Version 1 had no epochs.
    for version in [1, 3] {
        let mut other = bytes.clone();
        other[8] = version;
        let refused = read_snapshot(&*other, &right, 0);
        assert!(
            matches!(refused, Err(SnapshotRejected::Format(found)) if found == u32::from(version))
        );
    }
}

#[tokio::test]
async fn a_folder_has_one_process_and_unfinished_files_of_a_killed_one_are_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SnapshotStore::open(folder.path(), snapshot_key(1, LIMITS)).expect("a folder");
    let (older, _) = store.create_draft(0).expect("a draft");
    let (newer, _) = store.create_draft(0).expect("a draft");
    let (invalidated, _) = store.create_draft(0).expect("a draft");
    let (killed, _) = store.create_draft(0).expect("a draft");
    assert!(store.publish_draft(newer).expect("a disk"));
    assert!(!store.publish_draft(older).expect("a disk"), "there is a newer one");
    assert!(store.file_path(0).exists());
    store.invalidate(0);
    assert!(!store.publish_draft(invalidated).expect("a disk"), "it is of before");
    assert!(!store.file_path(0).exists());
    assert!(SnapshotStore::open(folder.path(), snapshot_key(1, LIMITS)).is_err(), "in use");
    std::mem::forget(killed);
    drop(store);
    let path = folder.path().join("topic-notifications");
    let files = || fs::read_dir(&path).expect("a folder").count();
    assert_eq!(files(), 2, "the lock and the unfinished one");
    let store = SnapshotStore::open(folder.path(), snapshot_key(1, LIMITS)).expect("free again");
    assert_eq!(files(), 1);
    assert!(store.read_snapshot(0).expect("nothing is fine").is_none());
}

#[tokio::test]
async fn snapshots_of_unassigned_partitions_leave_memory_and_stay_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = manager(&folder, LIMITS);
    let log = build_log(&[notification(1, 0)], Timestamp::now());
    leave_snapshot(&manager, &log).await;
    manager.load_all().await;
    manager.drop_loaded();
    assert_eq!(new_bench(&manager).notifications.on_assigned(0), StartAt::Beginning);
    assert!(manager.store.file_path(0).exists());
    // A loaded snapshot is handed out once.
    manager.load_all().await;
    let mut next = new_bench(&manager);
    let start = Instant::now();
    assert!(matches!(next.notifications.on_assigned(0), StartAt::After(_)));
    next.notifications.on_revoked(0);
    assert_eq!(next.notifications.on_assigned(0), StartAt::Beginning);
    assert!(start.elapsed() < DEADLINE);
}
