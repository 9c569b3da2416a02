//! Live streams: what was missed, then what comes, on every transport.

use std::time::Duration;

use e2e::{
    World,
    listener::{Listener, Transport},
    until::{DEADLINE, until},
    world::{home, messages},
};
use serde_json::{Value, json};

async fn follow(world: &World, transport: Transport, user: i64, query: &str) -> Listener {
    let opened = Listener::open(transport, &world.consumer(""), user, query).await;
    opened.expect("an open stream")
}

/// A world in which user 1 has been sent these, and shows them.
async fn sent(world: &World, count: usize) -> Vec<String> {
    let mut cursors = Vec::new();
    for n in 0..count {
        let answer = world.send(2, 1, &n.to_string()).await;
        cursors.push(answer["sent"][0]["cursor"].as_str().expect("a cursor").to_owned());
    }
    world.expect_inbox(1, &(0..count).map(|n| n.to_string()).collect::<Vec<_>>()).await;
    cursors
}

async fn ids(world: &World) -> Vec<Value> {
    let page = world.read(1).await;
    page["notifications"].as_array().expect("a list").iter().map(|n| n["id"].clone()).collect()
}

pub(crate) async fn missed_then_new(world: World) {
    let cursors = sent(&world, 3).await;
    for (round, transport) in Transport::ALL.into_iter().enumerate() {
        let (new, count) = (format!("new {round}"), 3 + round);
        let mut all = follow(&world, transport, 1, "").await;
        let state = all.expect("state").await;
        assert_eq!(state["unread"], count, "{transport:?}");
        assert_eq!(state["cursor"], format!("{}-start", home(1)));
        all.messages(count).await;
        let mut resumed = follow(&world, transport, 1, &format!("since={}", cursors[1])).await;
        assert_eq!(resumed.expect("state").await["cursor"], cursors[1]);
        assert_eq!(resumed.messages(1 + round).await[0], "2", "{transport:?}");

        let answer = world.send(3, 1, &new).await;
        for listener in [&mut all, &mut resumed] {
            let data = listener.expect("notification").await;
            assert_eq!((&data["message"], &data["unread"]), (&json!(new), &json!(count + 1)));
            assert_eq!(data["from"], json!({ "id": 3, "name": "Rick" }));
            assert_eq!(data["cursor"], answer["sent"][0]["cursor"]);
            assert_eq!(listener.cursor.as_deref(), data["cursor"].as_str());
        }
    }
    // The newest only, and only what comes.
    let mut newest = follow(&world, Transport::Sse, 1, "limit=1").await;
    newest.expect("state").await;
    assert_eq!(newest.messages(1).await, ["new 2"]);
    let mut future = follow(&world, Transport::Ndjson, 1, "since=0s").await;
    assert_eq!(future.expect("state").await["unread"], 6);
    world.send(2, 1, "last").await;
    assert_eq!(future.messages(1).await, ["last"]);
    assert_eq!(newest.messages(1).await, ["last"]);
}

pub(crate) async fn devices_agree(world: World) {
    let cursors = sent(&world, 3).await;
    let ids = ids(&world).await;
    let mut phone = follow(&world, Transport::Sse, 1, &format!("since={}", cursors[2])).await;
    let mut desk = follow(&world, Transport::WebSocket, 1, &format!("since={}", cursors[2])).await;
    for device in [&mut phone, &mut desk] {
        let state = device.expect("state").await;
        let expected =
            json!({ "unread": 3, "read_ids": [], "unread_ids": ids, "cursor": cursors[2] });
        assert_eq!(state, expected);
    }
    // By HTTP, and over the socket; either is seen on both.
    let url = world.consumer("/notifications/1/read");
    let body = json!({ "ids": [ids[0]] });
    world.http().post(url).json(&body).send().await.expect("an answer");
    for device in [&mut phone, &mut desk] {
        let receipt = device.expect("receipt").await;
        assert_eq!(receipt, json!({ "action": "read", "ids": [ids[0]], "unread": 2 }));
    }
    desk.say(json!({ "dismiss": { "ids": [ids[1]] } })).await;
    let receipt = json!({ "action": "dismissed", "ids": [ids[1]], "unread": 1 });
    assert_eq!(phone.expect("receipt").await, receipt);
    // On the socket the receipt and the answer to the command come in either order.
    let mut told = [desk.next().await.expect("one"), desk.next().await.expect("two")];
    told.sort_by_key(|event| event["event"].to_string());
    assert_eq!((&told[0]["event"], &told[0]["data"]["changed"]), (&json!("done"), &json!(1)));
    assert_eq!((&told[1]["event"], &told[1]["data"]), (&json!("receipt"), &receipt));
    desk.say(json!({ "read": { "through": "99-7" } })).await;
    let refused = desk.expect("error").await;
    assert_eq!((&refused["status"], &refused["field"]), (&json!(400), &json!("through")));
    desk.say(json!("hello")).await;
    assert_eq!(desk.expect("error").await["field"], "message");

    // A device that was away learns all of it at once.
    let mut away = follow(&world, Transport::Ndjson, 1, &format!("since={}", cursors[2])).await;
    let state = away.expect("state").await;
    assert_eq!((&state["read_ids"], &state["unread_ids"]), (&json!([ids[0]]), &json!([ids[2]])));
    // More receipts than are told one by one while nobody reads: the state follows, or each.
    for _ in 0..20 {
        for way in ["read", "unread"] {
            let url = world.consumer(&format!("/notifications/1/{way}"));
            world.http().post(url).json(&json!({ "ids": [ids[2]] })).send().await.expect("it");
        }
    }
    let mut marks = Vec::new();
    while marks.len() < 40 {
        let event = away.next().await.expect("an event");
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
        let mut behind = follow(&world, transport, 1, &format!("since={}", cursors[0])).await;
        behind.expect("state").await;
        let gap = behind.expect("gap").await;
        let expected = json!({ "reason": "evicted", "after": cursors[0], "through": cursors[2] });
        assert_eq!(gap, expected, "{transport:?}");
        assert_eq!(behind.messages(3).await, ["3", "4", "5"]);

        let mut foreign = follow(&world, transport, 1, "since=99-7").await;
        foreign.expect("state").await;
        assert_eq!(foreign.expect("gap").await["reason"], "unknown");
        assert_eq!(foreign.messages(3).await, ["3", "4", "5"]);

        let mut fresh = follow(&world, transport, 1, "").await;
        fresh.expect("state").await;
        assert_eq!(fresh.messages(3).await, ["3", "4", "5"], "who asks for nothing misses nothing");
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
    // Readers who come, leave and come again meanwhile, each at its own pace.
    let reading = async |transport: Transport, stay: usize| {
        let (mut seen, mut since) = (Vec::new(), String::new());
        while seen.len() < SENT {
            let mut reader = follow(&world, transport, 1, &since).await;
            reader.expect("state").await;
            for _ in 0..stay.min(SENT - seen.len()) {
                seen.extend(reader.messages(1).await);
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
    sent(&world, 2).await;
    for transport in Transport::ALL {
        let mut reader = follow(&world, transport, 1, "limit=1").await;
        reader.expect("state").await;
        reader.messages(1).await;
        let (last, stopped) = tokio::join!(reader.next(), world.stop_consumer(0));
        let () = stopped;
        let last = last.expect("a last word");
        assert_eq!(last["event"], "end", "{last}");
        assert!(reader.next().await.is_none(), "the end of the stream");
        let message = format!("while {transport:?} was away");
        world.send(2, 1, &message).await;
        world.start_consumer(0, &[]).await;
        let since = format!("since={}", reader.cursor.as_ref().expect("a cursor"));
        let base = world.consumer("");
        let mut again = until(|| Listener::open(transport, &base, 1, &since)).await;
        again.expect("state").await;
        assert_eq!(again.messages(1).await, [message]);
    }
}

pub(crate) async fn slow_reader(mut world: World) {
    world.stop_consumer(0).await;
    world.start_consumer(0, &["--inbox-entries", "50"]).await;
    let text = "x".repeat(4000);
    world.send(2, 1, "first").await;
    world.expect_inbox(1, &["first".into()]).await;
    let mut slow = follow(&world, Transport::Ndjson, 1, "").await;
    slow.expect("state").await;
    let mut quick = follow(&world, Transport::Sse, 1, "").await;
    quick.expect("state").await;
    // More than any buffer between the two holds.
    const SENT: usize = 3000;
    let list: Vec<_> = (0..SENT).collect();
    // Who reads gets everything, whatever the other one does.
    quick.messages(1).await;
    for some in list.chunks(32) {
        let texts: Vec<_> = some.iter().map(|n| format!("{n} {text}")).collect();
        futures_util::future::join_all(texts.iter().map(|text| world.send(2, 1, text))).await;
        quick.messages(some.len()).await;
    }
    let (mut seen, mut gaps) = (0, 0);
    let last = world.read(1).await["cursor"].clone();
    while slow.cursor.as_deref() != last.as_str() {
        let Some(event) = slow.next().await else {
            // Closed, because it took nothing for too long; so it comes again.
            let since = format!("since={}", slow.cursor.as_ref().expect("a cursor"));
            slow = follow(&world, Transport::Ndjson, 1, &since).await;
            slow.expect("state").await;
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
    let open = async |user| Listener::open(Transport::Sse, &world.consumer(""), user, "").await;
    let refused = async |user| open(user).await.err().map(|(status, _)| status);
    let (one, two) = (open(1).await, open(1).await);
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(refused(1).await, Some(429));
    // Nobody knows user 99, and following them leaves no trace.
    let mut unknown = open(99).await.expect("an open stream");
    assert_eq!(unknown.expect("state").await["unread"], 0);
    assert_eq!(refused(2).await, Some(503));
    drop(two);
    until(|| async { if refused(1).await.is_none() { Ok(()) } else { Err("still counted") } })
        .await;
    // A heartbeat moves the cursor on although nothing came for this user.
    drop(one);
    let mut quiet = follow(&world, Transport::Ndjson, 1, "").await;
    quiet.expect("state").await;
    quiet.messages(1).await;
    let foreign =
        r#"{"from":{"id":2,"name":"Bruno"},"to":{"id":4,"name":"Lena"},"message":"for another"}"#;
    let at = world.append_raw(home(1), "4", foreign).await;
    let cursor = format!("{}-{}", at.partition, at.offset);
    let reached = async {
        while quiet.cursor.as_ref() != Some(&cursor) {
            assert!(quiet.is_silent(Duration::from_millis(100)).await);
        }
    };
    tokio::time::timeout(DEADLINE, reached).await.expect("a heartbeat that moves the cursor on");
}

pub(crate) async fn refusals(world: World) {
    sent(&world, 1).await;
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = world.http().get(world.consumer(path));
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
    // A page of somebody else's cannot open a socket; ours can, and so can what is no page.
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
    assert_eq!(messages(&world.read(1).await), ["0"]);
}
