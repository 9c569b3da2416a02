//! A partition that cannot follow its log says so everywhere, and never that an inbox is empty.

use std::{fs::File, os::unix::fs::FileExt as _};

use consumer::metrics::{BEHIND_SECONDS, PARTITIONS as STATES};
use e2e::{
    World,
    backend::Backend,
    real::RealServer,
    scrape::Scrape,
    until::{DEADLINE, until},
    world::{home_partition, unique_name},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use serde_json::{Value, json};

/// Waits until the user's inbox is refused because its partition is behind.
async fn await_refusal(world: &World, user: i64) -> Value {
    until(|| async {
        let url = world.consumer_url(&format!("/notifications/{user}"));
        let response = world.http().get(url).send().await.expect("an answer");
        let status = response.status().as_u16();
        let problem: Value = response.json().await.expect("JSON");
        if status == 503 && problem["state"] == "behind" { Ok(problem) } else { Err(problem) }
    })
    .await
}

async fn get_json(world: &World, url: String) -> (u16, Value) {
    let response = world.http().get(url).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_read_is_behind_wherever_its_state_is_told() {
    let mut world = World::mock().await;
    world.stop_consumer(0).await;
    world.start_consumer(0, &["--read-timeout", "100ms", "--canary", "1s"]).await;
    world.await_ready(&world.consumer_url("")).await;
    world.send(1, 2, "before").await;
    world.expect_inbox(2, &["before".into()]).await;

    let Backend::Mock { cluster, .. } = &world.backend else { unreachable!("a mock cluster") };
    cluster.set_unreadable(true);
    world.send(1, 2, "unreadable").await;
    let problem = await_refusal(&world, 2).await;
    assert_eq!(problem["partition"], home_partition(2));
    let cause = problem["cause"].as_str().expect("a cause");
    assert!(cause.contains("cannot be read"), "{cause}");
    assert!(problem["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{problem}");

    let (_, body) = get_json(&world, world.consumer_url("/partitions")).await;
    let home = usize::try_from(home_partition(2)).expect("a partition");
    let row = &body["partitions"][home];
    assert_eq!((&row["state"], &row["cause"]), (&json!("behind"), &json!(cause)), "{row}");

    let marked = world.http().post(world.consumer_url("/notifications/2/read"));
    assert_eq!(marked.send().await.expect("an answer").status(), 503);

    // The canary may first time out in another partition that is about to be behind.
    until(|| async {
        let (status, ready) = get_json(&world, world.consumer_url("/readyz")).await;
        let says_behind = |check: &str| {
            let check = &ready["checks"][check];
            check["ok"] == false
                && check["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.contains("is behind its log since"))
        };
        if status == 503 && says_behind("partitions") && says_behind("canary") {
            Ok(())
        } else {
            Err(ready)
        }
    })
    .await;
    let scrape = Scrape::fetch(&world, &world.consumer_url("")).await;
    assert!(scrape.sum(STATES, &[("state", "behind")]) >= 1.0);
    assert!(scrape.sum(BEHIND_SECONDS, &[]) > 0.0);

    cluster.set_unreadable(false);
    until(|| async {
        let (_, page) = get_json(&world, world.consumer_url("/notifications/2")).await;
        let shown = page["notifications"].as_array().map(Vec::len);
        if shown == Some(2) { Ok(()) } else { Err(page) }
    })
    .await;
    world.await_ready(&world.consumer_url("")).await;
    let scrape = Scrape::fetch(&world, &world.consumer_url("")).await;
    assert_eq!(scrape.sum(BEHIND_SECONDS, &[]), 0.0);
}

fn brokers(world: &World) -> &str {
    match &world.backend {
        Backend::Real { brokers, .. } => brokers,
        Backend::Embedded { .. } | Backend::Mock { .. } => unreachable!("not a real broker"),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_hung_transaction_of_a_foreign_client_hides_no_acknowledged_notification_in_silence() {
    let mut world = World::real().await;
    world.stop_consumer(0).await;
    world.start_consumer(0, &["--read-timeout", "1s"]).await;
    world.await_ready(&world.consumer_url("")).await;
    let home = home_partition(2);
    let other = (1..5).find(|user| home_partition(*user) != home).expect("another partition");
    let foreign: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers(&world))
        .set("transactional.id", &world.topic)
        .create()
        .expect("a producer");
    foreign.init_transactions(DEADLINE).expect("initialised");
    foreign.begin_transaction().expect("begun");
    let record: FutureRecord<'_, str, str> =
        FutureRecord::to(&world.topic).partition(home).key("2").payload("{}");
    foreign.send(record, DEADLINE).await.expect("acknowledged");

    world.send(1, 2, "acknowledged").await;
    let problem = await_refusal(&world, 2).await;
    let cause = problem["cause"].as_str().expect("a cause");
    assert!(cause.contains("unfinished transaction"), "{cause}");
    world.send(1, other, "elsewhere").await;
    world.expect_inbox(other, &["elsewhere".into()]).await;

    foreign.abort_transaction(DEADLINE).expect("aborted");
    world.await_ready(&world.consumer_url("")).await;
    world.expect_inbox(2, &["acknowledged".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn neither_service_is_ready_without_its_topic() {
    let world = World::real().await;
    for base in [world.producer_url(""), world.consumer_url("")] {
        world.await_ready(&base).await;
    }
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers(&world))
        .create()
        .expect("an admin client");
    admin.delete_topics(&[&world.topic], &AdminOptions::new()).await.expect("deleted");
    for (base, check) in [(world.producer_url(""), "kafka"), (world.consumer_url(""), "partitions")]
    {
        until(|| async {
            let (status, ready) = get_json(&world, format!("{base}/readyz")).await;
            let detail = ready["checks"][check]["detail"].as_str().unwrap_or_default().to_owned();
            if status == 503 && detail.contains("does not exist") { Ok(()) } else { Err(ready) }
        })
        .await;
    }
}

/// Replaces the first byte of the only record with this text.
fn damage_record(broker: &RealServer, topic: &str, partition: i32, text: &str, byte: u8) {
    let path = broker.segment_file(topic, partition);
    let bytes = std::fs::read(&path).expect("the records");
    let at = bytes.windows(text.len()).position(|part| part[1..] == text.as_bytes()[1..]);
    let at = u64::try_from(at.expect("the record")).expect("an offset");
    let file = File::options().write(true).open(&path).expect("the records");
    file.write_all_at(&[byte], at).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_damaged_batch_is_never_passed_over_and_read_once_it_is_whole_again() {
    let broker = RealServer::start("kafka");
    let server = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL");
    let topic = unique_name("notifications");
    let backend =
        Backend::from_servers(broker.address.clone(), &server, &topic.replace('-', "_")).await;
    let mut world = World::with_backend(backend, topic).await;
    world.stop_producer().await;
    world.start_producer(&["--compression", "none"]).await;
    world.await_ready(&world.producer_url("")).await;
    world.send(1, 2, "before").await;
    world.expect_inbox(2, &["before".into()]).await;
    world.stop_consumer(0).await;
    world.send(1, 2, "damaged").await;
    let topic = world.topic.clone();
    let damage = |byte| damage_record(&broker, &topic, home_partition(2), "damaged", byte);
    damage(b'#');
    world.send(1, 2, "after").await;

    world.start_consumer(0, &["--read-timeout", "1s"]).await;
    let problem = await_refusal(&world, 2).await;
    let cause = problem["cause"].as_str().expect("a cause");
    assert!(cause.contains("cannot be read: a batch"), "{cause}");
    let scrape = Scrape::fetch(&world, &world.consumer_url("")).await;
    assert_eq!(scrape.sum(STATES, &[("state", "behind")]), 1.0);

    damage(b'd');
    world.await_ready(&world.consumer_url("")).await;
    world.expect_inbox(2, &["before".into(), "damaged".into(), "after".into()]).await;
}
