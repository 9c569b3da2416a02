//! Trouble on demand: the in-memory broker goes away, comes back, and is slow.

use std::time::Duration;

use e2e::{World, parts::Parts, until};
use log::mock::Cluster;
use serde_json::Value;

#[allow(clippy::panic)] // A test that asks for this is wrong.
fn cluster(world: &World) -> &Cluster {
    match &world.parts {
        Parts::Mock { cluster, .. } => cluster,
        Parts::Embedded { .. } | Parts::Real { .. } => panic!("not a mock cluster"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_is_a_503_and_its_return_is_found_without_a_restart() {
    let world = World::mock().await;
    world.send(1, 2, "before").await;
    world.expect_inbox(2, &["before".into()]).await;

    cluster(&world).set_up(false);
    // What was read before is still served, until the group's session ends.
    assert_eq!(world.inbox(2).await, ["before"]);
    let refused = until(|| async {
        let response = world.post_form("from_id=1&to_id=3&message=lost").await;
        let status = response.status().as_u16();
        // In the first moment nobody knows yet that the broker is gone: then the outcome is unknown.
        if status == 503 { Ok(response) } else { Err(status) }
    })
    .await;
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.expect("JSON");
    let said = problem["message"].as_str().expect("a message");
    assert!(!said.to_lowercase().contains("kafka") && !said.contains("broker"), "{said}");

    cluster(&world).set_up(true);
    world.send(1, 2, "after").await;
    world.expect_inbox(2, &["before".into(), "after".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_is_late_is_a_504_that_says_what_it_means() {
    let mut world = World::mock().await;
    world.stop_producer().await;
    world.start_producer(&["--send-timeout", "500ms"]).await;
    world.send(1, 2, "quick").await;

    cluster(&world).set_round_trip(Duration::from_secs(2));
    let response = world.post_form("from_id=1&to_id=2&message=slow").await;
    assert_eq!(response.status(), 504);
    let problem: Value = response.json().await.expect("JSON");
    assert!(problem["message"].as_str().is_some_and(|m| m.starts_with("The outcome is unknown")));

    // In this case it was delivered after all, as the answer said that it might be.
    cluster(&world).set_round_trip(Duration::ZERO);
    world.expect_inbox(2, &["quick".into(), "slow".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_another_partition_count_is_a_loud_error() {
    let mut world = World::mock().await;
    world.send(1, 2, "hello").await;
    world.start_consumer(1, &["--partitions", "6"]).await;
    let error = world.consumer_ends(1).await.expect_err("an error");
    assert!(error.contains("has 12 partitions, but 6 are configured"), "{error}");
    assert!(error.contains("--partitions 12"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_start_before_kafka_say_so_and_answer_503() {
    let mut world = World::mock().await;
    world.stop_producer().await;
    world.stop_consumer(0).await;
    cluster(&world).set_up(false);
    world.start_producer(&[]).await;
    world.start_consumer(0, &["--patience", "0s"]).await;

    let sent = world.post_form("from_id=1&to_id=2&message=early").await;
    let read =
        world.http().get(world.consumer("/notifications/2")).send().await.expect("an answer");
    let ready = world.http().get(world.producer("/readyz")).send().await.expect("an answer");
    let live = world.http().get(world.producer("/livez")).send().await.expect("an answer");
    assert_eq!((sent.status().as_u16(), read.status().as_u16()), (503, 503));
    assert_eq!((ready.status().as_u16(), live.status().as_u16()), (503, 200));
    assert!(
        sent.headers().contains_key("retry-after") && read.headers().contains_key("retry-after")
    );

    cluster(&world).set_up(true);
    world.send(1, 2, "at last").await;
    world.expect_inbox(2, &["at last".into()]).await;
    world.ready(&world.producer("")).await;
    world.ready(&world.consumer("")).await;
}
