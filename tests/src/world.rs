//! One installation, and what people do with it.

use std::{collections::BTreeMap, time::Duration};

use clap::Parser;
use event_log::{Log, NewRecord, Position};
use model::{Partitioner, UserId};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{parts::Parts, until};

/// Partitions of every world's topic, unless it is said otherwise.
pub const PARTITIONS: u32 = 12;

/// The path of the consumer's answer to a request; see [`World::inbox`].
pub type Inbox = Vec<(String, String, String)>;

/// An installation: its parts and the services that run.
pub struct World {
    /// The log and the directory.
    pub parts: Parts,
    /// The notifications' topic, of this world alone.
    pub topic: String,
    http: Client,
    producer: Option<Service>,
    consumers: BTreeMap<usize, Service>,
}

/// A service that runs within the test.
struct Service {
    url: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl Service {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

impl World {
    /// On the embedded log, with a producer and a consumer.
    pub async fn embedded() -> Self {
        Self::on(Parts::embedded().await, unique("notifications")).await
    }

    /// On librdkafka's in-memory broker, with a producer and a consumer.
    pub async fn mock() -> Self {
        let topic = unique("notifications");
        Self::on(Parts::mock(&topic, PARTITIONS), topic).await
    }

    /// On the real Kafka and PostgreSQL of the environment, with a producer and a consumer.
    pub async fn real() -> Self {
        let topic = unique("notifications");
        let database = topic.replace('-', "_");
        Self::on(Parts::real(&database).await, topic).await
    }

    /// On these parts, with a producer and a consumer.
    pub async fn on(parts: Parts, topic: String) -> Self {
        // Shown with a test that fails; RUST_LOG says how much.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let http = Client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
        let mut world = Self { parts, topic, http, producer: None, consumers: BTreeMap::new() };
        world.start_producer(&[]).await;
        world.start_consumer(0, &[]).await;
        world
    }

    /// Starts both again with these flags besides; a producer and a consumer have them alike.
    pub async fn restart_with(&mut self, flags: &[&str]) {
        self.stop_producer().await;
        self.stop_consumer(0).await;
        self.start_producer(flags).await;
        self.start_consumer(0, flags).await;
    }

    /// Starts the producer with these flags besides.
    pub async fn start_producer(&mut self, flags: &[&str]) {
        let log = self.parts.log("test-producer");
        self.start_producer_on(log, flags).await;
    }

    /// Starts the producer with these clients of the log, and these flags besides.
    pub async fn start_producer_on(&mut self, log: Log, flags: &[&str]) {
        let arguments =
            ["producer", "--topic", &self.topic].into_iter().chain(flags.iter().copied());
        let settings = producer::cli::Cli::parse_from(arguments).settings;
        let directory = self.parts.directory().await;
        let started = start(|listener, shutdown| async move {
            let run = producer::run(settings, log, directory, listener, shutdown);
            run.await.map_err(|error| error.to_string())
        });
        self.producer = Some(started.await);
    }

    /// Stops the producer, as SIGTERM would.
    pub async fn stop_producer(&mut self) {
        self.producer.take().expect("a running producer").stop().await;
    }

    /// Starts consumer number `number` with these flags besides.
    pub async fn start_consumer(&mut self, number: usize, flags: &[&str]) {
        let group = format!("{}-group", self.topic);
        let arguments = ["consumer", "--topic", &self.topic, "--group", &group];
        let arguments = arguments.into_iter().chain(flags.iter().copied());
        let settings = consumer::cli::Cli::parse_from(arguments).settings;
        let log = self.parts.log("test-consumer");
        let started = start(|listener, shutdown| async move {
            let run = consumer::run(settings, log, listener, shutdown);
            run.await.map_err(|error| error.to_string())
        });
        assert!(self.consumers.insert(number, started.await).is_none(), "consumer {number} runs");
    }

    /// Stops consumer number `number`, as SIGTERM would.
    pub async fn stop_consumer(&mut self, number: usize) {
        self.consumers.remove(&number).expect("a running consumer").stop().await;
    }

    /// How consumer number `number` ended by itself.
    pub async fn consumer_ends(&mut self, number: usize) -> Result<(), String> {
        self.consumers.remove(&number).expect("a consumer").task.await.expect("no panic")
    }

    /// The producer's URL of this path.
    pub fn producer(&self, path: &str) -> String {
        format!("{}{path}", self.producer.as_ref().expect("a running producer").url)
    }

    /// Consumer 0's URL of this path.
    pub fn consumer(&self, path: &str) -> String {
        self.consumer_number(0, path)
    }

    /// Consumer `number`'s URL of this path.
    pub fn consumer_number(&self, number: usize, path: &str) -> String {
        format!("{}{path}", self.consumers[&number].url)
    }

    /// The client that every request is made with.
    pub fn http(&self) -> &Client {
        &self.http
    }

    /// Posts this form to `/send`, exactly as `curl -d` would: nothing is encoded.
    pub async fn post_form(&self, body: impl Into<String>) -> Response {
        self.http
            .post(self.producer("/send"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.into())
            .send()
            .await
            .expect("an answer")
    }

    /// Posts this JSON to `/send`.
    pub async fn post_json(&self, body: &Value) -> Response {
        self.http.post(self.producer("/send")).json(body).send().await.expect("an answer")
    }

    /// Sends, as soon as the producer is ready to, and returns the answer.
    pub async fn send(&self, from: i64, to: i64, message: &str) -> Value {
        let body = format!("from_id={from}&to_id={to}&message={message}");
        until(|| async {
            let response = self.post_form(body.clone()).await;
            let status = response.status();
            // 503 says that nothing was sent; anything else must be right at once.
            assert!(
                status == StatusCode::OK || status == StatusCode::SERVICE_UNAVAILABLE,
                "{status}"
            );
            let answer: Value = response.json().await.expect("JSON");
            if status == StatusCode::OK { Ok(answer) } else { Err(answer) }
        })
        .await
    }

    /// What `GET /notifications/{user}` answers at consumer 0, as soon as that is 200.
    pub async fn read(&self, user: i64) -> Value {
        until(|| async {
            let url = self.consumer(&format!("/notifications/{user}"));
            let response = self.http.get(url).send().await.expect("an answer");
            let status = response.status();
            let body: Value = response.json().await.expect("JSON");
            if status == StatusCode::OK { Ok(body) } else { Err(body) }
        })
        .await
    }

    /// The messages in a user's inbox at consumer 0, oldest first.
    pub async fn inbox(&self, user: i64) -> Vec<String> {
        messages(&self.read(user).await)
    }

    /// Waits until a user's inbox at consumer 0 holds exactly these messages, in this order.
    pub async fn expect_inbox(&self, user: i64, expected: &[String]) {
        until(|| async {
            let found = self.inbox(user).await;
            if found == expected { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Waits until the service at this URL says that it is ready.
    pub async fn ready(&self, base: &str) {
        until(|| async {
            let response = self.http.get(format!("{base}/readyz")).send().await.expect("an answer");
            let ready = response.status() == StatusCode::OK;
            let body = response.text().await.expect("a body");
            if ready { Ok(()) } else { Err(body) }
        })
        .await;
    }

    /// Appends a record as another producer would, without going through ours.
    pub async fn append_raw(&self, partition: i32, key: &str, value: &str) -> Position {
        let log = self.parts.log("test-foreign-producer");
        until(|| async {
            let record =
                NewRecord { partition, key: key.into(), value: value.into(), headers: Vec::new() };
            match log.writer().append(&self.topic, record) {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            }
        })
        .await
    }
}

/// The messages of a page, oldest first.
pub fn messages(page: &Value) -> Vec<String> {
    let notifications = page["notifications"].as_array().expect("a list of notifications");
    notifications.iter().map(|n| n["message"].as_str().expect("a message").to_owned()).collect()
}

/// Where this user's inbox lives in a world with the usual partitions.
pub fn home(user: i64) -> i32 {
    let user = UserId::new(user).expect("positive");
    Partitioner::default().partition_for(user.record_key().as_bytes(), PARTITIONS)
}

/// A name that no other test has, not even in another run.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::now_v7().simple())
}

async fn start<F>(run: impl FnOnce(TcpListener, CancellationToken) -> F) -> Service
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(run(listener, shutdown.clone()));
    Service { url, shutdown, task }
}
