//! Topics of a real Kafka that are deleted and created again while the services run.

use e2e::{
    World,
    stream_client::{StreamClient, Transport},
    until,
    world::{PARTITIONS, home_partition, page_messages},
};
use event_log::NewRecord;
use model::{Cursor, TopicNames};
use reqwest::Response;
use serde_json::{Value, json};

/// The messages that a user of each test is sent before the topic is created again.
const OLD: [&str; 3] = ["old 0", "old 1", "old 2"];

async fn send_old(world: &World) -> Vec<Cursor> {
    let mut cursors = Vec::new();
    for message in OLD {
        let sent = world.send(2, 1, message).await;
        cursors.push(parse_cursor(&sent["sent"][0]["cursor"]));
    }
    world.expect_inbox(1, &OLD.map(String::from)).await;
    cursors
}

fn parse_cursor(text: &Value) -> Cursor {
    text.as_str().and_then(|text| text.parse().ok()).expect("a cursor")
}

/// Appends this many notifications of user 1 at once, as a foreign producer would.
async fn append_at_once(world: &World, count: usize) -> Vec<String> {
    let log = world.backend.connect_log("test-foreign-producer");
    let messages: Vec<_> = (0..count).map(|n| format!("new {n}")).collect();
    // The client may not know the new topic yet.
    until(|| log.refresh_epoch(&world.topic)).await;
    let writer = log.writer();
    let acks = messages.iter().map(|message| {
        let value = json!({ "from": { "id": 2, "name": "Bruno" }, "to": { "id": 1, "name": "Emma" },
            "message": message });
        let (partition, key) = (home_partition(1), b"1".to_vec());
        let value = value.to_string().into_bytes();
        writer.append(&world.topic, NewRecord { partition, key, value, headers: Vec::new() })
    });
    for ack in acks.collect::<Vec<_>>() {
        ack.expect("queued").await.expect("acknowledged");
    }
    messages
}

async fn get(world: &World, query: &str) -> Response {
    let url = world.consumer_url(&format!("/notifications/1{query}"));
    world.http().get(url).send().await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_topic_made_again_under_running_services_is_another_log_and_shown_from_its_beginning() {
    let world = World::real().await;
    let old = send_old(&world).await;
    let tag = get(&world, "").await.headers()["etag"].clone();
    let mut streams = Vec::new();
    for transport in Transport::ALL {
        let query = format!("since={}", old[2]);
        let opened = StreamClient::open(transport, &world.consumer_url(""), 1, &query).await;
        let mut stream = opened.expect("an open stream");
        stream.expect_event("state").await;
        streams.push((transport, stream));
    }
    world.backend.recreate_topic(&world.topic, PARTITIONS).await;
    let new = append_at_once(&world, 20).await;
    world.expect_inbox(1, &new).await;

    let own = parse_cursor(&world.read_page(1).await["cursor"]);
    assert!(own.epoch.is_some() && own.epoch != old[1].epoch, "{own} {}", old[1]);
    let page: Value = get(&world, &format!("?since={}", old[1])).await.json().await.expect("JSON");
    assert_eq!((&page["gap"]["reason"], page_messages(&page)), (&json!("unknown"), new.clone()));
    assert_eq!(get(&world, &format!("?at_least={}", old[1])).await.status(), 409);
    let request = world.http().get(world.consumer_url("/notifications/1"));
    let unchanged = request.header("if-none-match", tag).send().await.expect("an answer");
    assert_eq!(unchanged.status(), 200);
    let through = json!({ "through": old[1].to_string() });
    let url = world.consumer_url("/notifications/1/read");
    let refused = world.http().post(url).json(&through).send().await.expect("an answer");
    assert_eq!(refused.status(), 409);
    assert_eq!(world.read_page(1).await["unread"], 20);

    // Each stream has ended, and its reader learns at its return that it has missed something.
    for (transport, mut stream) in streams {
        while let Some(event) = stream.next_event().await {
            assert!(
                ["notification", "end", "state"]
                    .contains(&event["event"].as_str().expect("a name")),
                "{event}"
            );
        }
        let query = format!("since={}", stream.cursor.as_ref().expect("a cursor"));
        let base = world.consumer_url("");
        let mut resumed = until(|| StreamClient::open(transport, &base, 1, &query)).await;
        resumed.expect_event("state").await;
        assert_eq!(resumed.expect_event("gap").await["reason"], "unknown", "{transport:?} {query}");
        assert_eq!(resumed.next_messages(20).await, new);
    }

    // The producer notices the new topic too, so its cursors can be waited for.
    let cursor = until(|| async {
        let sent = world.post_form("from_id=2&to_id=1&message=after").await;
        let sent: Value = sent.json().await.expect("JSON");
        let cursor =
            sent["sent"][0]["cursor"].as_str().and_then(|text| text.parse::<Cursor>().ok());
        cursor.filter(|cursor| cursor.epoch == own.epoch).ok_or(sent)
    })
    .await;
    let page = get(&world, &format!("?at_least={cursor}")).await;
    assert_eq!(page.status(), 200);
    let page: Value = page.json().await.expect("JSON");
    assert_eq!(page_messages(&page).last().map(String::as_str), Some("after"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_receipts_topic_made_again_under_running_services_takes_its_receipts_along() {
    let world = World::real().await;
    send_old(&world).await;
    let mark_read = async || {
        let url = world.consumer_url("/notifications/1/read");
        let answer = world.http().post(url).send().await.expect("an answer");
        let (status, body) = (answer.status(), answer.text().await.expect("a body"));
        if status == 200 { Ok(()) } else { Err(body) }
    };
    until(&mark_read).await;
    let tag = get(&world, "").await.headers()["etag"].clone();
    let receipts = TopicNames::from_notifications(&world.topic).receipts;
    world.backend.recreate_topic(&receipts, PARTITIONS).await;
    let unread = async |expected: u64| {
        until(|| async {
            let page = world.read_page(1).await;
            if page["unread"] == expected { Ok(()) } else { Err(page) }
        })
        .await;
    };
    unread(3).await;
    until(&mark_read).await;
    unread(0).await;
    // The same receipt at the same offset, in another log.
    assert_ne!(get(&world, "").await.headers()["etag"], tag);
}
