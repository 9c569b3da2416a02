//! Reads of parts of an inbox, and reads after a send.

use std::time::{Duration, Instant};

use e2e::{World, world::page_messages};
use reqwest::Response;
use serde_json::Value;

async fn get_path(world: &World, path: &str) -> Response {
    world.http().get(world.consumer_url(path)).send().await.expect("an answer")
}

async fn get_page(world: &World, path: &str) -> Value {
    let response = get_path(world, path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.expect("JSON")
}

pub(crate) async fn since_and_filters(world: World) {
    let mut cursors = Vec::new();
    for n in 0..6 {
        let sent = world.send(2, 1, &n.to_string()).await;
        cursors.push(sent["sent"][0]["cursor"].as_str().expect("a cursor").to_owned());
    }
    let all: Vec<_> = (0..6).map(|n| n.to_string()).collect();
    world.expect_inbox(1, &all).await;

    let found = get_page(&world, &format!("/notifications/1?since={}", cursors[3])).await;
    assert_eq!(page_messages(&found), ["4", "5"]);
    assert_eq!(found["cursor"], cursors[5]);
    let newest = get_page(&world, "/notifications/1?limit=2").await;
    assert_eq!(page_messages(&newest), ["4", "5"]);
    for since in ["all", "10m", "2020-01-01T00:00:00Z"] {
        assert_eq!(
            page_messages(&get_page(&world, &format!("/notifications/1?since={since}")).await),
            all
        );
    }
    assert!(
        page_messages(&get_page(&world, "/notifications/1?since=2099-01-01T00:00:00Z").await)
            .is_empty()
    );

    // All pages; each entry once.
    let (mut since, mut seen) = ("all".to_owned(), Vec::new());
    loop {
        let found = get_page(&world, &format!("/notifications/1?since={since}&limit=4")).await;
        seen.extend(page_messages(&found));
        since = found["cursor"].as_str().expect("a cursor").to_owned();
        if found["more"] != true {
            break;
        }
    }
    assert_eq!(seen, all);

    let foreign = get_page(&world, "/notifications/1?since=99-1").await;
    assert_eq!(
        (page_messages(&foreign), &foreign["gap"]["reason"]),
        (all, &Value::from("unknown"))
    );

    for (query, why) in [
        ("since=yesterday", "since: must be a cursor (3-1042-5f3a9c01), a time"),
        ("limit=0", "limit: must be a whole number from 1"),
        ("unread=maybe", "unread: must be true or false"),
        ("at_least=7", "at_least: must be a cursor"),
        ("at_least=99-7", "at_least: is of partition 99, but this inbox lives in"),
        ("wait=61s", "wait: must be 0 to 60 seconds"),
    ] {
        let response = get_path(&world, &format!("/notifications/1?{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
        let problem: Value = response.json().await.expect("JSON");
        assert!(problem["message"].as_str().is_some_and(|said| said.starts_with(why)), "{problem}");
    }
}

pub(crate) async fn at_least(world: World) {
    world.send(2, 1, "0").await;
    world.expect_inbox(1, &["0".into()]).await;
    for n in 1..50 {
        let sent = world.send(2, 1, &n.to_string()).await;
        let cursor = sent["sent"][0]["cursor"].as_str().expect("a cursor");
        let found = get_page(&world, &format!("/notifications/1?at_least={cursor}&limit=1")).await;
        assert_eq!(page_messages(&found), [n.to_string()], "what was sent is what is seen");
    }
}

pub(crate) async fn etag(world: World) {
    world.send(2, 1, "one").await;
    world.expect_inbox(1, &["one".into()]).await;
    let tag = get_path(&world, "/notifications/1").await.headers()["etag"].clone();
    let ask = || async {
        let request = world.http().get(world.consumer_url("/notifications/1"));
        request.header("if-none-match", tag.clone()).send().await.expect("an answer")
    };
    let unchanged = ask().await;
    assert_eq!(unchanged.status(), 304);
    assert_eq!(unchanged.headers()["etag"], tag);
    // Another user's events do not change this inbox's ETag.
    world.send(1, 3, "for another user").await;
    world.expect_inbox(3, &["for another user".into()]).await;
    assert_eq!(ask().await.status(), 304);
    world.http().post(world.consumer_url("/notifications/1/read")).send().await.expect("an answer");
    assert_eq!(ask().await.status(), 200, "that it was read is news");
}

pub(crate) async fn long_poll(world: World) {
    world.send(2, 1, "old").await;
    world.expect_inbox(1, &["old".into()]).await;
    let cursor = world.read_page(1).await["cursor"].as_str().expect("a cursor").to_owned();
    let path = format!("/notifications/1?since={cursor}&wait=30s");
    let start = Instant::now();
    let (found, ()) = tokio::join!(get_page(&world, &path), async {
        world.send(3, 1, "new").await;
    });
    assert_eq!(page_messages(&found), ["new"]);
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "answered when it came, not when the wait ended"
    );
    // A long poll without an event ends with an empty page, not an error.
    let cursor = found["cursor"].as_str().expect("a cursor");
    assert!(
        page_messages(&get_page(&world, &format!("/notifications/1?since={cursor}&wait=1")).await)
            .is_empty()
    );
}
