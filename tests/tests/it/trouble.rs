//! Broker faults on demand: the in-memory broker stops, returns, and is slow.

use std::time::Duration;

use consumer::metrics::{LAG, PARTITIONS as STATES};
use e2e::{
    World,
    backend::Backend,
    scrape::Scrape,
    until::{DEADLINE, until},
    world::{PARTITIONS, home_partition, unique_name},
};
use event_log::metrics::{KAFKA_BROKERS, KAFKA_ROUND_TRIP, REBALANCES};
use event_log::{
    Log,
    kafka::{Kafka, KafkaSettings},
    mock::Cluster,
};
use futures_util::{StreamExt as _, stream};
use reqwest::Body;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

#[allow(clippy::panic)] // A test without a mock broker that calls this is wrong.
fn mock_cluster(world: &World) -> &Cluster {
    match &world.backend {
        Backend::Mock { cluster, .. } => cluster,
        Backend::Embedded { .. } | Backend::Real { .. } => panic!("not a mock cluster"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_a_503_and_its_return_is_found_without_a_restart() {
    let world = World::mock().await;
    world.send(1, 2, "before").await;
    world.expect_inbox(2, &["before".into()]).await;

    mock_cluster(&world).set_up(false);
    // The consumer still serves its inboxes until the group's session times out.
    assert_eq!(world.inbox(2).await, ["before"]);
    let refused = until(|| async {
        let response = world.post_form("from_id=1&to_id=3&message=lost").await;
        let status = response.status().as_u16();
        // Until the client notices that the broker is gone, the outcome of a send is unknown (504).
        if status == 503 { Ok(response) } else { Err(status) }
    })
    .await;
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.expect("JSON");
    let said = problem["message"].as_str().expect("a message");
    assert!(!said.to_lowercase().contains("kafka") && !said.contains("broker"), "{said}");

    mock_cluster(&world).set_up(true);
    world.send(1, 2, "after").await;
    world.expect_inbox(2, &["before".into(), "after".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_answered_while_the_broker_is_away_without_the_lag() {
    let world = World::mock().await;
    world.await_ready(&world.consumer_url("")).await;
    let scraped = async || Scrape::fetch(&world, &world.consumer_url("")).await;
    // librdkafka emits statistics every 5 s.
    let before = until(|| async {
        let scrape = scraped().await;
        let told = |client| scrape.count(KAFKA_BROKERS, &[("client", client)]) == 2;
        let all = ["writer", "reader", "follower"].into_iter().all(told)
            && scrape.count(KAFKA_ROUND_TRIP, &[("percentile", "p99")]) >= 1
            && scrape.count(LAG, &[]) == PARTITIONS as usize;
        if all { Ok(scrape) } else { Err(scrape) }
    })
    .await;
    assert!(before.sum(REBALANCES, &[("kind", "assigned")]) >= 1.0);

    mock_cluster(&world).set_up(false);
    let away = until(|| async {
        let scrape = scraped().await;
        if scrape.count(LAG, &[]) == 0 { Ok(scrape) } else { Err(scrape) }
    })
    .await;
    assert_eq!(away.count(STATES, &[]), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_is_late_is_a_504_that_says_what_it_means() {
    let mut world = World::mock().await;
    world.stop_producer().await;
    world.start_producer(&["--send-timeout", "500ms"]).await;
    world.send(1, 2, "quick").await;

    mock_cluster(&world).set_round_trip(Duration::from_secs(2));
    let response = world.post_form("from_id=1&to_id=2&message=slow").await;
    assert_eq!(response.status(), 504);
    let problem: Value = response.json().await.expect("JSON");
    assert!(problem["message"].as_str().is_some_and(|m| m.starts_with("The outcome is unknown")));

    // It was delivered after all, as the answer said that it might be.
    mock_cluster(&world).set_round_trip(Duration::ZERO);
    world.expect_inbox(2, &["quick".into(), "slow".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_send_with_a_key_is_safe_to_repeat() {
    let mut world = World::mock().await;
    world.stop_producer().await;
    world.start_producer(&["--send-timeout", "500ms"]).await;
    world.send(1, 2, "quick").await;
    let send = async || {
        let request = world.http().post(world.producer_url("/send")).header("idempotency-key", "k");
        let body = json!({"from_id": 1, "to_id": 2, "message": "slow"});
        request.json(&body).send().await.expect("an answer")
    };

    mock_cluster(&world).set_round_trip(Duration::from_secs(2));
    let late = send().await;
    assert_eq!(late.status(), 504);
    let problem: Value = late.json().await.expect("JSON");
    let said = problem["message"].as_str().expect("a message");
    assert!(said.contains("Retry with the same Idempotency-Key"), "{said}");

    mock_cluster(&world).set_round_trip(Duration::ZERO);
    let sent = until(|| async {
        let response = send().await;
        if response.status() == 200 { Ok(response) } else { Err(response.status()) }
    })
    .await;
    let sent: Value = sent.json().await.expect("JSON");
    world.send(1, 2, "last").await;
    world.expect_inbox(2, &["quick".into(), "slow".into(), "last".into()]).await;
    assert_eq!(world.read_page(2).await["notifications"][1]["id"], sent["sent"][0]["id"]);
}

/// A world whose producer has a queue for two records.
async fn world_with_small_queue() -> World {
    let mut world = World::mock().await;
    world.stop_producer().await;
    let settings = KafkaSettings {
        brokers: mock_cluster(&world).brokers(),
        client_id: "test-narrow-producer".into(),
        properties: vec![("queue.buffering.max.messages".into(), "2".into())],
        ..KafkaSettings::default()
    };
    world.start_producer_on(Log::Kafka(Kafka::new(settings).expect("clients")), &[]).await;
    world.send(1, 2, "ready").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_a_503_that_says_who_was_reached_and_who_was_not() {
    let world = world_with_small_queue().await;
    mock_cluster(&world).set_round_trip(Duration::from_millis(500));
    let send = async || {
        let request = world.http().post(world.producer_url("/send")).header("idempotency-key", "k");
        let body = json!({"from_id": 1, "to_id": [1, 2, 3, 4], "message": "m"});
        request.json(&body).send().await.expect("an answer")
    };
    let response = send().await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Value = response.json().await.expect("JSON");
    let to = |list: &Value| {
        let list = list.as_array().expect("a list").iter();
        list.map(|entry| entry["to_id"].as_i64().expect("an id")).collect::<Vec<_>>()
    };
    assert_eq!((to(&problem["sent"]), to(&problem["failed"])), (vec![1, 2], vec![3, 4]));
    let failed = &problem["failed"][0];
    assert_eq!(failed["status"], 503);
    assert!(failed["message"].as_str().is_some_and(|m| m.starts_with("Too many notifications")));

    // With the key, the whole send may be retried: no recipient gets it twice.
    mock_cluster(&world).set_round_trip(Duration::ZERO);
    let sent: Value = send().await.json().await.expect("JSON");
    assert_eq!(to(&sent["sent"]), [1, 2, 3, 4]);
    assert_eq!(sent["sent"][0], problem["sent"][0]);
    for user in [1, 3, 4] {
        world.expect_inbox(user, &["m".into()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_waits_for_room_in_a_full_queue() {
    let world = world_with_small_queue().await;
    mock_cluster(&world).set_round_trip(Duration::from_millis(20));
    let lines: Vec<_> = (0..40).map(|n| bulk_line(2, &n.to_string())).collect();
    let request = world.http().post(world.producer_url("/send")).body(lines.concat());
    let response = request.header("content-type", "application/x-ndjson").send().await;
    let text = response.expect("an answer").text().await.expect("a body");
    assert_eq!(text.lines().filter(|line| line.contains("\"status\":200")).count(), 40, "{text}");
    let mut expected = vec!["ready".to_owned()];
    expected.extend((0..40).map(|n| n.to_string()));
    world.expect_inbox(2, &expected).await;
}

fn bulk_line(to: i64, message: &str) -> String {
    format!("{{\"from_id\":1,\"to_id\":{to},\"message\":\"{message}\"}}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_that_stalls_is_told_so_after_the_results_of_what_came() {
    let mut world = World::mock().await;
    world.stop_producer().await;
    world.start_producer(&["--body-timeout", "500ms"]).await;
    world.send(1, 2, "ready").await;
    let begun = format!("{}{}{{\"from_id\":1,", bulk_line(2, "a"), bulk_line(2, "b"));
    let body = stream::iter([Ok::<_, std::io::Error>(begun)]).chain(stream::pending());
    let request = world.http().post(world.producer_url("/send")).body(Body::wrap_stream(body));
    let response = request.header("content-type", "application/x-ndjson").send().await;
    let text = response.expect("an answer").text().await.expect("a whole body");
    let results: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let statuses: Vec<_> = results.iter().map(|r| (&r["line"], &r["status"])).collect();
    let expected = [(1, 200), (2, 200), (3, 408)].map(|(l, s)| (json!(l), json!(s)));
    assert_eq!(statuses, expected.iter().map(|(l, s)| (l, s)).collect::<Vec<_>>());
    world.expect_inbox(2, &["ready".into(), "a".into(), "b".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_of_blanks_does_not_stay_open_for_ever() {
    let mut world = World::mock().await;
    world.stop_producer().await;
    world.start_producer(&["--body-timeout", "500ms"]).await;
    // Blanks within a line, and blank lines.
    for blank in [" ", "\n"] {
        let ticks = stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Some((Ok::<_, std::io::Error>(blank), ()))
        });
        let request = world.http().post(world.producer_url("/send")).body(Body::wrap_stream(ticks));
        let response = request.header("content-type", "application/x-ndjson").send().await;
        let text = response.expect("an answer").text().await.expect("a whole body");
        assert!(text.ends_with("}\n") && text.contains("\"status\":408"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_had_no_end_when_the_bulk_broke_off_is_not_sent() {
    let world = World::mock().await;
    world.send(1, 2, "ready").await;
    let address = world.producer_url("");
    let mut client =
        TcpStream::connect(address.trim_start_matches("http://")).await.expect("a connection");
    let lines =
        format!("{}{}{}", bulk_line(2, "a"), bulk_line(2, "b"), bulk_line(2, "c").trim_end());
    let head = "POST /send HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
                content-length: 100000\r\n\r\n";
    client.write_all(format!("{head}{lines}").as_bytes()).await.expect("written");
    // The results of complete lines arrive while the producer still waits for the rest.
    let mut answer = String::new();
    while answer.matches("\"status\":200").count() < 2 {
        let mut bytes = [0; 4096];
        let read = timeout(DEADLINE, client.read(&mut bytes)).await.expect("in time");
        let read = read.expect("an answer");
        assert!(read > 0, "the answer ended: {answer}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    drop(client);
    world.send(1, 2, "after").await;
    world.expect_inbox(2, &["ready", "a", "b", "after"].map(str::to_owned)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_whose_answers_nobody_reads_is_not_read_either_and_ends_with_its_client() {
    let world = World::mock().await;
    world.send(1, 2, "ready").await;
    let address = world.producer_url("");
    let mut client =
        TcpStream::connect(address.trim_start_matches("http://")).await.expect("a connection");
    let head = "POST /send HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n\
                content-length: 1000000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.expect("written");
    let lines = "{\"from_id\":\"nobody\"}\n".repeat(3000);
    let mut written = 0;
    while timeout(Duration::from_secs(3), client.write_all(lines.as_bytes())).await.is_ok() {
        written += lines.len();
        assert!(written < 64 << 20, "{written} bytes are neither answered nor refused");
    }
    // Other clients are served meanwhile and afterwards.
    world.send(1, 2, "beside it").await;
    drop(client);
    world.send(1, 2, "after it").await;
    world.expect_inbox(2, &["ready".into(), "beside it".into(), "after it".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_is_found_and_nothing_is_lost_or_doubled() {
    let topic = unique_name("notifications");
    let world = World::with_backend(Backend::mock_with_brokers(3, &topic, PARTITIONS), topic).await;
    let mut sent = Vec::new();
    for round in 0..6 {
        for n in 0..20 {
            let message = format!("{round} {n}");
            world.send(1, 2, &message).await;
            sent.push(message);
        }
        mock_cluster(&world)
            .set_leader(&world.topic, home_partition(2), 1 + round % 3)
            .expect("a broker");
    }
    world.expect_inbox(2, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_failed_for_good_is_replaced_without_a_restart() {
    let world = World::mock().await;
    world.send(1, 2, "before").await;
    mock_cluster(&world).fail_sequence();
    // This send may have been written; its answer must not be 200.
    let response = world.post_form("from_id=1&to_id=3&message=unknown").await;
    assert!(matches!(response.status().as_u16(), 503 | 504), "{}", response.status());
    world.send(1, 2, "after").await;
    world.expect_inbox(2, &["before".into(), "after".into()]).await;
    world.await_ready(&world.producer_url("")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_without_an_offset_is_an_unknown_outcome() {
    let world = World::mock().await;
    world.send(1, 2, "before").await;
    mock_cluster(&world).forget_offset();
    let response = world.post_form("from_id=1&to_id=2&message=repeated").await;
    assert_eq!(response.status(), 504);
    world.send(1, 2, "after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_another_partition_count_is_a_loud_error() {
    let mut world = World::mock().await;
    world.send(1, 2, "hello").await;
    world.start_consumer(1, &["--partitions", "6"]).await;
    let error = world.await_consumer_end(1).await.expect_err("an error");
    assert!(error.contains("has 12 partitions, but 6 are configured"), "{error}");
    assert!(error.contains("--partitions 12"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_start_before_kafka_say_so_and_answer_503() {
    let mut world = World::mock().await;
    world.stop_producer().await;
    world.stop_consumer(0).await;
    mock_cluster(&world).set_up(false);
    world.start_producer(&[]).await;
    world.start_consumer(0, &["--read-timeout", "0s"]).await;

    let sent = world.post_form("from_id=1&to_id=2&message=early").await;
    let read =
        world.http().get(world.consumer_url("/notifications/2")).send().await.expect("an answer");
    let ready = world.http().get(world.producer_url("/readyz")).send().await.expect("an answer");
    let live = world.http().get(world.producer_url("/livez")).send().await.expect("an answer");
    assert_eq!((sent.status().as_u16(), read.status().as_u16()), (503, 503));
    assert_eq!((ready.status().as_u16(), live.status().as_u16()), (503, 200));
    assert!(
        sent.headers().contains_key("retry-after") && read.headers().contains_key("retry-after")
    );

    mock_cluster(&world).set_up(true);
    world.send(1, 2, "at last").await;
    world.expect_inbox(2, &["at last".into()]).await;
    world.await_ready(&world.producer_url("")).await;
    world.await_ready(&world.consumer_url("")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_answers_and_takes_nothing_turns_readiness_red_where_a_canary_flies() {
    let mut world = World::mock().await;
    world.stop_producer().await;
    world.stop_consumer(0).await;
    world.start_producer(&["--canary", "100ms"]).await;
    world.start_consumer(0, &["--canary", "100ms"]).await;
    let bases = [world.producer_url(""), world.consumer_url("")];
    let arrives = async || {
        for base in &bases {
            until(|| async {
                let ready = world.http().get(format!("{base}/readyz")).send().await;
                let ready: Value = ready.expect("an answer").json().await.expect("JSON");
                if ready["checks"]["canary"]["detail"]["seconds"].is_number() {
                    Ok(())
                } else {
                    Err(ready)
                }
            })
            .await;
        }
    };
    arrives().await;
    world.send(1, 2, "before").await;
    world.expect_inbox(2, &["before".into()]).await;

    mock_cluster(&world).set_rejecting(true);
    for base in &bases {
        until(|| async {
            let ready = world.http().get(format!("{base}/readyz")).send().await;
            let ready: Value = ready.expect("an answer").json().await.expect("JSON");
            let checks = &ready["checks"];
            // The broker still answers metadata requests.
            let red = checks["kafka"]["ok"] == true && checks["canary"]["ok"] == false;
            if red && ready["status"] == 503 { Ok(()) } else { Err(ready) }
        })
        .await;
    }
    mock_cluster(&world).set_rejecting(false);
    arrives().await;
    // The canary's records are in no inbox.
    for user in 1..=4 {
        assert_eq!(world.inbox(user).await.len(), usize::from(user == 2));
    }
}
