//! Attacks by one client with an ordinary token, on processes with the settings that ship. Each prints
//! the memory before and after; it must stay well below the limits of the containers.

#![expect(clippy::print_stdout, reason = "the memory before and after is a result to be read")]

use std::path::Path;

use e2e::{
    World,
    backend::Backend,
    process::{Standalone, build_program, peak_bytes, resident_bytes},
    service_process::{ServiceProcess, free_ports},
    tokens::{Issuer, KeyFiles},
    until::{DEADLINE, until},
    world::{home_partition, page_messages, unique_name},
};
use event_log::{
    NewRecord,
    kafka::{Kafka, KafkaSettings},
    mock::Cluster,
    settings::{BatchArgs, Compression},
};
use futures_util::{
    SinkExt as _, StreamExt as _, future::join_all, stream, stream::FuturesUnordered,
};
use reqwest::{Client, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;

const SECRET: &str = "a secret of at least 32 bytes, which this is";

/// The most that one client may add: an eighth of the smaller container's limit, 512 MiB.
const MAX_GROWTH_BYTES: u64 = 64 << 20;

/// The process of an attacked service, and its memory before the attack.
struct Victim {
    pid: u32,
    before: u64,
}

impl Victim {
    fn new(pid: u32) -> Self {
        Self { pid, before: resident_bytes(pid) }
    }

    /// Fails if the memory was ever larger than before by [`MAX_GROWTH_BYTES`].
    fn expect_little_growth(&self, attack: &str) {
        let (before, peak) = (self.before >> 20, peak_bytes(self.pid) >> 20);
        println!("{attack}: {before} MiB before, {peak} MiB at most");
        let growth = peak_bytes(self.pid).saturating_sub(self.before);
        assert!(growth < MAX_GROWTH_BYTES, "{attack}: {before} MiB before, {peak} MiB at most");
    }
}

#[test]
fn the_containers_have_the_limits_that_these_tests_are_about() {
    let consumer = include_str!("../../../deploy/kubernetes/consumer.yaml");
    let producer = include_str!("../../../deploy/kubernetes/producer.yaml");
    assert!(consumer.contains("limits: {memory: 2Gi}"));
    assert!(producer.contains("limits: {memory: 512Mi}"));
}

/// A `standalone` that wants tokens, and what signs them.
async fn guarded_standalone(folder: &Path, keys: &KeyFiles) -> (Standalone, Issuer) {
    let file = keys.write_secret(SECRET);
    let standalone = Standalone::start_with(folder, &["--auth-secret-file", &file]).await;
    for service in [&standalone.producer, &standalone.consumer] {
        await_ready(service).await;
    }
    (standalone, Issuer::with_secret(SECRET))
}

async fn await_ready(base: &str) {
    let client = Client::new();
    until(|| async {
        let answer = client.get(format!("{base}/readyz")).send().await;
        let status = answer.map(|answer| answer.status());
        if matches!(status, Ok(StatusCode::OK)) { Ok(()) } else { Err(status) }
    })
    .await;
}

/// The content of a notification that is as large as a sender can make it: about 40 KB.
fn largest_content() -> Value {
    json!({
        "message": "\u{1F514}".repeat(4096),
        "link": format!("/{}", "é".repeat(2047)),
        "data": "x".repeat((16 << 10) - 2),
    })
}

async fn send(
    client: &Client,
    standalone: &Standalone,
    token: &str,
    from: i64,
    to: &[i64],
) -> StatusCode {
    let mut body = largest_content();
    body["from_id"] = from.into();
    body["to_id"] = to.into();
    let request = client.post(format!("{}/send", standalone.producer)).bearer_auth(token);
    request.json(&body).send().await.expect("an answer").status()
}

/// Sends a request's head, and returns the connection.
async fn ask(base: &str, token: &str, method: &str, path: &str, headers: &str) -> TcpStream {
    let address = base.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{headers}\r\n"
    );
    connection.write_all(head.as_bytes()).await.expect("the server reads");
    connection
}

/// Reads the status of an answer and nothing more. `None` if the server closed the connection.
async fn read_status(connection: &mut TcpStream) -> Option<u16> {
    let mut line = [0; "HTTP/1.1 200".len()];
    let read = timeout(DEADLINE, connection.read_exact(&mut line)).await.expect("an answer");
    read.ok()?;
    std::str::from_utf8(&line).ok()?.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_streams_that_are_not_read_take_little_memory() {
    let (folder, keys) = (tempfile::tempdir().expect("a folder"), KeyFiles::new());
    let (standalone, issuer) = guarded_standalone(folder.path(), &keys).await;
    let (client, token) = (Client::new(), issuer.issue_token(Some("1"), "send"));
    for _ in 0..40 {
        assert_eq!(send(&client, &standalone, &token, 1, &[1]).await, StatusCode::OK);
    }
    let url = format!("{}/notifications/1?since=all", standalone.consumer);
    let shown = until(|| async {
        let answer = client.get(&url).bearer_auth(&token).send().await.expect("an answer");
        let page: Value = answer.json().await.expect("JSON");
        let count = page_messages(&page).len();
        if count > 20 { Ok(count) } else { Err(count) }
    })
    .await;
    assert!(shown < 40, "the inbox is bounded in bytes");

    let victim = Victim::new(standalone.pid());
    let mut unread = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..200 {
        let mut connection = ask(&standalone.consumer, &token, "GET", "/notifications/1", "").await;
        statuses.extend(read_status(&mut connection).await);
        unread.push(connection);
    }
    for _ in 0..100 {
        let path = "/notifications/1/stream?since=all";
        let mut connection = ask(&standalone.consumer, &token, "GET", path, "").await;
        assert_eq!(read_status(&mut connection).await, Some(200));
        unread.push(connection);
    }
    let refused = statuses.iter().filter(|status| **status == 429).count();
    println!("{refused} of {} pages were refused", statuses.len());
    assert!(refused > 0 && statuses.contains(&200), "{statuses:?}");
    // Others are served meanwhile.
    let other = issuer.issue_token(Some("2"), "");
    let url = format!("{}/notifications/2", standalone.consumer);
    let answer = client.get(url).bearer_auth(other).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    victim.expect_little_growth("200 pages and 100 streams that are not read");
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_sends_take_little_memory() {
    let (folder, keys) = (tempfile::tempdir().expect("a folder"), KeyFiles::new());
    let (standalone, issuer) = guarded_standalone(folder.path(), &keys).await;
    let client = Client::new();
    let admin = issuer.issue_token(None, "admin");
    let users: Vec<i64> = (1..=1000).collect();
    let put = |id: &i64| {
        let request = client.put(format!("{}/users/{id}", standalone.producer));
        let request = request.bearer_auth(&admin).json(&json!({ "name": "A user" }));
        async move { request.send().await.expect("an answer").status().is_success() }
    };
    let made: Vec<bool> = stream::iter(users.iter().map(put)).buffer_unordered(16).collect().await;
    assert!(made.into_iter().all(|made| made));

    let victim = Victim::new(standalone.pid());
    let token = issuer.issue_token(Some("1"), "send");
    let all = send(&client, &standalone, &token, 1, &users).await;
    assert_eq!(all, StatusCode::PAYLOAD_TOO_LARGE);
    // As many as one request may have, again and again.
    let sends = (0..20).map(|_| send(&client, &standalone, &token, 1, &users[..700]));
    let statuses = join_all(sends).await;
    let accepted = statuses.iter().filter(|status| status.is_success()).count();
    let limited = statuses.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS);
    println!("{accepted} of {} sends to 700 users were accepted", statuses.len());
    assert!(limited.count() >= 18, "{statuses:?}");
    victim.expect_little_growth("20 sends of 40 KB to 700 users each");
}

fn mock_cluster(backend: &Backend) -> &Cluster {
    match backend {
        Backend::Mock { cluster, .. } => cluster,
        _ => unreachable!("these tests have a mock cluster"),
    }
}

/// Starts consumers of this topic as processes, and waits until they are ready.
async fn start_consumers(
    count: usize,
    backend: &Backend,
    topic: &str,
    flags: &[&str],
    folder: &Path,
) -> Vec<ServiceProcess> {
    let (brokers, group) = (mock_cluster(backend).brokers(), format!("{topic}-group"));
    let common = ["--kafka-brokers", &brokers, "--topic", topic, "--group", &group];
    let arguments = [&common[..], flags].concat();
    let program = build_program("consumer");
    let mut consumers = Vec::new();
    for (number, port) in free_ports(count).into_iter().enumerate() {
        let name = format!("consumer {number}");
        let consumer =
            ServiceProcess::new(&name, program.clone(), &arguments, "--listen", port, folder);
        consumer.start().expect("a process");
        consumers.push(consumer);
    }
    for consumer in &consumers {
        await_ready(&consumer.url).await;
    }
    consumers
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_bodies_take_little_memory_at_the_owner_and_at_its_peer() {
    let (folder, keys) = (tempfile::tempdir().expect("a folder"), KeyFiles::new());
    let topic = unique_name("notifications");
    let backend = Backend::mock(&topic, 12);
    let file = keys.write_secret(SECRET);
    let flags = ["--auth-secret-file", &file, "--body-timeout", "5s"];
    let consumers = start_consumers(2, &backend, &topic, &flags, folder.path()).await;
    let token = Issuer::with_secret(SECRET).issue_token(Some("1"), "send");
    // One of the two is the owner; the other one forwards what it gets.
    let attack = async |consumer: &ServiceProcess| {
        let victim = Victim::new(consumer.pid().expect("a running process"));
        let requests = (0..200).map(|_| async {
            let length = format!("content-length: {}\r\n", 1 << 20);
            let path = "/notifications/1/read";
            let mut connection = ask(&consumer.url, &token, "POST", path, &length).await;
            let _ = connection.write_all(&vec![b' '; (1 << 20) - 1]).await;
            read_status(&mut connection).await
        });
        let statuses = join_all(requests).await;
        let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
        println!("{}: {} × 408, {} × 429", consumer.name, count(Some(408)), count(Some(429)));
        // A refused connection may be reset before its answer is read.
        assert_eq!(count(Some(408)) + count(Some(429)) + count(None), 200, "{statuses:?}");
        assert!(count(Some(408)) > 0, "{statuses:?}");
        victim.expect_little_growth("200 unfinished bodies of 1 MiB");
    };
    for consumer in &consumers {
        attack(consumer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_s_unfinished_requests_leave_others_their_places() {
    let (folder, keys) = (tempfile::tempdir().expect("a folder"), KeyFiles::new());
    let file = keys.write_secret(SECRET);
    let flags = ["--auth-secret-file", &file, "--max-requests", "8"];
    let standalone = Standalone::start_with(folder.path(), &flags).await;
    await_ready(&standalone.consumer).await;
    let issuer = Issuer::with_secret(SECRET);
    let token = issuer.issue_token(Some("1"), "");
    let mut unfinished = Vec::new();
    for _ in 0..12 {
        let path = "/notifications/1/read";
        let length = "content-length: 2\r\n";
        let mut connection = ask(&standalone.consumer, &token, "POST", path, length).await;
        connection.write_all(b" ").await.expect("the server reads");
        unfinished.push(connection);
    }
    // Two are waited for, which are a quarter.
    let answers: FuturesUnordered<_> = unfinished.iter_mut().map(read_status).collect();
    let answers: Vec<_> = answers.take(10).collect().await;
    assert_eq!(answers, [Some(429); 10]);
    let other = issuer.issue_token(Some("2"), "");
    let url = format!("{}/notifications/2", standalone.consumer);
    let answer = Client::new().get(url).bearer_auth(other).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_record_that_is_a_hundred_megabytes_leaves_nothing_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let topic = unique_name("notifications");
    let backend = Backend::mock(&topic, 12);
    let consumers = start_consumers(1, &backend, &topic, &[], folder.path()).await;
    let properties = ["message.max.bytes", "queue.buffering.max.kbytes"];
    let foreign = Kafka::new(KafkaSettings {
        brokers: mock_cluster(&backend).brokers(),
        client_id: "foreign".into(),
        batch: BatchArgs { compression: Compression::Gzip, ..BatchArgs::default() },
        properties: properties.map(|name| (name.to_owned(), "200000000".to_owned())).into(),
    });
    let writer = event_log::Log::Kafka(foreign.expect("clients")).writer();
    let pid = consumers[0].pid().expect("a running process");
    let before = resident_bytes(pid);
    for message in ["x".repeat(100 << 20), "after it".into()] {
        let users = r#""from":{"id":1,"name":"Emma"},"to":{"id":2,"name":"Bruno"}"#;
        let value = format!("{{{users},\"message\":\"{message}\"}}");
        until(|| async {
            let (partition, value) = (home_partition(2), value.clone().into_bytes());
            let record = NewRecord { partition, key: "2".into(), value, headers: Vec::new() };
            match writer.append(&topic, record) {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            }
        })
        .await;
    }
    let client = Client::new();
    let url = format!("{}/notifications/2", consumers[0].url);
    until(|| async {
        let answer = client.get(&url).send().await.expect("an answer");
        let page: Value = answer.json().await.expect("JSON");
        if page["notifications"].as_array().is_some_and(|shown| shown.len() == 1) {
            Ok(())
        } else {
            Err(page["message"].clone())
        }
    })
    .await;
    // librdkafka has decompressed it, and the consumer does not keep it.
    let report = until(|| async {
        let after = resident_bytes(pid);
        let growth = after.saturating_sub(before);
        let [before, peak, now] = [before, peak_bytes(pid), after].map(|bytes| bytes >> 20);
        let report = format!("a bomb: {before} MiB before, {peak} MiB at most, {now} MiB after");
        if growth < MAX_GROWTH_BYTES { Ok(report) } else { Err(report) }
    })
    .await;
    println!("{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_s_receipts_have_a_rate_on_every_transport() {
    let mut world = World::embedded().await;
    world.send(2, 1, "hello").await;
    world.stop_consumer(0).await;
    world.start_consumer(0, &["--receipt-rate", "1"]).await;
    world.expect_inbox(1, &["hello".into()]).await;
    let mut actions = ["read", "unread"].into_iter().cycle();
    let mut mark = async || {
        let action = actions.next().expect("for ever");
        let url = world.consumer_url(&format!("/notifications/1/{action}"));
        world.http().post(url).send().await.expect("an answer")
    };
    // The burst is ten.
    let mut refused = mark().await;
    for _ in 0..1000 {
        if refused.status() != StatusCode::OK {
            break;
        }
        refused = mark().await;
    }
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[RETRY_AFTER], "1");

    let url = world.consumer_url("/notifications/1/ws").replace("http://", "ws://");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a WebSocket");
    let error = timeout(DEADLINE, async {
        for action in ["read", "unread"].into_iter().cycle() {
            let command = format!("{{\"{action}\":{{}}}}");
            socket.send(Message::Text(command.into())).await.expect("it is open");
            loop {
                let Some(Ok(Message::Text(text))) = socket.next().await else { continue };
                let event: Value = serde_json::from_str(&text).expect("JSON");
                match event["event"].as_str() {
                    Some("error") => return event,
                    Some("done") => break,
                    _ => {}
                }
            }
        }
        Value::Null
    });
    let error = error.await.expect("in time");
    assert_eq!((&error["data"]["status"], &error["data"]["retry_after"]), (&json!(429), &json!(1)));
    // Another user has a rate of their own.
    world.send(1, 2, "hello").await;
    world.expect_inbox(2, &["hello".into()]).await;
    let url = world.consumer_url("/notifications/2/read");
    assert_eq!(world.http().post(url).send().await.expect("an answer").status(), StatusCode::OK);
}
