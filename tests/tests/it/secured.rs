//! A Kafka that wants TLS and a login or a certificate, and a PostgreSQL that wants TLS: what works
//! with them, and the errors that an operator sees otherwise.

use std::{fs, path::Path, time::Duration};

use clap::Parser;
use e2e::{
    World,
    backend::Backend,
    process::build_program,
    real::RealServer,
    service_process::{ServiceProcess, free_ports},
    until,
    world::unique_name,
};
use event_log::settings::SecurityArgs;
use serde_json::Value;

/// The flags that producer and consumer share.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    security: SecurityArgs,
}

/// A world on this listener of a secured broker and this secured PostgreSQL.
async fn secured_world(brokers: &str, flags: &[String], server: &str) -> World {
    let flags = Flags::parse_from([&["test".to_owned()], flags].concat());
    let properties = flags.security.to_properties().expect("right flags");
    let topic = unique_name("notifications");
    let database = topic.replace('-', "_");
    World::with_backend(
        Backend::from_secured_servers(brokers.to_owned(), properties, server, &database).await,
        topic,
    )
    .await
}

fn to_strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Flags for TLS and a login as the user of a secured broker.
fn login_flags(kafka: &RealServer, mechanism: &str) -> Vec<String> {
    let (ca, password) = (kafka.secret_file("ca.pem"), kafka.secret_file("password"));
    let tls = ["--kafka-security", "sasl-tls", "--kafka-ca", &ca];
    let user = ["--kafka-username", "notifications", "--kafka-password-file", &password];
    to_strings(&[&tls[..], &["--kafka-sasl-mechanism", mechanism], &user].concat())
}

/// The secured broker's listener that requires client certificates.
fn certificate_listener(kafka: &RealServer) -> String {
    let settings = fs::read_to_string(kafka.secret_file("mtls.conf")).expect("settings for kcat");
    let address = settings.lines().find_map(|line| line.strip_prefix("bootstrap.servers="));
    address.expect("an address").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn scram_over_tls_carries_a_notification_and_survives_the_broker_s_restart() {
    let (kafka, postgres) =
        (RealServer::start_secure("kafka"), RealServer::start_secure("postgres"));
    let flags = login_flags(&kafka, "SCRAM-SHA-512");
    let world = secured_world(&kafka.address, &flags, &postgres.address).await;
    world.send(2, 1, "before").await;
    world.expect_inbox(1, &["before".into()]).await;

    kafka.run_action("stop");
    until(|| async {
        let status = world.post_form("from_id=2&to_id=3&message=nobody+hears").await.status();
        if status == 503 { Ok(()) } else { Err(status) }
    })
    .await;
    kafka.start_again("kafka");
    world.send(2, 1, "after").await;
    world.expect_inbox(1, &["before".into(), "after".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn plain_over_tls_and_the_shorter_scram_carry_a_notification() {
    let (kafka, postgres) =
        (RealServer::start_secure("kafka"), RealServer::start_secure("postgres"));
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let world =
            secured_world(&kafka.address, &login_flags(&kafka, mechanism), &postgres.address).await;
        world.send(2, 1, mechanism).await;
        world.expect_inbox(1, &[mechanism.into()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_certificate_is_enough_for_kafka_and_for_postgres() {
    let (kafka, postgres) =
        (RealServer::start_secure("kafka"), RealServer::start_secure("postgres"));
    let secrets = ["ca.pem", "client.pem", "client.key", "password"];
    let [ca, certificate, key, password] = secrets.map(|file| kafka.secret_file(file));
    let tls = ["--kafka-security", "tls", "--kafka-ca", &ca, "--kafka-cert", &certificate];
    // The key is encrypted.
    let key = ["--kafka-key", &key, "--kafka-key-password-file", &password];
    let flags = to_strings(&[&tls[..], &key].concat());

    let (_, place) = postgres.address.split_once('@').expect("a URL with a user");
    let server = format!(
        "postgres://client@{place}&sslcert={}&sslkey={}",
        postgres.secret_file("client.pem"),
        postgres.secret_file("client-plain.key")
    );
    let world = secured_world(&certificate_listener(&kafka), &flags, &server).await;
    world.send(2, 1, "certified").await;
    world.expect_inbox(1, &["certified".into()]).await;
}

/// Starts `name` with these flags, waits until `/readyz` answers 503 with all of these words, and
/// ends it. Neither the answer nor the log may contain one of `secrets`.
async fn expect_turned_away(name: &str, flags: &[String], words: &[&str], secrets: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let flags = [&["--log", "debug"], &flags[..]].concat();
    let port = free_ports(1)[0];
    let member =
        ServiceProcess::new(name, build_program(name), &flags, "--listen", port, folder.path());
    member.start().expect("a process");
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build();
    let client = client.expect("a client");
    let get = async |path: &str| client.get(format!("{}{path}", member.url)).send().await;
    let said = until(|| async {
        let response = get("/readyz").await.map_err(|error| error.to_string())?;
        let status = response.status();
        let said: Value = response.json().await.map_err(|error| error.to_string())?;
        let said = said["checks"].to_string();
        assert_eq!(status, 503, "{said}");
        if words.iter().all(|word| said.contains(word)) { Ok(said) } else { Err(said) }
    })
    .await;
    assert_eq!(get("/livez").await.expect("an answer").status(), 200);
    assert_eq!(member.take_exit_report(), None);
    member.terminate().await.expect("a clean end");
    let log = fs::read_to_string(Path::new(folder.path()).join(format!("{name}.log")));
    let log = log.expect("a log");
    for secret in secrets {
        assert!(!said.contains(secret), "{said}");
        assert!(!log.contains(secret), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn whoever_is_turned_away_stays_up_and_says_why_without_a_secret() {
    let (kafka, postgres) =
        (RealServer::start_secure("kafka"), RealServer::start_secure("postgres"));
    let password = fs::read_to_string(kafka.secret_file("password")).expect("a password");
    let brokers = |address: &str| to_strings(&["--kafka-brokers", address]);
    let database = |url: &str| to_strings(&["--database-url", url]);
    let sasl = brokers(&kafka.address);
    let ca = kafka.secret_file("ca.pem");

    // Wrong passwords for Kafka and PostgreSQL.
    let mut wrong = login_flags(&kafka, "SCRAM-SHA-512");
    wrong.truncate(wrong.len() - 2);
    wrong.extend(to_strings(&["--kafka-password", "hunter2"]));
    let (_, place) = postgres.address.split_once('@').expect("a URL with a user");
    let url = database(&format!("postgres://notifications:hunter3@{place}"));
    let words = ["refuses the login", "--kafka-username", "refuses the user"];
    let flags = [&sasl[..], &wrong, &url].concat();
    expect_turned_away("producer", &flags, &words, &["hunter2", "hunter3"]).await;
    let flags = [&sasl[..], &wrong].concat();
    expect_turned_away("consumer", &flags, &words[..2], &["hunter2"]).await;

    // A CA that signed neither certificate.
    let mut unknown = login_flags(&kafka, "PLAIN");
    let place = unknown.iter().position(|flag| *flag == ca).expect("an authority");
    unknown[place] = postgres.secret_file("ca.pem");
    let (server, _) = postgres.address.split_once("sslrootcert=").expect("a URL with an authority");
    let url = database(&format!("{server}sslrootcert={ca}"));
    let words = ["--kafka-ca", "check sslrootcert"];
    let flags = [&sasl[..], &unknown, &url].concat();
    expect_turned_away("producer", &flags, &words, &[&password]).await;

    // No client certificate where one is required, and no TLS where it is required.
    let tls = to_strings(&["--kafka-security", "tls", "--kafka-ca", &ca]);
    let flags = [&brokers(&certificate_listener(&kafka))[..], &tls].concat();
    expect_turned_away("consumer", &flags, &["--kafka-cert and --kafka-key"], &[]).await;
    expect_turned_away("consumer", &sasl, &["--kafka-security"], &[]).await;
    expect_turned_away("consumer", &[&sasl[..], &tls].concat(), &["--kafka-security"], &[]).await;
}
