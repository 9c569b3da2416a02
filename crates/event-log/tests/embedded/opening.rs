//! Opening, refusing to open, and what the refusal says.

use std::time::{Duration, Instant};

use event_log::{
    Topic, TopicError,
    embedded::{Embedded, OpenError},
};

use crate::harness::{
    Call, DEADLINE, FOREVER, Memory, TOPIC, World, append, eventually, join, record, topic,
};

#[tokio::test]
async fn a_second_opener_is_refused_and_told_who_holds_the_log() {
    let world = World::new();
    let first = world.open(1, FOREVER).await;
    let error = Embedded::open(&world.path()).await.err().expect("refused");
    assert!(matches!(error, OpenError::Held { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");
    assert!(said.contains("choose another folder"), "{said}");
    first.close().await;
    Embedded::open(&world.path()).await.expect("free once it is closed");
}

#[tokio::test]
async fn a_running_reader_keeps_the_log_in_use_after_it_was_closed() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let reader = join(&log, Memory::default());
    log.close().await;
    assert!(matches!(Embedded::open(&world.path()).await, Err(OpenError::Held { .. })));
    reader.stop().await;
    Embedded::open(&world.path()).await.expect("free once the reader has ended");
}

#[tokio::test]
async fn a_log_is_free_again_when_its_last_handle_is_dropped() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let writer = log.writer();
    drop(log);
    append(&writer, record(0, "1", "a writer keeps the log open")).await;
    drop(writer);
    let until = Instant::now() + DEADLINE;
    while Embedded::open(&world.path()).await.is_err() {
        assert!(Instant::now() < until, "still in use");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_log_of_a_newer_version_is_refused_and_left_as_it_is() {
    let world = World::new();
    world.open(1, FOREVER).await.close().await;
    world.shell("PRAGMA user_version = 9").await;
    let error = Embedded::open(&world.path()).await.err().expect("refused");
    assert!(matches!(error, OpenError::Newer { found: 9, .. }), "{error:?}");
    assert!(error.to_string().contains("Start the newer version"), "{error}");
    world.shell("PRAGMA user_version = 2").await;
    world.open(1, FOREVER).await.close().await;
}

#[tokio::test]
async fn something_that_is_no_log_is_refused() {
    let world = World::new();
    std::fs::create_dir_all(world.path().parent().expect("a folder")).expect("made");
    std::fs::write(
        world.path(),
        "a shopping list, and long enough to be a file header ".repeat(99),
    )
    .expect("written");
    let error = Embedded::open(&world.path()).await.err().expect("refused");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("Move it away"), "{error}");
}

#[tokio::test]
async fn the_database_of_something_else_is_refused() {
    let world = World::new();
    world.open(1, FOREVER).await.close().await;
    world.shell("PRAGMA application_id = 7").await;
    let error = Embedded::open(&world.path()).await.err().expect("refused");
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_told_with_its_path() {
    let world = World::new();
    world.open(1, FOREVER).await.close().await;
    // A file stands where the folder would have to be.
    let path = world.path().join("below").join("log.db");
    let error = Embedded::open(&path).await.err().expect("refused");
    assert!(matches!(error, OpenError::Create { .. }), "{error:?}");
    assert!(error.to_string().contains(path.to_str().expect("text")), "{error}");
}

#[tokio::test]
async fn another_partition_count_is_refused_and_changes_nothing() {
    let world = World::new();
    let log = world.open(3, FOREVER).await;
    for count in [2, 4] {
        let error = log.ensure_topics(&[topic(count, FOREVER)]).await.expect_err("refused");
        let told = error.to_string();
        assert!(
            matches!(error, TopicError::Partitions { found: 3, expected, .. } if expected == count)
        );
        assert!(told.starts_with(&format!("topic {TOPIC} has 3 partitions")), "{told}");
    }
    log.close().await;
    let log = Embedded::open(&world.path()).await.expect("opens");
    assert!(matches!(
        log.ensure_topics(&[topic(4, FOREVER)]).await,
        Err(TopicError::Partitions { found: 3, expected: 4, .. })
    ));
    log.ensure_topics(&[topic(3, FOREVER)]).await.expect("as it was");
}

#[tokio::test]
async fn a_topic_that_kafka_would_not_allow_is_refused() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    for (name, partitions) in [("", 1), ("a/b", 1), ("größe", 1), (&"x".repeat(250), 1), ("t", 0)]
    {
        let topic = Topic { name: name.to_owned(), ..topic(partitions, FOREVER) };
        let refused = log.ensure_topics(&[topic]).await;
        assert!(matches!(refused, Err(TopicError::Refused { .. })), "{name}: {refused:?}");
    }
}

#[tokio::test]
async fn a_topic_keeps_its_epoch_and_a_folder_made_anew_has_another() {
    let world = World::new();
    let mut epochs = Vec::new();
    for _ in 0..2 {
        let log = world.open(1, FOREVER).await;
        epochs.push(append(&log.writer(), record(0, "1", "v")).await.epoch);
        let memory = Memory::default();
        let reader = join(&log, memory.clone());
        eventually("live", || memory.has(&Call::Live(0))).await;
        assert_eq!(memory.topic_epochs(), [epochs[0]]);
        reader.stop().await;
        log.close().await;
    }
    assert!(epochs[0].is_some() && epochs[0] == epochs[1], "{epochs:?}");
    std::fs::remove_dir_all(world.path().parent().expect("a folder")).expect("removed");
    let log = world.open(1, FOREVER).await;
    assert_ne!(append(&log.writer(), record(0, "1", "v")).await.epoch, epochs[0]);
}

#[tokio::test]
async fn a_file_without_epochs_is_given_some_and_keeps_its_records() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    append(&log.writer(), record(0, "1", "old")).await;
    log.close().await;
    world.shell("ALTER TABLE topics DROP COLUMN epoch; PRAGMA user_version = 1").await;
    let log = world.open(1, FOREVER).await;
    let position = append(&log.writer(), record(0, "1", "new")).await;
    assert!(position.offset == 1 && position.epoch.is_some_and(|epoch| epoch != 0));
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_is_made_for_the_log_is_for_this_account_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a").join("b").join("log.db");
    Embedded::open(&path).await.expect("the log opens").close().await;
    for made in [folder.path().join("a"), folder.path().join("a").join("b")] {
        let mode = std::fs::metadata(&made).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{made:?}");
    }
}
