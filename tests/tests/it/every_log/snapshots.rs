//! What a restart with snapshots shows is what one without shows, whatever is wrong with them.

use std::{fs, path::Path};

use consumer::metrics::{RECORDS_FOLDED, RESTORED, SNAPSHOTS_REFUSED};
use e2e::{
    World,
    parts::Parts,
    scrape::Scrape,
    until,
    world::{PARTITIONS, home},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const USERS: [i64; 3] = [1, 2, 3];

/// A consumer that keeps snapshots, and a few notifications and receipts.
async fn kept(world: &mut World) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    world.stop_consumer(0).await;
    start(world, folder.path(), &[]).await;
    for n in 0..5 {
        for to in USERS {
            world.send(4, to, &format!("{n} for {to}")).await;
        }
    }
    let url = world.consumer("/notifications/1/read");
    let through = &inboxes(world, 5).await[0]["notifications"][1]["cursor"];
    let read = world.http().post(url).json(&json!({ "through": through })).send().await;
    assert_eq!(read.expect("an answer").status(), 200);
    folder
}

async fn start(world: &mut World, folder: &Path, flags: &[&str]) {
    let folder = folder.to_str().expect("UTF-8");
    let flags = [&["--snapshots", folder], flags].concat();
    world.start_consumer(0, &flags).await;
    world.ready(&world.consumer("")).await;
}

/// All inboxes, as soon as each holds so many.
async fn inboxes(world: &World, each: usize) -> Vec<Value> {
    let mut all = Vec::new();
    for user in USERS {
        let inbox = until(|| async {
            let inbox = world.read(user).await;
            let length = inbox["notifications"].as_array().map(Vec::len);
            if length == Some(each) { Ok(inbox) } else { Err(inbox) }
        });
        all.push(inbox.await);
    }
    all
}

fn file(folder: &Path, world: &World, user: i64) -> std::path::PathBuf {
    folder.join(format!("topic-{}/{}.snapshot", world.topic, home(user)))
}

/// How many notifications this consumer has read from the log.
fn folded(scrape: &Scrape) -> f64 {
    scrape.sum(RECORDS_FOLDED, &[("topic", "notifications"), ("outcome", "applied")])
}

pub(crate) async fn restart(mut world: World) {
    let folder = kept(&mut world).await;
    let before = inboxes(&world, 5).await;
    let etag = etag(&world).await;
    let restored = Scrape::of(&world, &world.consumer("")).await.sum(RESTORED, &[]);
    world.stop_consumer(0).await;
    // Nobody is there when these come.
    for user in USERS {
        world.send(4, user, "meanwhile").await;
    }
    start(&mut world, folder.path(), &[]).await;
    let after = inboxes(&world, 6).await;
    for (before, after) in before.iter().zip(&after) {
        let (before, after) = (&before["notifications"], &after["notifications"]);
        let first = after.as_array().expect("a list")[..5].to_vec();
        assert_eq!(before, &Value::from(first), "the same ids, times, marks and cursors");
    }
    assert_eq!((&after[0]["unread"], &after[1]["unread"]), (&json!(4), &json!(6)));
    let scrape = Scrape::of(&world, &world.consumer("")).await;
    assert_eq!(folded(&scrape), 3.0, "only what came meanwhile was read: {}", scrape.text);
    assert!(scrape.sum(RESTORED, &[]) - restored >= 15.0);

    // And with nothing new, not one.
    world.stop_consumer(0).await;
    start(&mut world, folder.path(), &[]).await;
    assert_eq!(inboxes(&world, 6).await, after);
    assert_eq!(folded(&Scrape::of(&world, &world.consumer("")).await), 0.0);
    // What is then received goes on from there.
    assert_ne!(self::etag(&world).await, etag);
    world.send(4, 1, "later").await;
    until(|| async {
        let inbox = world.inbox(1).await;
        if inbox.len() == 7 { Ok(()) } else { Err(inbox) }
    })
    .await;
    // One that has no snapshots says the same, word for word.
    let with = world.read(1).await;
    let tag = self::etag(&world).await;
    world.stop_consumer(0).await;
    world.start_consumer(0, &[]).await;
    world.ready(&world.consumer("")).await;
    assert_eq!((world.read(1).await, self::etag(&world).await), (with, tag));
}

async fn etag(world: &World) -> String {
    let url = world.consumer("/notifications/1");
    let answer = world.http().get(url).send().await.expect("an answer");
    answer.headers()["etag"].to_str().expect("text").to_owned()
}

pub(crate) async fn damaged(mut world: World) {
    let folder = kept(&mut world).await;
    let before = inboxes(&world, 5).await;
    let refused = |scrape: &Scrape, reason| scrape.sum(SNAPSHOTS_REFUSED, &[("reason", reason)]);
    let scrape = Scrape::of(&world, &world.consumer("")).await;
    let counts = ["damaged", "settings"].map(|reason| refused(&scrape, reason));
    world.stop_consumer(0).await;
    let file = file(folder.path(), &world, 1);
    let mut bytes = fs::read(&file).expect("a snapshot");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("a file");
    start(&mut world, folder.path(), &[]).await;
    assert_eq!(inboxes(&world, 5).await, before);
    let scrape = Scrape::of(&world, &world.consumer("")).await;
    assert!(refused(&scrape, "damaged") > counts[0]);
    // This partition alone is read; others may live in it too.
    let read = USERS.into_iter().filter(|user| home(*user) == home(1)).count() * 5;
    assert_eq!(folded(&scrape), read as f64);

    // Of an inbox that keeps less, another one's snapshot is of no use.
    world.stop_consumer(0).await;
    start(&mut world, folder.path(), &["--inbox-entries", "3"]).await;
    let after = inboxes(&world, 3).await;
    for (before, after) in before.iter().zip(&after) {
        let newest = before["notifications"].as_array().expect("a list")[2..].to_vec();
        assert_eq!(after["notifications"], Value::from(newest));
    }
    let scrape = Scrape::of(&world, &world.consumer("")).await;
    assert!(refused(&scrape, "settings") > counts[1]);
    assert_eq!(folded(&scrape), 15.0);
}

pub(crate) async fn now_and_then(mut world: World) {
    let folder = tempfile::tempdir().expect("a folder");
    world.stop_consumer(0).await;
    start(&mut world, folder.path(), &["--snapshot-every", "100ms"]).await;
    // Taken while more and more comes, by one who is still there: what another process finds.
    let other = tempfile::tempdir().expect("a folder");
    let copy = other.path().join(format!("topic-{}", world.topic));
    fs::create_dir(&copy).expect("a folder");
    let file = file(folder.path(), &world, 1);
    let mut sent = Vec::new();
    for n in 0..50 {
        sent.push(n.to_string());
        world.send(4, 1, &sent[n]).await;
    }
    // Published only when the group was told, which takes seconds; and the first may have but a few.
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
    start(&mut world, other.path(), &[]).await;
    assert_eq!(world.inbox(1).await, sent);
    let scrape = Scrape::of(&world, &world.consumer("")).await;
    let count = sent.len() as f64;
    assert!((20.0..count).contains(&folded(&scrape)), "{} of {count}", folded(&scrape));
}

/// The topics of another log have the same names, and as many records as before, or none.
pub(crate) async fn another_log(mut world: World) {
    let folder = kept(&mut world).await;
    let before = inboxes(&world, 5).await;
    world.stop_consumer(0).await;
    for filled in [false, true] {
        let parts = match &world.parts {
            Parts::Embedded { .. } => Parts::embedded().await,
            _ => Parts::mock(&world.topic, PARTITIONS),
        };
        let copy = tempfile::tempdir().expect("a folder");
        let name = format!("topic-{}", world.topic);
        fs::create_dir(copy.path().join(&name)).expect("a folder");
        for user in USERS {
            let file = file(folder.path(), &world, user);
            let to = copy.path().join(&name).join(file.file_name().expect("a name"));
            fs::copy(file, to).expect("a copy");
        }
        let mut other = World::on(parts, world.topic.clone()).await;
        if filled {
            for n in 0..5 {
                for to in USERS {
                    other.send(4, to, &format!("{n} for {to}")).await;
                }
            }
            // So that the group has been told of as much.
            inboxes(&other, 5).await;
        }
        other.stop_consumer(0).await;
        start(&mut other, copy.path(), &[]).await;
        let after = inboxes(&other, if filled { 5 } else { 0 }).await;
        for (before, after) in before.iter().zip(&after) {
            let (before, after) = (&before["notifications"], &after["notifications"]);
            assert_ne!(before, after, "of the other log");
        }
        let scrape = Scrape::of(&other, &other.consumer("")).await;
        assert_eq!(folded(&scrape), if filled { 15.0 } else { 0.0 }, "everything was read");
        other.stop_consumer(0).await;
        other.stop_producer().await;
    }
}
