//! Producer and consumer as processes that keep their addresses over restarts, so that a page
//! reconnects.

use std::path::Path;

use e2e::{
    backend::Backend,
    process::build_program,
    service_process::{ServiceProcess, free_ports},
    until,
    world::{home_partition, unique_name},
};
use event_log::{Log, NewRecord, embedded::Embedded};
use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A foreign producer's record: recipient, value, and time if not now.
pub(super) type Foreign = (i64, Value, Option<Timestamp>);

/// A standalone, or a producer and a consumer.
pub(super) struct Installation {
    /// The server of the page: the consumer, or the standalone.
    pub(super) consumer: ServiceProcess,
    /// `None` with a standalone, which is the producer too.
    producer: Option<ServiceProcess>,
    producer_url: String,
    /// `None` with a standalone, which has its own.
    backend: Option<Backend>,
    topic: String,
    http: Client,
    folder: TempDir,
}

impl Installation {
    /// Starts a standalone on a folder of its own.
    pub(super) async fn standalone() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ports, urls) = free_addresses();
        let data = folder.path().join("data");
        let arguments = [
            "--data-dir",
            to_utf8(&data),
            "--producer-listen",
            urls[0].trim_start_matches("http://"),
        ];
        let consumer = ServiceProcess::new(
            "standalone",
            build_program("standalone"),
            &arguments,
            "--consumer-listen",
            ports[1],
            folder.path(),
        );
        Self::start(consumer, None, urls, None, "notifications".into(), folder).await
    }

    /// Starts a producer and a consumer on the Kafka and PostgreSQL that the environment names.
    pub(super) async fn real() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (ports, urls) = free_addresses();
        let topic = unique_name("notifications");
        let group = format!("{topic}-group");
        let backend = Backend::real(&topic.replace('-', "_")).await;
        let Backend::Real { brokers, database_url, .. } = &backend else {
            unreachable!("asked for")
        };
        let common = ["--kafka-brokers", brokers, "--topic", &topic];
        let sends = ["--database-url", database_url, "--migrate", "--cors-origins", &urls[1]];
        let reads = ["--group", &group, "--producer-url", &urls[0]];
        let member = |name, arguments: &[&str], port| {
            let arguments = [&common, arguments].concat();
            ServiceProcess::new(
                name,
                build_program(name),
                &arguments,
                "--listen",
                port,
                folder.path(),
            )
        };
        let producer = member("producer", &sends, ports[0]);
        let consumer = member("consumer", &reads, ports[1]);
        Self::start(consumer, Some(producer), urls, Some(backend), topic, folder).await
    }

    async fn start(
        consumer: ServiceProcess,
        producer: Option<ServiceProcess>,
        [producer_url, _]: [String; 2],
        backend: Option<Backend>,
        topic: String,
        folder: TempDir,
    ) -> Self {
        let http = Client::builder().timeout(until::DEADLINE).build().expect("a client");
        let installation = Self { consumer, producer, producer_url, backend, topic, http, folder };
        for member in installation.producer.iter().chain([&installation.consumer]) {
            member.start().expect("the program");
        }
        installation.await_ready().await;
        installation
    }

    /// The URL of a user's inbox page.
    pub(super) fn page_url(&self, user: i64) -> String {
        format!("{}/?user={user}", self.consumer.url)
    }

    /// Returns true if the producer accepts sends while the consumer is down.
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

    /// Appends these records directly to the log. A standalone must be down.
    pub(super) async fn append_foreign(&self, records: &[Foreign]) {
        let log = match &self.backend {
            Some(backend) => backend.connect_log("test-foreign-producer"),
            None => {
                let file = self.folder.path().join("data").join("log.db");
                Log::Embedded(Embedded::open(&file).await.expect("the log, not in use"))
            }
        };
        for (to, value, sent_at) in records {
            until(|| async {
                let record = NewRecord {
                    partition: home_partition(*to),
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

    /// Waits until all started processes are ready.
    pub(super) async fn await_ready(&self) {
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
        for ServiceProcess { name, .. } in self.producer.iter().chain([&self.consumer]) {
            let said = std::fs::read_to_string(self.folder.path().join(format!("{name}.log")));
            eprintln!("--- {name}:\n{}", said.unwrap_or_default());
        }
    }
}

/// Ports for a producer and a consumer, and their URLs.
fn free_addresses() -> ([u16; 2], [String; 2]) {
    let ports = free_ports(2).try_into().expect("two free ports");
    (ports, ports.map(|port| format!("http://127.0.0.1:{port}")))
}

fn to_utf8(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
