//! Live streams on every transport: missed events first, then new ones.

use std::time::Duration;

use e2e::{
    World,
    stream_client::{StreamClient, Transport},
    until::{DEADLINE, until},
    world::{home_partition, page_messages},
};
use model::Cursor;
use serde_json::{Value, json};

async fn open_stream(world: &World, transport: Transport, user: i64, query: &str) -> StreamClient {
    let opened = StreamClient::open(transport, &world.consumer_url(""), user, query).await;
    opened.expect("an open stream")
}

/// Sends user 1 this many messages, and waits until the inbox shows them.
async fn send_and_await(world: &World, count: usize) -> Vec<String> {
    let mut cursors = Vec::new();
    for n in 0..count {
        let answer = world.send(2, 1, &n.to_string()).await;
        cursors.push(answer["sent"][0]["cursor"].as_str().expect("a cursor").to_owned());
    }
    world.expect_inbox(1, &(0..count).map(|n| n.to_string()).collect::<Vec<_>>()).await;
    cursors
}

async fn inbox_ids(world: &World) -> Vec<Value> {
    let page = world.read_page(1).await;
    page["notifications"].as_array().expect("a list").iter().map(|n| n["id"].clone()).collect()
}

pub(crate) async fn missed_then_new(world: World) {
    let cursors = send_and_await(&world, 3).await;
    for (round, transport) in Transport::ALL.into_iter().enumerate() {
        let (new, count) = (format!("new {round}"), 3 + round);
        let mut all = open_stream(&world, transport, 1, "").await;
        let state = all.expect_event("state").await;
        assert_eq!(state["unread"], count, "{transport:?}");
        let first: Cursor = cursors[0].parse().expect("a cursor");
        let start = Cursor::new(home_partition(1), -1).with_epoch(first.epoch);
        assert_eq!(state["cursor"], start.to_string());
        all.next_messages(count).await;
        let mut resumed = open_stream(&world, transport, 1, &format!("since={}", cursors[1])).await;
        assert_eq!(resumed.expect_event("state").await["cursor"], cursors[1]);
        assert_eq!(resumed.next_messages(1 + round).await[0], "2", "{transport:?}");

        let answer = world.send(3, 1, &new).await;
        for listener in [&mut all, &mut resumed] {
            let data = listener.expect_event("notification").await;
            assert_eq!((&data["message"], &data["unread"]), (&json!(new), &json!(count + 1)));
            assert_eq!(data["from"], json!({ "id": 3, "name": "Rick" }));
            assert_eq!(data["cursor"], answer["sent"][0]["cursor"]);
            assert_eq!(listener.cursor.as_deref(), data["cursor"].as_str());
        }
    }
    // A limit keeps the newest; `since=0s` skips all existing ones.
    let mut newest = open_stream(&world, Transport::Sse, 1, "limit=1").await;
    newest.expect_event("state").await;
    assert_eq!(newest.next_messages(1).await, ["new 2"]);
    let mut future = open_stream(&world, Transport::Ndjson, 1, "since=0s").await;
    assert_eq!(future.expect_event("state").await["unread"], 6);
    world.send(2, 1, "last").await;
    assert_eq!(future.next_messages(1).await, ["last"]);
    assert_eq!(newest.next_messages(1).await, ["last"]);
}

pub(crate) async fn devices_agree(world: World) {
    let cursors = send_and_await(&world, 3).await;
    let ids = inbox_ids(&world).await;
    let mut phone = open_stream(&world, Transport::Sse, 1, &format!("since={}", cursors[2])).await;
    let mut desk =
        open_stream(&world, Transport::WebSocket, 1, &format!("since={}", cursors[2])).await;
    for device in [&mut phone, &mut desk] {
        let state = device.expect_event("state").await;
        let expected =
            json!({ "unread": 3, "read_ids": [], "unread_ids": ids, "cursor": cursors[2] });
        assert_eq!(state, expected);
    }
    // A receipt by HTTP and one over the socket: both devices see both.
    let url = world.consumer_url("/notifications/1/read");
    let body = json!({ "ids": [ids[0]] });
    world.http().post(url).json(&body).send().await.expect("an answer");
    for device in [&mut phone, &mut desk] {
        let receipt = device.expect_event("receipt").await;
        assert_eq!(receipt, json!({ "action": "read", "ids": [ids[0]], "unread": 2 }));
    }
    desk.send_command(json!({ "dismiss": { "ids": [ids[1]] } })).await;
    let receipt = json!({ "action": "dismissed", "ids": [ids[1]], "unread": 1 });
    assert_eq!(phone.expect_event("receipt").await, receipt);
    // On the socket, the receipt and the command's answer come in either order.
    let mut told = [desk.next_event().await.expect("one"), desk.next_event().await.expect("two")];
    told.sort_by_key(|event| event["event"].to_string());
    assert_eq!((&told[0]["event"], &told[0]["data"]["changed"]), (&json!("done"), &json!(1)));
    assert_eq!((&told[1]["event"], &told[1]["data"]), (&json!("receipt"), &receipt));
    desk.send_command(json!({ "read": { "through": "99-7" } })).await;
    let refused = desk.expect_event("error").await;
    assert_eq!((&refused["status"], &refused["field"]), (&json!(400), &json!("through")));
    desk.send_command(json!("hello")).await;
    assert_eq!(desk.expect_event("error").await["field"], "message");

    // A reconnecting device gets all of it in the `state` event.
    let mut away =
        open_stream(&world, Transport::Ndjson, 1, &format!("since={}", cursors[2])).await;
    let state = away.expect_event("state").await;
    assert_eq!((&state["read_ids"], &state["unread_ids"]), (&json!([ids[0]]), &json!([ids[2]])));
    // More receipts than a stream buffers while its client does not read: the client gets either a
    // `state` event or each receipt.
    for _ in 0..20 {
        for way in ["read", "unread"] {
            let url = world.consumer_url(&format!("/notifications/1/{way}"));
            world.http().post(url).json(&json!({ "ids": [ids[2]] })).send().await.expect("it");
        }
    }
    let mut marks = Vec::new();
    while marks.len() < 40 {
        let event = away.next_event().await.expect("an event");
        match event["event"].as_str() {
            Some("receipt") => marks.push(event["data"]["unread"].clone()),
            Some("state") => marks.resize(40, event["data"]["unread"].clone()),
            _ => unreachable!("{event}"),
        }
    }
    assert_eq!(marks.last(), Some(&json!(1)));
}

pub(crate) async fn gaps_are_said(mut world: World) {
    world.stop_consumer(0).await;
    world.start_consumer(0, &["--inbox-entries", "3"]).await;
    let mut cursors = Vec::new();
    for n in 0..6 {
        let answer = world.send(2, 1, &n.to_string()).await;
        cursors.push(answer["sent"][0]["cursor"].as_str().expect("a cursor").to_owned());
    }
    world.expect_inbox(1, &["3".into(), "4".into(), "5".into()]).await;
    for transport in Transport::ALL {
        let mut behind = open_stream(&world, transport, 1, &format!("since={}", cursors[0])).await;
        behind.expect_event("state").await;
        let gap = behind.expect_event("gap").await;
        let expected = json!({ "reason": "evicted", "after": cursors[0], "through": cursors[2] });
        assert_eq!(gap, expected, "{transport:?}");
        assert_eq!(behind.next_messages(3).await, ["3", "4", "5"]);

        let mut foreign = open_stream(&world, transport, 1, "since=99-7").await;
        foreign.expect_event("state").await;
        assert_eq!(foreign.expect_event("gap").await["reason"], "unknown");
        assert_eq!(foreign.next_messages(3).await, ["3", "4", "5"]);

        let mut fresh = open_stream(&world, transport, 1, "").await;
        fresh.expect_event("state").await;
        assert_eq!(
            fresh.next_messages(3).await,
            ["3", "4", "5"],
            "who asks for nothing misses nothing"
        );
    }
}

pub(crate) async fn no_seam(world: World) {
    const SENT: usize = 150;
    world.send(2, 1, "0").await;
    world.expect_inbox(1, &["0".into()]).await;
    let expected: Vec<_> = (0..SENT).map(|n| n.to_string()).collect();
    let sending = async {
        for message in &expected[1..] {
            world.send(2, 1, message).await;
        }
    };
    // Readers that disconnect and resume meanwhile, at different rates.
    let reading = async |transport: Transport, stay: usize| {
        let (mut seen, mut since) = (Vec::new(), String::new());
        while seen.len() < SENT {
            let mut reader = open_stream(&world, transport, 1, &since).await;
            reader.expect_event("state").await;
            for _ in 0..stay.min(SENT - seen.len()) {
                seen.extend(reader.next_messages(1).await);
            }
            since = format!("since={}", reader.cursor.as_ref().expect("a cursor"));
        }
        seen
    };
    let ((), a, b, c, d) = tokio::join!(
        sending,
        reading(Transport::Sse, 1),
        reading(Transport::Ndjson, 7),
        reading(Transport::WebSocket, 3),
        reading(Transport::Sse, SENT),
    );
    for seen in [a, b, c, d] {
        assert_eq!(seen, expected, "each once, in order");
    }
}

pub(crate) async fn restart(mut world: World) {
    send_and_await(&world, 2).await;
    for transport in Transport::ALL {
        let mut reader = open_stream(&world, transport, 1, "limit=1").await;
        reader.expect_event("state").await;
        reader.next_messages(1).await;
        let (last, stopped) = tokio::join!(reader.next_event(), world.stop_consumer(0));
        let () = stopped;
        let last = last.expect("a last word");
        assert_eq!(last["event"], "end", "{last}");
        assert!(reader.next_event().await.is_none(), "the end of the stream");
        let message = format!("while {transport:?} was away");
        world.send(2, 1, &message).await;
        world.start_consumer(0, &[]).await;
        let since = format!("since={}", reader.cursor.as_ref().expect("a cursor"));
        let base = world.consumer_url("");
        let mut again = until(|| StreamClient::open(transport, &base, 1, &since)).await;
        again.expect_event("state").await;
        assert_eq!(again.next_messages(1).await, [message]);
    }
}

pub(crate) async fn slow_reader(mut world: World) {
    world.stop_consumer(0).await;
    world.start_consumer(0, &["--inbox-entries", "50"]).await;
    let text = "x".repeat(4000);
    world.send(2, 1, "first").await;
    world.expect_inbox(1, &["first".into()]).await;
    let mut slow = open_stream(&world, Transport::Ndjson, 1, "").await;
    slow.expect_event("state").await;
    let mut quick = open_stream(&world, Transport::Sse, 1, "").await;
    quick.expect_event("state").await;
    // More than all buffers between server and client hold.
    const SENT: usize = 3000;
    let list: Vec<_> = (0..SENT).collect();
    // The fast reader gets everything, whatever the slow one does.
    quick.next_messages(1).await;
    for some in list.chunks(32) {
        let texts: Vec<_> = some.iter().map(|n| format!("{n} {text}")).collect();
        futures_util::future::join_all(texts.iter().map(|text| world.send(2, 1, text))).await;
        quick.next_messages(some.len()).await;
    }
    let (mut seen, mut gaps) = (0, 0);
    let last = world.read_page(1).await["cursor"].clone();
    while slow.cursor.as_deref() != last.as_str() {
        let Some(event) = slow.next_event().await else {
            // The server closed the stream of the slow client, which now resumes.
            let since = format!("since={}", slow.cursor.as_ref().expect("a cursor"));
            slow = open_stream(&world, Transport::Ndjson, 1, &since).await;
            slow.expect_event("state").await;
            continue;
        };
        match event["event"].as_str() {
            Some("notification") => seen += 1,
            Some("gap") => {
                assert_eq!(event["data"]["reason"], "evicted");
                gaps += 1;
            }
            _ => unreachable!("{event}"),
        }
    }
    assert!(gaps > 0 && seen < SENT, "{gaps} gaps, {seen} seen");
}

pub(crate) async fn bounds(mut world: World) {
    world.stop_consumer(0).await;
    let flags = ["--max-streams", "3", "--max-streams-per-user", "2", "--heartbeat", "100ms"];
    world.start_consumer(0, &flags).await;
    world.send(2, 1, "hello").await;
    world.expect_inbox(1, &["hello".into()]).await;
    let open =
        async |user| StreamClient::open(Transport::Sse, &world.consumer_url(""), user, "").await;
    let refused = async |user| open(user).await.err().map(|(status, _)| status);
    let (one, two) = (open(1).await, open(1).await);
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(refused(1).await, Some(429));
    // User 99 does not exist; a stream of their inbox leaves no state behind.
    let mut unknown = open(99).await.expect("an open stream");
    assert_eq!(unknown.expect_event("state").await["unread"], 0);
    assert_eq!(refused(2).await, Some(503));
    drop(two);
    until(|| async { if refused(1).await.is_none() { Ok(()) } else { Err("still counted") } })
        .await;
    // A heartbeat advances the cursor although this user got no event.
    drop(one);
    let mut quiet = open_stream(&world, Transport::Ndjson, 1, "").await;
    quiet.expect_event("state").await;
    quiet.next_messages(1).await;
    let foreign =
        r#"{"from":{"id":2,"name":"Bruno"},"to":{"id":4,"name":"Lena"},"message":"for another"}"#;
    let at = world.append_raw(home_partition(1), "4", foreign).await;
    let cursor = Cursor::new(at.partition, at.offset).with_epoch(at.epoch).to_string();
    let reached = async {
        while quiet.cursor.as_ref() != Some(&cursor) {
            assert!(quiet.is_silent(Duration::from_millis(100)).await);
        }
    };
    tokio::time::timeout(DEADLINE, reached).await.expect("a heartbeat that moves the cursor on");
}

pub(crate) async fn refusals(world: World) {
    send_and_await(&world, 1).await;
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = world.http().get(world.consumer_url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let problem: Value = response.json().await.expect("a problem");
        (status, problem["message"].as_str().expect("a message").to_owned())
    };
    let stream = "/notifications/1/stream";
    for (path, headers, status, why) in [
        ("/notifications/x/stream", &[][..], 400, "id: must be a positive whole number"),
        (&format!("{stream}?since=soon"), &[], 400, "since: must be a cursor"),
        (&format!("{stream}?limit=0"), &[], 400, "limit: must be"),
        (&format!("{stream}?wait=3"), &[], 400, "wait: is not for live streams"),
        (stream, &[("last-event-id", "soon")], 400, "Last-Event-ID: must be a cursor"),
        ("/notifications/1/ws", &[], 400, "This address is for WebSockets"),
    ] {
        let (found, said) = get(path, headers).await;
        assert_eq!((found, said.starts_with(why)), (status, true), "{path}: {said}");
    }
    // A page of a foreign origin cannot open a socket; our own page and clients without an origin
    // can.
    for (origin, status) in [("http://evil.example", 403), ("null", 403)] {
        let upgrade = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("origin", origin),
        ];
        assert_eq!(get("/notifications/1/ws", &upgrade).await.0, status, "{origin}");
    }
    assert_eq!(page_messages(&world.read_page(1).await), ["0"]);
}
