//! Producer and consumer as processes whose addresses outlive them, so that a page finds them again
//! where they were.

use std::path::Path;

use e2e::{
    member::{Member, free_ports},
    parts::Parts,
    process::program,
    until,
    world::{home, unique},
};
use event_log::{Log, NewRecord, embedded::Embedded};
use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Somebody else's record: its recipient, its value, and when it was sent if not now.
pub(super) type Foreign = (i64, Value, Option<Timestamp>);

/// A standalone, or a producer and a consumer.
pub(super) struct Installation {
    /// What serves the page: the consumer, or the standalone.
    pub(super) consumer: Member,
    /// None: the standalone is the producer too.
    producer: Option<Member>,
    producer_url: String,
    /// None: a standalone's own.
    parts: Option<Parts>,
    topic: String,
    http: Client,
    folder: TempDir,
}

impl Installation {
    /// A standalone on a folder of its own.
    pub(super) async fn standalone() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ports, urls) = addresses();
        let data = folder.path().join("data");
        let arguments =
            ["--data-dir", utf8(&data), "--producer-listen", urls[0].trim_start_matches("http://")];
        let consumer = Member::new(
            "standalone",
            program("standalone"),
            &arguments,
            "--consumer-listen",
            ports[1],
            folder.path(),
        );
        Self::start(consumer, None, urls, None, "notifications".into(), folder).await
    }

    /// A producer and a consumer on the real Kafka and PostgreSQL of the environment.
    pub(super) async fn real() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ports, urls) = addresses();
        let topic = unique("notifications");
        let group = format!("{topic}-group");
        let parts = Parts::real(&topic.replace('-', "_")).await;
        let Parts::Real { brokers, database_url, .. } = &parts else { unreachable!("asked for") };
        let common = ["--kafka-brokers", brokers, "--topic", &topic];
        let sends = ["--database-url", database_url, "--migrate", "--cors-origins", &urls[1]];
        let reads = ["--group", &group, "--producer-url", &urls[0]];
        let member = |name, arguments: &[&str], port| {
            let arguments = [&common, arguments].concat();
            Member::new(name, program(name), &arguments, "--listen", port, folder.path())
        };
        let producer = member("producer", &sends, ports[0]);
        let consumer = member("consumer", &reads, ports[1]);
        Self::start(consumer, Some(producer), urls, Some(parts), topic, folder).await
    }

    async fn start(
        consumer: Member,
        producer: Option<Member>,
        [producer_url, _]: [String; 2],
        parts: Option<Parts>,
        topic: String,
        folder: TempDir,
    ) -> Self {
        let http = Client::builder().timeout(until::DEADLINE).build().expect("a client");
        let installation = Self { consumer, producer, producer_url, parts, topic, http, folder };
        for member in installation.producer.iter().chain([&installation.consumer]) {
            member.start().expect("the program");
        }
        installation.ready().await;
        installation
    }

    /// The address of a user's inbox page.
    pub(super) fn page(&self, user: i64) -> String {
        format!("{}/?user={user}", self.consumer.url)
    }

    /// Whether sending goes on while the consumer is away.
    pub(super) fn still_sends(&self) -> bool {
        self.producer.is_some()
    }

    /// Sends, and waits for the acknowledgement.
    pub(super) async fn send(&self, from: i64, to: i64, message: &str) {
        let url = format!("{}/send", self.producer_url);
        let body = json!({ "from_id": from, "to_id": to, "message": message });
        let response = self.http.post(url).json(&body).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
    }

    /// Writes these records as another producer would. A standalone must be down.
    pub(super) async fn append(&self, records: &[Foreign]) {
        let log = match &self.parts {
            Some(parts) => parts.log("test-foreign-producer"),
            None => {
                let file = self.folder.path().join("data").join("log.db");
                Log::Embedded(Embedded::open(&file).await.expect("the log, not in use"))
            }
        };
        for (to, value, sent_at) in records {
            until(|| async {
                let record = NewRecord {
                    partition: home(*to),
                    key: to.to_string().into(),
                    value: value.to_string().into(),
                    headers: sent_at
                        .map(|at| ("ce_time", at.to_string().into_bytes().into()))
                        .into_iter()
                        .collect(),
                };
                match log.writer().append(&self.topic, record) {
                    Ok(ack) => ack.await,
                    Err(error) => Err(error),
                }
            })
            .await;
        }
        if let Log::Embedded(log) = log {
            log.close().await;
        }
    }

    /// Waits until all that was started says that it is ready.
    pub(super) async fn ready(&self) {
        for base in [&self.producer_url, &self.consumer.url] {
            until(|| async {
                let response = self.http.get(format!("{base}/readyz")).send().await;
                let response = response.map_err(|error| error.to_string())?;
                let ready = response.status() == StatusCode::OK;
                let body = response.text().await.map_err(|error| error.to_string())?;
                if ready { Ok(()) } else { Err(body) }
            })
            .await;
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for Member { name, .. } in self.producer.iter().chain([&self.consumer]) {
            let said = std::fs::read_to_string(self.folder.path().join(format!("{name}.log")));
            eprintln!("--- {name}:\n{}", said.unwrap_or_default());
        }
    }
}

/// Ports for a producer and a consumer, and their URLs.
fn addresses() -> ([u16; 2], [String; 2]) {
    let ports = free_ports(2).try_into().expect("two free ports");
    (ports, ports.map(|port| format!("http://127.0.0.1:{port}")))
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
