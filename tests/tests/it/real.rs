//! Tests that need a real Kafka and a real PostgreSQL.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use e2e::{
    World,
    backend::Backend,
    real::RealServer,
    until,
    world::{home_partition, unique_name},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_record_written_by_kcat_in_the_tutorial_s_format_is_shown() {
    let world = World::real().await;
    world.send(2, 1, "ours").await;
    let value =
        r#"{"from":{"id":2,"name":"Bruno"},"to":{"id":1,"name":"Emma"},"message":"from kcat"}"#;
    // The second has a header whose name is not UTF-8, at which the client library panics.
    produce_with_kcat(&world, &format!("1={value}"), &["-K", "="]);
    let second = value.replace("from kcat", "odd header");
    let odd = std::ffi::OsStr::new("-H");
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe=1");
    produce_with_kcat_arguments(
        &world,
        &format!("1={second}"),
        &["-K".as_ref(), "=".as_ref(), odd, name],
    );
    world.expect_inbox(1, &["ours".into(), "from kcat".into(), "odd header".into()]).await;
    assert_eq!(
        world.read_page(1).await["notifications"][1]["cursor"]
            .as_str()
            .map(|c| c.starts_with(&format!("{}-", home_partition(1)))),
        Some(true)
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_broker_s_restart_loses_nothing_and_needs_no_restart_of_ours() {
    let broker = RealServer::start("kafka");
    let server = std::env::var("TEST_DATABASE_URL").expect("TEST_DATABASE_URL");
    let topic = unique_name("notifications");
    let backend =
        Backend::from_servers(broker.address.clone(), &server, &topic.replace('-', "_")).await;
    let world = World::with_backend(backend, topic).await;
    let mut sent: Vec<_> = (0..10).map(|n| format!("before {n}")).collect();
    for message in &sent {
        world.send(1, 2, message).await;
    }
    world.expect_inbox(2, &sent).await;
    for (round, way) in ["kill", "stop", "pause"].into_iter().enumerate() {
        broker.run_action(way);
        assert_eq!(world.inbox(2).await, sent, "still served, until the group's session ends");
        until(|| async {
            let status =
                world.post_form("from_id=1&to_id=3&message=nobody+hears").await.status().as_u16();
            if status == 503 { Ok(()) } else { Err(status) }
        })
        .await;
        if way == "pause" {
            broker.run_action("resume");
        } else {
            broker.start_again("kafka");
        }
        let message = format!("after {round}");
        // The outcome of sends in flight to a frozen broker may stay unknown for a while after it
        // resumes; with a key it is safe to retry.
        until(|| async {
            let request =
                world.http().post(world.producer_url("/send")).header("idempotency-key", way);
            let body = json!({ "from_id": 1, "to_id": 2, "message": message });
            let status = request.json(&body).send().await.expect("an answer").status().as_u16();
            if status == 200 { Ok(()) } else { Err(status) }
        })
        .await;
        sent.push(message);
        world.expect_inbox(2, &sent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn postgres_away_is_a_503_and_its_return_is_found_without_a_restart() {
    let server = RealServer::start("postgres");
    let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS");
    let topic = unique_name("notifications");
    let backend = Backend::from_servers(brokers, &server.address, &topic.replace('-', "_")).await;
    let world = World::with_backend(backend, topic).await;
    world.send(1, 2, "before").await;

    for way in ["kill", "stop", "pause"] {
        server.run_action(way);
        // Cached names are used until the lost connection is noticed, which takes seconds if no
        // packet tells of it.
        let response = until(|| async {
            let response = world.post_form("from_id=1&to_id=3&message=perhaps").await;
            if response.status() == 503 { Ok(response) } else { Err(way) }
        })
        .await;
        assert!(response.headers().contains_key("retry-after"));
        let said = response.text().await.expect("a body");
        assert!(
            said.contains("user directory") && !said.contains("sqlx") && !said.contains("5432"),
            "{said}"
        );
        let ready =
            world.http().get(world.producer_url("/readyz")).send().await.expect("an answer");
        assert_eq!(ready.status(), 503);
        if way == "pause" {
            server.run_action("resume");
        } else {
            server.start_again("postgres");
        }
        world.send(1, 2, way).await;
    }
    world.expect_inbox(2, &["before".into(), "kill".into(), "stop".into(), "pause".into()]).await;
}

/// A direct connection to the world's users table.
async fn connect_to_users(world: &World) -> PgConnection {
    let Backend::Real { database_url, .. } = &world.backend else { unreachable!("a real world") };
    PgConnection::connect(database_url).await.expect("a connection")
}

async fn rename_user(users: &mut PgConnection, name: &str) {
    let statement = sqlx::query("UPDATE users SET name = $1 WHERE id = 1").bind(name);
    assert_eq!(statement.execute(users).await.expect("done").rows_affected(), 1);
}

/// Sends from user 1 and returns the sender's name in the recipient's inbox.
async fn shown_sender_name(world: &World, message: &str) -> String {
    world.send(1, 2, message).await;
    until(|| async {
        let page = world.read_page(2).await;
        let last = page["notifications"].as_array().and_then(|all| all.last().cloned());
        let last = last.unwrap_or_default();
        let name = last["from"]["name"].as_str().unwrap_or_default().to_owned();
        if last["message"] == message { Ok(name) } else { Err(last) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_user_renamed_or_deleted_with_plain_sql_is_seen_by_the_sends_that_follow() {
    let world = World::real().await;
    let mut users = connect_to_users(&world).await;
    world.send(1, 2, "ready").await;
    // Long enough for the cache to be used, and shorter than its lease, so that only the
    // notification can invalidate it.
    for n in 0..5 {
        let name = format!("Emma {n}");
        shown_sender_name(&world, "cached").await;
        rename_user(&mut users, &name).await;
        let renamed = Instant::now();
        let mut tries = 0;
        while shown_sender_name(&world, &format!("{n}-{tries}")).await != name {
            tries += 1;
            assert!(renamed.elapsed() < Duration::from_secs(3), "{name} after {tries}");
        }
        sleep(Duration::from_millis(300)).await;
    }
    sqlx::query("DELETE FROM users WHERE id = 1").execute(&mut users).await.expect("done");
    let deleted = Instant::now();
    while world.post_form("from_id=1&to_id=3&message=gone").await.status() != 404 {
        assert!(deleted.elapsed() < Duration::from_secs(3), "user 1 can still send");
    }
    sqlx::query("TRUNCATE users").execute(&mut users).await.expect("done");
    let emptied = Instant::now();
    while world.post_form("from_id=3&to_id=4&message=gone").await.status() != 404 {
        assert!(emptied.elapsed() < Duration::from_secs(1), "user 3 can still send");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_producer_that_cannot_hear_of_changes_serves_no_stale_name() {
    let world = World::real().await;
    let mut users = connect_to_users(&world).await;
    world.send(1, 2, "ready").await;
    let listeners = "FROM pg_stat_activity WHERE datname = current_database() \
                     AND pid <> pg_backend_pid() AND query LIKE '%pg_notify($1%'";
    for n in 0..5 {
        shown_sender_name(&world, &format!("cached {n}")).await;
        until(|| async {
            let kill =
                AssertSqlSafe(format!("SELECT count(pg_terminate_backend(pid)) {listeners}"));
            let killed: i64 = sqlx::query_scalar(kill)
                .fetch_one(&mut self::connect_to_users(&world).await)
                .await
                .expect("done");
            if killed == 1 { Ok(()) } else { Err(killed) }
        })
        .await;
        until(|| async {
            let left = AssertSqlSafe(format!("SELECT count(*) {listeners}"));
            let left: i64 = sqlx::query_scalar(left)
                .fetch_one(&mut self::connect_to_users(&world).await)
                .await
                .expect("done");
            if left == 0 { Ok(()) } else { Err(left) }
        })
        .await;
        let name = format!("Emma {n}");
        rename_user(&mut users, &name).await;
        assert_eq!(shown_sender_name(&world, &n.to_string()).await, name);
    }

    // The same holds for a table without triggers, as soon as the producer notices.
    sqlx::query("DROP FUNCTION users_changed CASCADE").execute(&mut users).await.expect("done");
    sleep(Duration::from_secs(5)).await;
    for name in ["Emma", "Emma again"] {
        rename_user(&mut users, name).await;
        assert_eq!(shown_sender_name(&world, name).await, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn known_names_need_no_database_until_it_is_known_to_be_away() {
    let server = RealServer::start("postgres");
    let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS");
    let topic = unique_name("notifications");
    let backend = Backend::from_servers(brokers, &server.address, &topic.replace('-', "_")).await;
    let world = World::with_backend(backend, topic).await;
    world.send(1, 2, "ready").await;
    // The listener needs a moment at the start, and may need a second attempt.
    until(|| async {
        world.send(1, 2, "known").await;
        server.run_action("pause");
        let status = world.post_form("from_id=1&to_id=2&message=cached").await.status().as_u16();
        server.run_action("resume");
        if status == 200 { Ok(()) } else { Err(status) }
    })
    .await;
    server.run_action("pause");
    let paused = Instant::now();
    while world.post_form("from_id=1&to_id=3&message=m").await.status() == 200 {
        assert!(paused.elapsed() < Duration::from_secs(8), "a name is trusted for too long");
        sleep(Duration::from_millis(50)).await;
    }
    server.run_action("resume");
    world.send(1, 4, "back").await;
}

fn produce_with_kcat(world: &World, line: &str, arguments: &[&str]) {
    let arguments: Vec<_> = arguments.iter().map(std::ffi::OsStr::new).collect();
    produce_with_kcat_arguments(world, line, &arguments);
}

fn produce_with_kcat_arguments(world: &World, line: &str, arguments: &[&std::ffi::OsStr]) {
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
