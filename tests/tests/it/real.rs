//! What only a real Kafka and a real PostgreSQL can show.

use std::process::Command;

use e2e::{
    World,
    parts::Parts,
    real::Instance,
    until,
    world::{home, unique},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_record_written_by_kcat_in_the_tutorial_s_format_is_shown() {
    let world = World::real().await;
    world.send(2, 1, "ours").await;
    let value =
        r#"{"from":{"id":2,"name":"Bruno"},"to":{"id":1,"name":"Emma"},"message":"from kcat"}"#;
    // The second has a header whose name is not UTF-8, at which the client library panics.
    kcat(&world, &format!("1={value}"), &["-K", "="]);
    let second = value.replace("from kcat", "odd header");
    let odd = std::ffi::OsStr::new("-H");
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe=1");
    kcat_with(&world, &format!("1={second}"), &["-K".as_ref(), "=".as_ref(), odd, name]);
    world.expect_inbox(1, &["ours".into(), "from kcat".into(), "odd header".into()]).await;
    assert_eq!(
        world.read(1).await["notifications"][1]["cursor"]
            .as_str()
            .map(|c| c.starts_with(&format!("{}-", home(1)))),
        Some(true)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_broker_s_restart_loses_nothing_and_needs_no_restart_of_ours() {
    let broker = Instance::start("kafka");
    let server = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL");
    let topic = unique("notifications");
    let parts = Parts::on(broker.address.clone(), &server, &topic.replace('-', "_")).await;
    let world = World::on(parts, topic).await;
    let mut sent: Vec<_> = (0..10).map(|n| format!("before {n}")).collect();
    for message in &sent {
        world.send(1, 2, message).await;
    }
    world.expect_inbox(2, &sent).await;
    for (round, way) in ["kill", "stop"].into_iter().enumerate() {
        broker.does(way);
        assert_eq!(world.inbox(2).await, sent, "still served, until the group's session ends");
        until(|| async {
            let status =
                world.post_form("from_id=1&to_id=3&message=nobody+hears").await.status().as_u16();
            if status == 503 { Ok(()) } else { Err(status) }
        })
        .await;
        broker.start_again("kafka");
        let message = format!("after {round}");
        world.send(1, 2, &message).await;
        sent.push(message);
        world.expect_inbox(2, &sent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn postgres_away_is_a_503_and_its_return_is_found_without_a_restart() {
    let server = Instance::start("postgres");
    let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS");
    let topic = unique("notifications");
    let parts = Parts::on(brokers, &server.address, &topic.replace('-', "_")).await;
    let world = World::on(parts, topic).await;
    world.send(1, 2, "before").await;

    for way in ["kill", "stop", "pause"] {
        server.does(way);
        let response = world.post_form("from_id=1&to_id=2&message=nobody+knows+them").await;
        assert_eq!(response.status(), 503, "{way}");
        assert!(response.headers().contains_key("retry-after"));
        let said = response.text().await.expect("a body");
        assert!(
            said.contains("user directory") && !said.contains("sqlx") && !said.contains("5432"),
            "{said}"
        );
        let ready = world.http().get(world.producer("/readyz")).send().await.expect("an answer");
        assert_eq!(ready.status(), 503);
        if way == "pause" {
            server.does("resume");
        } else {
            server.start_again("postgres");
        }
        world.send(1, 2, way).await;
    }
    world.expect_inbox(2, &["before".into(), "kill".into(), "stop".into(), "pause".into()]).await;
}

fn kcat(world: &World, line: &str, arguments: &[&str]) {
    let arguments: Vec<_> = arguments.iter().map(std::ffi::OsStr::new).collect();
    kcat_with(world, line, &arguments);
}

fn kcat_with(world: &World, line: &str, arguments: &[&std::ffi::OsStr]) {
    let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS");
    let mut child = Command::new("kcat")
        .args(["-P", "-b", &brokers, "-t", &world.topic, "-X", "topic.partitioner=murmur2_random"])
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("kcat");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), line.as_bytes())
        .expect("written");
    assert!(child.wait().expect("an end").success());
}
