//! A Kafka that wants TLS and a login or a certificate, and a PostgreSQL that wants TLS: what works
//! with them, and what is said to an operator where it does not.

use std::{fs, path::Path, time::Duration};

use clap::Parser;
use e2e::{
    World,
    member::{Member, free_ports},
    parts::Parts,
    process::program,
    real::Instance,
    until,
    world::unique,
};
use event_log::settings::SecurityArgs;
use serde_json::Value;

/// The flags that producer and consumer share.
#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    security: SecurityArgs,
}

/// A world on this listener of a secured broker, and on this secured server.
async fn world(brokers: &str, flags: &[String], server: &str) -> World {
    let flags = Flags::parse_from([&["test".to_owned()], flags].concat());
    let security = flags.security.to_security().expect("right flags");
    let topic = unique("notifications");
    let database = topic.replace('-', "_");
    World::on(Parts::secured(brokers.to_owned(), security, server, &database).await, topic).await
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Over TLS, as the user of a secured broker.
fn login(kafka: &Instance, mechanism: &str) -> Vec<String> {
    let (ca, password) = (kafka.secret("ca.pem"), kafka.secret("password"));
    let tls = ["--kafka-security", "sasl-tls", "--kafka-ca", &ca];
    let user = ["--kafka-username", "notifications", "--kafka-password-file", &password];
    strings(&[&tls[..], &["--kafka-sasl-mechanism", mechanism], &user].concat())
}

/// Where a secured broker wants certificates.
fn wants_certificates(kafka: &Instance) -> String {
    let settings = fs::read_to_string(kafka.secret("mtls.conf")).expect("settings for kcat");
    let address = settings.lines().find_map(|line| line.strip_prefix("bootstrap.servers="));
    address.expect("an address").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn scram_over_tls_carries_a_notification_and_survives_the_broker_s_restart() {
    let (kafka, postgres) = (Instance::start_secure("kafka"), Instance::start_secure("postgres"));
    let flags = login(&kafka, "SCRAM-SHA-512");
    let world = world(&kafka.address, &flags, &postgres.address).await;
    world.send(2, 1, "before").await;
    world.expect_inbox(1, &["before".into()]).await;

    kafka.does("stop");
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
    let (kafka, postgres) = (Instance::start_secure("kafka"), Instance::start_secure("postgres"));
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let world = world(&kafka.address, &login(&kafka, mechanism), &postgres.address).await;
        world.send(2, 1, mechanism).await;
        world.expect_inbox(1, &[mechanism.into()]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: task test:real"]
async fn a_certificate_is_enough_for_kafka_and_for_postgres() {
    let (kafka, postgres) = (Instance::start_secure("kafka"), Instance::start_secure("postgres"));
    let secrets = ["ca.pem", "client.pem", "client.key", "password"];
    let [ca, certificate, key, password] = secrets.map(|file| kafka.secret(file));
    let tls = ["--kafka-security", "tls", "--kafka-ca", &ca, "--kafka-cert", &certificate];
    // The key is encrypted.
    let key = ["--kafka-key", &key, "--kafka-key-password-file", &password];
    let flags = strings(&[&tls[..], &key].concat());

    let (_, place) = postgres.address.split_once('@').expect("a URL with a user");
    let server = format!(
        "postgres://client@{place}&sslcert={}&sslkey={}",
        postgres.secret("client.pem"),
        postgres.secret("client-plain.key")
    );
    let world = world(&wants_certificates(&kafka), &flags, &server).await;
    world.send(2, 1, "certified").await;
    world.expect_inbox(1, &["certified".into()]).await;
}

/// Starts `name` with these flags, waits until it says to whoever asks that it is not ready, with all
/// of these words, and ends it. Neither there nor in its log is any of `secrets`.
async fn is_turned_away(name: &str, flags: &[String], words: &[&str], secrets: &[&str]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let flags = [&["--log", "debug"], &flags[..]].concat();
    let port = free_ports(1)[0];
    let member = Member::new(name, program(name), &flags, "--listen", port, folder.path());
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
    assert_eq!(member.died(), None);
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
    let (kafka, postgres) = (Instance::start_secure("kafka"), Instance::start_secure("postgres"));
    let password = fs::read_to_string(kafka.secret("password")).expect("a password");
    let brokers = |address: &str| strings(&["--kafka-brokers", address]);
    let database = |url: &str| strings(&["--database-url", url]);
    let sasl = brokers(&kafka.address);
    let ca = kafka.secret("ca.pem");

    // A wrong password for either.
    let mut wrong = login(&kafka, "SCRAM-SHA-512");
    wrong.truncate(wrong.len() - 2);
    wrong.extend(strings(&["--kafka-password", "hunter2"]));
    let (_, place) = postgres.address.split_once('@').expect("a URL with a user");
    let url = database(&format!("postgres://notifications:hunter3@{place}"));
    let words = ["refuses the login", "--kafka-username", "refuses the user"];
    let flags = [&sasl[..], &wrong, &url].concat();
    is_turned_away("producer", &flags, &words, &["hunter2", "hunter3"]).await;
    let flags = [&sasl[..], &wrong].concat();
    is_turned_away("consumer", &flags, &words[..2], &["hunter2"]).await;

    // An authority that has signed neither.
    let mut unknown = login(&kafka, "PLAIN");
    let place = unknown.iter().position(|flag| *flag == ca).expect("an authority");
    unknown[place] = postgres.secret("ca.pem");
    let (server, _) = postgres.address.split_once("sslrootcert=").expect("a URL with an authority");
    let url = database(&format!("{server}sslrootcert={ca}"));
    let words = ["--kafka-ca", "check sslrootcert"];
    let flags = [&sasl[..], &unknown, &url].concat();
    is_turned_away("producer", &flags, &words, &[&password]).await;

    // No certificate where one is wanted, and no TLS where that is.
    let tls = strings(&["--kafka-security", "tls", "--kafka-ca", &ca]);
    let flags = [&brokers(&wants_certificates(&kafka))[..], &tls].concat();
    is_turned_away("consumer", &flags, &["--kafka-cert and --kafka-key"], &[]).await;
    is_turned_away("consumer", &sasl, &["--kafka-security"], &[]).await;
    is_turned_away("consumer", &[&sasl[..], &tls].concat(), &["--kafka-security"], &[]).await;
}
