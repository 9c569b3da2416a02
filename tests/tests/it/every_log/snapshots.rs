//! A restart with snapshots, even damaged ones, shows the same inboxes as one without.

use std::{fs, path::Path};

use consumer::metrics::{RECORDS_FOLDED, RESTORED, SNAPSHOTS_REFUSED};
use e2e::{
    World,
    backend::Backend,
    scrape::Scrape,
    until,
    world::{PARTITIONS, home_partition},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const USERS: [i64; 3] = [1, 2, 3];

/// Starts a consumer with snapshots, and sends some notifications and receipts.
async fn start_with_snapshots(world: &mut World) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    world.stop_consumer(0).await;
    start_consumer(world, folder.path(), &[]).await;
    for n in 0..5 {
        for to in USERS {
            world.send(4, to, &format!("{n} for {to}")).await;
        }
    }
    let url = world.consumer_url("/notifications/1/read");
    let through = &await_inboxes(world, 5).await[0]["notifications"][1]["cursor"];
    let read = world.http().post(url).json(&json!({ "through": through })).send().await;
    assert_eq!(read.expect("an answer").status(), 200);
    folder
}

async fn start_consumer(world: &mut World, folder: &Path, flags: &[&str]) {
    let folder = folder.to_str().expect("UTF-8");
    let flags = [&["--snapshots", folder], flags].concat();
    world.start_consumer(0, &flags).await;
    world.await_ready(&world.consumer_url("")).await;
}

/// All inboxes, once each has `each` entries.
async fn await_inboxes(world: &World, each: usize) -> Vec<Value> {
    let mut all = Vec::new();
    for user in USERS {
        let inbox = until(|| async {
            let inbox = world.read_page(user).await;
            let length = inbox["notifications"].as_array().map(Vec::len);
            if length == Some(each) { Ok(inbox) } else { Err(inbox) }
        });
        all.push(inbox.await);
    }
    all
}

fn snapshot_file(folder: &Path, world: &World, user: i64) -> std::path::PathBuf {
    folder.join(format!("topic-{}/{}.snapshot", world.topic, home_partition(user)))
}

/// Notifications that this consumer has read from the log.
fn records_read(scrape: &Scrape) -> f64 {
    scrape.sum(RECORDS_FOLDED, &[("topic", "notifications"), ("outcome", "applied")])
}

pub(crate) async fn restart(mut world: World) {
    let folder = start_with_snapshots(&mut world).await;
    let before = await_inboxes(&world, 5).await;
    let etag = inbox_etag(&world).await;
    let restored = Scrape::fetch(&world, &world.consumer_url("")).await.sum(RESTORED, &[]);
    world.stop_consumer(0).await;
    // These are sent while no consumer runs.
    for user in USERS {
        world.send(4, user, "meanwhile").await;
    }
    start_consumer(&mut world, folder.path(), &[]).await;
    let after = await_inboxes(&world, 6).await;
    for (before, after) in before.iter().zip(&after) {
        let (before, after) = (&before["notifications"], &after["notifications"]);
        let first = after.as_array().expect("a list")[..5].to_vec();
        assert_eq!(before, &Value::from(first), "the same ids, times, marks and cursors");
    }
    assert_eq!((&after[0]["unread"], &after[1]["unread"]), (&json!(4), &json!(6)));
    let scrape = Scrape::fetch(&world, &world.consumer_url("")).await;
    assert_eq!(records_read(&scrape), 3.0, "only what came meanwhile was read: {}", scrape.text);
    assert!(scrape.sum(RESTORED, &[]) - restored >= 15.0);

    // Without new notifications, it reads none.
    world.stop_consumer(0).await;
    start_consumer(&mut world, folder.path(), &[]).await;
    assert_eq!(await_inboxes(&world, 6).await, after);
    assert_eq!(records_read(&Scrape::fetch(&world, &world.consumer_url("")).await), 0.0);
    // New notifications follow without a gap.
    assert_ne!(self::inbox_etag(&world).await, etag);
    world.send(4, 1, "later").await;
    until(|| async {
        let inbox = world.inbox(1).await;
        if inbox.len() == 7 { Ok(()) } else { Err(inbox) }
    })
    .await;
    // A consumer without snapshots answers the same bytes.
    let with = world.read_page(1).await;
    let tag = self::inbox_etag(&world).await;
    world.stop_consumer(0).await;
    world.start_consumer(0, &[]).await;
    world.await_ready(&world.consumer_url("")).await;
    assert_eq!((world.read_page(1).await, self::inbox_etag(&world).await), (with, tag));
}

async fn inbox_etag(world: &World) -> String {
    let url = world.consumer_url("/notifications/1");
    let answer = world.http().get(url).send().await.expect("an answer");
    answer.headers()["etag"].to_str().expect("text").to_owned()
}

pub(crate) async fn damaged(mut world: World) {
    let folder = start_with_snapshots(&mut world).await;
    let before = await_inboxes(&world, 5).await;
    let refused = |scrape: &Scrape, reason| scrape.sum(SNAPSHOTS_REFUSED, &[("reason", reason)]);
    let scrape = Scrape::fetch(&world, &world.consumer_url("")).await;
    let counts = ["damaged", "settings"].map(|reason| refused(&scrape, reason));
    world.stop_consumer(0).await;
    let file = snapshot_file(folder.path(), &world, 1);
    let mut bytes = fs::read(&file).expect("a snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("a file");
    start_consumer(&mut world, folder.path(), &[]).await;
    assert_eq!(await_inboxes(&world, 5).await, before);
    let scrape = Scrape::fetch(&world, &world.consumer_url("")).await;
    assert!(refused(&scrape, "damaged") > counts[0]);
    // Only this partition is read from the log; other users may be in it, too.
    let read =
        USERS.into_iter().filter(|user| home_partition(*user) == home_partition(1)).count() * 5;
    assert_eq!(records_read(&scrape), read as f64);

    // A snapshot of larger inboxes is not used for smaller ones.
    world.stop_consumer(0).await;
    start_consumer(&mut world, folder.path(), &["--inbox-entries", "3"]).await;
    let after = await_inboxes(&world, 3).await;
    for (before, after) in before.iter().zip(&after) {
        let newest = before["notifications"].as_array().expect("a list")[2..].to_vec();
        assert_eq!(after["notifications"], Value::from(newest));
    }
    let scrape = Scrape::fetch(&world, &world.consumer_url("")).await;
    assert!(refused(&scrape, "settings") > counts[1]);
    assert_eq!(records_read(&scrape), 15.0);
}

pub(crate) async fn now_and_then(mut world: World) {
    let folder = tempfile::tempdir().expect("a folder");
    world.stop_consumer(0).await;
    start_consumer(&mut world, folder.path(), &["--snapshot-every", "100ms"]).await;
    // Snapshots that a running consumer writes while notifications arrive; another process loads
    // them.
    let other = tempfile::tempdir().expect("a folder");
    let copy = other.path().join(format!("topic-{}", world.topic));
    fs::create_dir(&copy).expect("a folder");
    let file = snapshot_file(folder.path(), &world, 1);
    let mut sent = Vec::new();
    for n in 0..50 {
        sent.push(n.to_string());
        world.send(4, 1, &sent[n]).await;
    }
    // A snapshot is published after its offsets are committed, which takes seconds; the first may
    // hold only a few notifications.
    until(|| async {
        let length = file.metadata().map_or(0, |file| file.len());
        if length > 50 * 150 { Ok(()) } else { Err(length) }
    })
    .await;
    fs::copy(&file, copy.join(file.file_name().expect("a name"))).expect("a copy");
    for _ in 0..20 {
        let message = sent.len().to_string();
        world.send(4, 1, &message).await;
        sent.push(message);
    }
    world.expect_inbox(1, &sent).await;
    world.stop_consumer(0).await;
    start_consumer(&mut world, other.path(), &[]).await;
    assert_eq!(world.inbox(1).await, sent);
    let scrape = Scrape::fetch(&world, &world.consumer_url("")).await;
    let count = sent.len() as f64;
    assert!((20.0..count).contains(&records_read(&scrape)), "{} of {count}", records_read(&scrape));
}

/// Another log has topics of the same names, with the same number of records or none.
pub(crate) async fn another_log(mut world: World) {
    let folder = start_with_snapshots(&mut world).await;
    let before = await_inboxes(&world, 5).await;
    world.stop_consumer(0).await;
    for filled in [false, true] {
        let backend = match &world.backend {
            Backend::Embedded { .. } => Backend::embedded().await,
            _ => Backend::mock(&world.topic, PARTITIONS),
        };
        let copy = tempfile::tempdir().expect("a folder");
        let name = format!("topic-{}", world.topic);
        fs::create_dir(copy.path().join(&name)).expect("a folder");
        for user in USERS {
            let file = snapshot_file(folder.path(), &world, user);
            let to = copy.path().join(&name).join(file.file_name().expect("a name"));
            fs::copy(file, to).expect("a copy");
        }
        let mut other = World::with_backend(backend, world.topic.clone()).await;
        if filled {
            for n in 0..5 {
                for to in USERS {
                    other.send(4, to, &format!("{n} for {to}")).await;
                }
            }
            // Wait until the offsets are committed.
            await_inboxes(&other, 5).await;
        }
        other.stop_consumer(0).await;
        start_consumer(&mut other, copy.path(), &[]).await;
        let after = await_inboxes(&other, if filled { 5 } else { 0 }).await;
        for (before, after) in before.iter().zip(&after) {
            let (before, after) = (&before["notifications"], &after["notifications"]);
            assert_ne!(before, after, "of the other log");
        }
        let scrape = Scrape::fetch(&other, &other.consumer_url("")).await;
        assert_eq!(records_read(&scrape), if filled { 15.0 } else { 0.0 }, "everything was read");
        other.stop_consumer(0).await;
        other.stop_producer().await;
    }
}
