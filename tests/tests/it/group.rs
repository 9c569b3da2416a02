//! Several consumers share the partitions, and any of them answers for any user.

use consumer::metrics::{FORWARDED, STREAMS};
use e2e::{
    World,
    scrape::Scrape,
    stream_client::{StreamClient, Transport},
    until,
    world::{PARTITIONS, page_messages},
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn any_of_two_instances_answers_for_any_user_on_the_mock_cluster() {
    expect_any_instance_answers(World::mock().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn real_any_of_two_instances_answers_for_any_user() {
    expect_any_instance_answers(World::real().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_not_the_owner_says_so_and_passes_nothing_on() {
    let mut world = World::mock().await;
    world.send(1, 2, "hello").await;
    start_second_consumer(&mut world).await;
    let mut statuses = Vec::new();
    for number in [0, 1] {
        let url = world.nth_consumer_url(number, "/notifications/2");
        let request = world.http().get(url).header("x-notifications-hop", "1");
        statuses.push(request.send().await.expect("an answer").status().as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 421]);
}

/// Starts a second consumer and waits until both have live partitions, and together all.
async fn start_second_consumer(world: &mut World) {
    world.start_consumer(1, &[]).await;
    until(|| async {
        let owned = [live_partitions(world, 0).await, live_partitions(world, 1).await];
        let all = owned[0].len() + owned[1].len() == PARTITIONS as usize;
        if all && !owned[0].is_empty() && !owned[1].is_empty() { Ok(()) } else { Err(owned) }
    })
    .await;
    for number in [0, 1] {
        world.await_ready(&world.nth_consumer_url(number, "")).await;
    }
}

async fn expect_any_instance_answers(mut world: World) {
    for user in 1..=4 {
        world.send(1, user, "hello").await;
        world.expect_inbox(user, &["hello".into()]).await;
    }
    start_second_consumer(&mut world).await;
    for user in 1..=4 {
        let mut pages = Vec::new();
        for number in [0, 1] {
            pages.push(read_from(&world, number, user).await);
        }
        assert_eq!(page_messages(&pages[0]), ["hello"]);
        // The page's cursor may have advanced between the two reads.
        assert_eq!(pages[0]["notifications"], pages[1]["notifications"]);
    }
    // A receipt through one instance is shown by the other.
    for user in 1..=4 {
        let url = world.nth_consumer_url(1, &format!("/notifications/{user}/read"));
        let answer: Value =
            world.http().post(url).send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!((&answer["changed"], &answer["unread"]), (&json!(1), &json!(0)));
        assert_eq!(read_from(&world, 0, user).await["notifications"][0]["read"], true);
    }
    // Both instances stream the same events.
    let mut listeners = Vec::new();
    for user in 1..=4 {
        for number in [0, 1] {
            for transport in Transport::ALL {
                let base = world.nth_consumer_url(number, "");
                let opened = StreamClient::open(transport, &base, user, "").await;
                let mut listener = opened.expect("an open stream");
                listener.expect_event("state").await;
                assert_eq!(listener.next_messages(1).await, ["hello"]);
                listeners.push((user, transport, listener));
            }
        }
    }
    // One of the two instances of each user's streams is not the owner.
    let mut forwarded = 0.0;
    for number in [0, 1] {
        let scrape = Scrape::fetch(&world, &world.nth_consumer_url(number, "")).await;
        forwarded += scrape.sum(STREAMS, &[("kind", "forwarded")]);
        assert!(scrape.sum(FORWARDED, &[("outcome", "answered")]) >= 12.0);
    }
    assert_eq!(forwarded, 12.0);
    for user in 1..=4 {
        world.send(1, user, "live").await;
    }
    for (_, _, listener) in &mut listeners {
        assert_eq!(listener.next_messages(1).await, ["live"]);
    }
    // One instance stops: the other takes over everything, receipts too. Its clients resume by
    // cursor and miss no event.
    world.stop_consumer(1).await;
    for user in 1..=4 {
        world.send(1, user, "after").await;
    }
    for (user, transport, mut listener) in listeners {
        loop {
            match listener.next_event().await {
                Some(event) if event["event"] == "notification" => {
                    assert_eq!(event["data"]["message"], "after");
                    break;
                }
                Some(event) => assert_eq!(event["event"], "end"),
                None => {
                    let base = world.consumer_url("");
                    let since = format!("since={}", listener.cursor.as_ref().expect("a cursor"));
                    listener = until(|| StreamClient::open(transport, &base, user, &since)).await;
                    listener.expect_event("state").await;
                }
            }
        }
    }
    for user in 1..=4 {
        world.expect_inbox(user, &["hello".into(), "live".into(), "after".into()]).await;
        assert_eq!(world.read_page(user).await["unread"], 2);
    }
}

async fn read_from(world: &World, number: usize, user: i64) -> Value {
    until(|| async {
        let url = world.nth_consumer_url(number, &format!("/notifications/{user}"));
        let response = world.http().get(url).send().await.expect("an answer");
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        if status == 200 { Ok(body) } else { Err(body) }
    })
    .await
}

async fn live_partitions(world: &World, number: usize) -> Vec<i64> {
    let response = world.http().get(world.nth_consumer_url(number, "/partitions")).send().await;
    let body: Value = response.expect("an answer").json().await.expect("JSON");
    let partitions = body["partitions"].as_array().expect("a list");
    let live = partitions.iter().filter(|p| p["state"] == "live");
    live.map(|p| p["partition"].as_i64().expect("a number")).collect()
}
