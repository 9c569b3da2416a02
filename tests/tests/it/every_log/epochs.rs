//! Cursors and entity tags of another log: of a topic that was created again, of another cluster, or
//! of a folder that was made anew.

use e2e::{
    World,
    backend::Backend,
    stream_client::{StreamClient, Transport},
    world::page_messages,
};
use model::Cursor;
use reqwest::Response;
use serde_json::{Value, json};

/// Sends user 1 these messages, and returns their cursors once the inbox shows them.
async fn send_and_await(world: &World, messages: &[&str]) -> Vec<Cursor> {
    let mut cursors = Vec::new();
    for message in messages {
        let sent = world.send(2, 1, message).await;
        cursors.push(parse_cursor(&sent["sent"][0]["cursor"]));
    }
    world.expect_inbox(1, &messages.iter().map(ToString::to_string).collect::<Vec<_>>()).await;
    cursors
}

fn parse_cursor(text: &Value) -> Cursor {
    text.as_str().and_then(|text| text.parse().ok()).expect("a cursor")
}

async fn get(world: &World, query: &str, tag: Option<&str>) -> Response {
    let url = world.consumer_url(&format!("/notifications/1{query}"));
    let mut request = world.http().get(url);
    if let Some(tag) = tag {
        request = request.header("if-none-match", tag);
    }
    request.send().await.expect("an answer")
}

async fn inbox_etag(world: &World) -> String {
    get(world, "", None).await.headers()["etag"].to_str().expect("text").to_owned()
}

/// A world of the same kind, with a log of its own.
async fn another_world(world: &World) -> World {
    match world.backend {
        Backend::Embedded { .. } => World::embedded().await,
        Backend::Mock { .. } => World::mock().await,
        Backend::Real { .. } => World::real().await,
    }
}

pub(crate) async fn another_log(world: World) {
    const NEW: [&str; 3] = ["new 0", "new 1", "new 2"];
    let old = another_world(&world).await;
    let kept = send_and_await(&old, &["old 0", "old 1", "old 2"]).await[1];
    let tag = inbox_etag(&old).await;
    drop(old);
    // The logs have the same partitions, and as many records at the same offsets.
    let cursors = send_and_await(&world, &NEW).await;
    let (own, epoch) = (cursors[1], cursors[1].epoch);
    assert_eq!((own.partition, own.offset), (kept.partition, kept.offset));
    assert!(epoch.is_some() && kept.epoch.is_some() && epoch != kept.epoch, "{own} {kept}");

    assert_eq!(get(&world, "", Some(&tag)).await.status(), 200, "other content: {tag}");
    let own_tag = inbox_etag(&world).await;
    assert_eq!(get(&world, "", Some(&own_tag)).await.status(), 304);
    let page_since = async |cursor: Cursor| -> Value {
        get(&world, &format!("?since={cursor}"), None).await.json().await.expect("JSON")
    };
    let page = page_since(own).await;
    assert_eq!((page_messages(&page), &page["gap"]), (vec!["new 2".to_owned()], &Value::Null));

    // Of another log, and as it was written before cursors had epochs.
    for other in [kept, kept.with_epoch(None)] {
        let gap = json!({ "reason": "unknown", "after": other.to_string(), "through": cursors[2].to_string() });
        let page = page_since(other).await;
        assert_eq!((page_messages(&page).len(), &page["gap"]), (3, &gap), "{other}");
        for transport in Transport::ALL {
            let since = format!("since={other}");
            let opened = StreamClient::open(transport, &world.consumer_url(""), 1, &since).await;
            let mut stream = opened.expect("an open stream");
            let state = stream.expect_event("state").await;
            assert_eq!(
                parse_cursor(&state["cursor"]),
                Cursor::new(own.partition, -1).with_epoch(epoch)
            );
            assert_eq!(stream.expect_event("gap").await, gap, "{transport:?}");
            assert_eq!(stream.next_messages(3).await, NEW, "{transport:?}");
            if transport == Transport::WebSocket {
                let through = json!({ "read": { "through": other.to_string() } });
                stream.send_command(through).await;
                assert_eq!(stream.expect_event("error").await["status"], 409);
            }
        }
        let refused = get(&world, &format!("?at_least={other}"), None).await;
        assert_eq!(refused.status(), 409, "{other}");
        let problem: Value = refused.json().await.expect("a problem");
        let said = problem["message"].as_str().expect("a message");
        assert!(
            said.starts_with(&format!("{other} is not a cursor of the log as it is now")),
            "{said}"
        );
        for action in ["read", "unread"] {
            let url = world.consumer_url(&format!("/notifications/1/{action}"));
            let through = json!({ "through": other.to_string() });
            let refused = world.http().post(url).json(&through).send().await.expect("an answer");
            assert_eq!(refused.status(), 409, "{other}");
        }
    }
    assert_eq!(world.read_page(1).await["unread"], 3, "nothing was marked");

    // Before the first record nothing can be missed.
    let start = Cursor::new(own.partition, -1);
    let page = page_since(start).await;
    assert_eq!((page_messages(&page).len(), &page["gap"]), (3, &Value::Null));
    assert_eq!(get(&world, &format!("?at_least={start}"), None).await.status(), 200);
}

pub(crate) async fn restart(mut world: World) {
    let cursors = send_and_await(&world, &["one", "two"]).await;
    let tag = inbox_etag(&world).await;
    world.restart_with(&[]).await;
    world.await_ready(&world.consumer_url("")).await;
    assert_eq!(get(&world, "", Some(&tag)).await.status(), 304);
    let query = format!("?since={}&at_least={}", cursors[0], cursors[1]);
    let page: Value = get(&world, &query, None).await.json().await.expect("JSON");
    assert_eq!((page_messages(&page), &page["gap"]), (vec!["two".to_owned()], &Value::Null));
    let sent = world.send(2, 1, "three").await;
    assert_eq!(parse_cursor(&sent["sent"][0]["cursor"]).epoch, cursors[0].epoch);
}
