//! Several consumers share the partitions.

use e2e::{World, until, world::PARTITIONS};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_partitions_on_the_mock_cluster() {
    two_members(World::mock().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn real_two_members_share_the_partitions() {
    two_members(World::real().await).await;
}

async fn two_members(mut world: World) {
    for user in 1..=4 {
        world.send(1, user, "hello").await;
        world.expect_inbox(user, &["hello".into()]).await;
    }
    world.start_consumer(1, &["--patience", "0s"]).await;
    until(|| async {
        let owned = [owned(&world, 0).await, owned(&world, 1).await];
        let all = owned[0].len() + owned[1].len() == PARTITIONS as usize;
        if all && !owned[0].is_empty() && !owned[1].is_empty() { Ok(()) } else { Err(owned) }
    })
    .await;
    for number in [0, 1] {
        world.ready(&world.consumer_number(number, "")).await;
    }
    for user in 1..=4 {
        let mut answers = Vec::new();
        for number in [0, 1] {
            let url = world.consumer_number(number, &format!("/notifications/{user}"));
            let response = world.http().get(url).send().await.expect("an answer");
            let status = response.status().as_u16();
            let retry = response.headers().contains_key("retry-after");
            let body: Value = response.json().await.expect("JSON");
            match status {
                200 => assert_eq!(body["notifications"][0]["message"], "hello"),
                503 => {
                    assert!(retry);
                    assert_eq!(body["state"], "unowned");
                    assert!(body["message"].as_str().is_some_and(|m| m.contains("not owned by this instance")));
                }
                _ => panic!("{status}: {body}"),
            }
            answers.push(status);
        }
        answers.sort_unstable();
        assert_eq!(answers, [200, 503], "exactly one of the two answers for user {user}");
    }
    // One leaves: the other takes everything over.
    world.stop_consumer(1).await;
    for user in 1..=4 {
        world.expect_inbox(user, &["hello".into()]).await;
    }
}

async fn owned(world: &World, number: usize) -> Vec<i64> {
    let response = world.http().get(world.consumer_number(number, "/partitions")).send().await;
    let body: Value = response.expect("an answer").json().await.expect("JSON");
    let partitions = body["partitions"].as_array().expect("a list");
    let live = partitions.iter().filter(|p| p["state"] == "live");
    live.map(|p| p["partition"].as_i64().expect("a number")).collect()
}
