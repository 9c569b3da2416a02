//! What was acknowledged is there: after a restart, after kill -9, after a failure of the disk.

use std::{
    collections::{BTreeMap, HashSet},
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use event_log::AppendError;

use crate::harness::{
    Call, DEADLINE, FOREVER, Memory, TOPIC, World, append, eventually, join, open, record,
};

#[tokio::test]
async fn a_reopened_log_has_everything_and_its_offsets_go_on() {
    let world = World::new();
    for round in 0..3 {
        let log = world.open(2, FOREVER).await;
        for partition in [0, 1] {
            let position = append(&log.writer(), record(partition, "1", &round.to_string())).await;
            assert_eq!((position.partition, position.offset), (partition, round));
        }
        log.close().await;
    }
    let log = world.open(2, FOREVER).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    eventually("all are read", || memory.count() == 6).await;
    let all = [(0, "0".to_owned()), (1, "1".to_owned()), (2, "2".to_owned())];
    assert_eq!((memory.of(0), memory.of(1)), (all.to_vec(), all.to_vec()));
    reader.stop().await;
}

const CHILD_PATH: &str = "NOTIFICATION_LOG_TEST_PATH";
const CHILD_ROUND: &str = "NOTIFICATION_LOG_TEST_ROUND";
const PARTITIONS: u32 = 4;

/// Not a test: the process that the next one kills. It appends, and prints what is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other process of a test"]
async fn child_that_appends_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD_PATH) else { return };
    let round = std::env::var(CHILD_ROUND).expect("a round");
    let log = open(&PathBuf::from(path), PARTITIONS, FOREVER).await;
    let tasks: Vec<_> = (0..16)
        .map(|appender: u32| {
            let (writer, round) = (log.writer(), round.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    let name = format!("{round}-{appender}-{number}");
                    // Large enough that writing takes a while, which is when it is to be killed.
                    let value = format!("{name} {}", " ".repeat(65_536));
                    let partition = (appender % PARTITIONS) as i32;
                    let at = append(&writer, record(partition, "1", &value)).await;
                    let line = format!("acked {} {} {name} .\n", at.partition, at.offset);
                    std::io::stdout().lock().write_all(line.as_bytes()).expect("printed");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("an appender");
    }
}

#[tokio::test]
async fn everything_that_was_acknowledged_before_kill_9_is_there_once() {
    let world = World::new();
    let mut acknowledged: BTreeMap<(i32, i64), String> = BTreeMap::new();
    for round in 0..5 {
        // In the same file again: each time on top of what the killed one left.
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--ignored", "--exact", "durability::child_that_appends_until_it_is_killed"])
            .args(["--nocapture", "--quiet"])
            .env(CHILD_PATH, world.path())
            .env(CHILD_ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let output = child.stdout.take().expect("its output");
        let mut count = 0;
        for line in BufReader::new(output).lines() {
            let line = line.expect("text");
            let words: Vec<_> = line.split(' ').collect();
            // The last line may be cut off.
            if let ["acked", partition, offset, name, "."] = words[..] {
                let position =
                    (partition.parse().expect("a partition"), offset.parse().expect("an offset"));
                let doubled = acknowledged.insert(position, name.to_owned());
                assert_eq!(doubled, None, "no position is given twice");
                count += 1;
                if count == 100 {
                    child.kill().expect("killed");
                }
            }
        }
        assert!(count >= 100, "the child appended");
        child.wait().expect("it ended");
    }

    let log = world.open(PARTITIONS, FOREVER).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    let live = || (0..PARTITIONS as i32).all(|partition| memory.has(&Call::Live(partition)));
    eventually("all are live", live).await;
    let mut names = HashSet::new();
    for seen in memory.records() {
        let name = seen.value.trim_end().to_owned();
        if let Some(acknowledged) = acknowledged.remove(&(seen.partition, seen.offset)) {
            assert_eq!(name, acknowledged, "what is read is what was acknowledged there");
        }
        assert!(names.insert(name), "nothing is there twice");
    }
    assert!(acknowledged.is_empty(), "lost: {acknowledged:?}");
    for partition in 0..PARTITIONS as i32 {
        let offsets: Vec<_> = memory.of(partition).into_iter().map(|(offset, _)| offset).collect();
        assert!(offsets.iter().zip(0..).all(|(offset, index)| *offset == index), "no gaps");
    }
    reader.stop().await;
}

#[tokio::test]
async fn a_batch_that_cannot_be_committed_fails_as_a_whole_and_the_next_is_tried_anew() {
    let world = World::new();
    let log = world.open(2, FOREVER).await;
    let writer = log.writer();
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    append(&writer, record(0, "1", "before")).await;
    // Whoever inserts a record leaves something behind that no commit accepts.
    world
        .shell(
            "CREATE TABLE parents (id INTEGER PRIMARY KEY);
             CREATE TABLE orphans (id INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
             CREATE TRIGGER spoil AFTER INSERT ON records BEGIN INSERT INTO orphans VALUES (1); END",
        )
        .await;
    // One alone is a statement of its own, many are several in one transaction.
    for how_many in [1, 2000] {
        let acks: Vec<_> = (0..how_many)
            .map(|number| writer.append(TOPIC, record(number % 2, "1", "failed")).expect("queued"))
            .collect();
        for ack in acks {
            let failed = ack.await;
            assert!(matches!(failed, Err(AppendError::Unreachable(_))), "{failed:?}");
        }
    }
    world.shell("DROP TRIGGER spoil").await;
    log.ping(DEADLINE).await.expect("it can be written again");
    assert_eq!(append(&writer, record(0, "1", "after")).await.offset, 1);
    assert_eq!(append(&writer, record(1, "1", "after")).await.offset, 0);
    eventually("all are read", || memory.count() == 3).await;
    assert_eq!(memory.of(0), [(0, "before".to_owned()), (1, "after".to_owned())]);
    assert_eq!(memory.of(1), [(0, "after".to_owned())]);
    reader.stop().await;
}
