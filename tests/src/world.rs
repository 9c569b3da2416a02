//! One installation, with verbs for what its users do.

use std::{collections::BTreeMap, time::Duration};

use clap::Parser;
use event_log::{Log, NewRecord, Position};
use model::{Partitioner, UserId};
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{backend::Backend, until};

/// Default partition count of a world's topic.
pub const PARTITIONS: u32 = 12;

/// The path of the consumer's answer to a request; see [`World::inbox`].
pub type Inbox = Vec<(String, String, String)>;

/// An installation: a backend and running services.
pub struct World {
    /// The log and the directory.
    pub backend: Backend,
    /// The notifications topic; every world has its own.
    pub topic: String,
    http: Client,
    producer: Option<RunningService>,
    consumers: BTreeMap<usize, RunningService>,
}

/// A service that runs inside the test process.
struct RunningService {
    url: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl RunningService {
    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

impl World {
    /// A producer and a consumer on the embedded log.
    pub async fn embedded() -> Self {
        Self::with_backend(Backend::embedded().await, unique_name("notifications")).await
    }

    /// A producer and a consumer on librdkafka's in-memory broker.
    pub async fn mock() -> Self {
        let topic = unique_name("notifications");
        Self::with_backend(Backend::mock(&topic, PARTITIONS), topic).await
    }

    /// A producer and a consumer on the Kafka and PostgreSQL that the environment names.
    pub async fn real() -> Self {
        let topic = unique_name("notifications");
        let database = topic.replace('-', "_");
        Self::with_backend(Backend::real(&database).await, topic).await
    }

    /// A producer and a consumer on this backend.
    pub async fn with_backend(backend: Backend, topic: String) -> Self {
        // The output of a failed test shows the logs; RUST_LOG selects the level.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let http = Client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
        let mut world = Self { backend, topic, http, producer: None, consumers: BTreeMap::new() };
        world.start_producer(&[]).await;
        world.start_consumer(0, &[]).await;
        world
    }

    /// Restarts both services with these additional flags, which both must know.
    pub async fn restart_with(&mut self, flags: &[&str]) {
        self.stop_producer().await;
        self.stop_consumer(0).await;
        self.start_producer(flags).await;
        self.start_consumer(0, flags).await;
    }

    /// Starts the producer with these additional flags.
    pub async fn start_producer(&mut self, flags: &[&str]) {
        let log = self.backend.connect_log("test-producer");
        self.start_producer_on(log, flags).await;
    }

    /// Starts the producer with these clients of the log and these additional flags.
    pub async fn start_producer_on(&mut self, log: Log, flags: &[&str]) {
        let arguments =
            ["producer", "--topic", &self.topic].into_iter().chain(flags.iter().copied());
        let settings = producer::cli::ProducerCli::parse_from(arguments).settings;
        let directory = self.backend.open_directory().await;
        let started = start_service(|listener, shutdown| async move {
            let run = producer::run(settings, log, directory, listener, shutdown);
            run.await.map_err(|error| error.to_string())
        });
        self.producer = Some(started.await);
    }

    /// Stops the producer, as SIGTERM would.
    pub async fn stop_producer(&mut self) {
        self.producer.take().expect("a running producer").stop().await;
    }

    /// Starts consumer number `number` with these additional flags.
    pub async fn start_consumer(&mut self, number: usize, flags: &[&str]) {
        let group = format!("{}-group", self.topic);
        let arguments = ["consumer", "--topic", &self.topic, "--group", &group];
        let arguments = arguments.into_iter().chain(flags.iter().copied());
        let settings = consumer::cli::ConsumerCli::parse_from(arguments).settings;
        let log = self.backend.connect_log(&consumer_client_id(number));
        let started = start_service(|listener, shutdown| async move {
            let run = consumer::run(settings, log, listener, shutdown);
            run.await.map_err(|error| error.to_string())
        });
        assert!(self.consumers.insert(number, started.await).is_none(), "consumer {number} runs");
    }

    /// Stops consumer number `number`, as SIGTERM would.
    pub async fn stop_consumer(&mut self, number: usize) {
        self.consumers.remove(&number).expect("a running consumer").stop().await;
    }

    /// Waits until consumer number `number` ends by itself, and returns its result.
    pub async fn await_consumer_end(&mut self, number: usize) -> Result<(), String> {
        self.consumers.remove(&number).expect("a consumer").task.await.expect("no panic")
    }

    /// The producer's URL of this path.
    pub fn producer_url(&self, path: &str) -> String {
        format!("{}{path}", self.producer.as_ref().expect("a running producer").url)
    }

    /// Consumer 0's URL of this path.
    pub fn consumer_url(&self, path: &str) -> String {
        self.nth_consumer_url(0, path)
    }

    /// Consumer `number`'s URL of this path.
    pub fn nth_consumer_url(&self, number: usize, path: &str) -> String {
        format!("{}{path}", self.consumers[&number].url)
    }

    /// The HTTP client of all requests.
    pub fn http(&self) -> &Client {
        &self.http
    }

    /// Posts this form to `/send` as `curl -d` does, without encoding it.
    pub async fn post_form(&self, body: impl Into<String>) -> Response {
        self.http
            .post(self.producer_url("/send"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.into())
            .send()
            .await
            .expect("an answer")
    }

    /// Posts this JSON to `/send`.
    pub async fn post_json(&self, body: &Value) -> Response {
        self.http.post(self.producer_url("/send")).json(body).send().await.expect("an answer")
    }

    /// Sends a notification, retries while the producer answers 503, and returns the answer's body.
    pub async fn send(&self, from: i64, to: i64, message: &str) -> Value {
        let body = format!("from_id={from}&to_id={to}&message={message}");
        until(|| async {
            let response = self.post_form(body.clone()).await;
            let status = response.status();
            // A 503 says that nothing was sent, so it is safe to retry. Any other failure fails the
            // test.
            assert!(
                status == StatusCode::OK || status == StatusCode::SERVICE_UNAVAILABLE,
                "{status}"
            );
            let answer: Value = response.json().await.expect("JSON");
            if status == StatusCode::OK { Ok(answer) } else { Err(answer) }
        })
        .await
    }

    /// Sends "hello" with this token.
    pub async fn send_with(&self, token: &str, from: i64, to: i64) {
        let body = serde_json::json!({ "from_id": from, "to_id": to, "message": "hello" });
        let request = self.http.post(self.producer_url("/send")).bearer_auth(token).json(&body);
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    }

    /// The page of `GET /notifications/{user}` from consumer 0, once it answers 200.
    pub async fn read_page(&self, user: i64) -> Value {
        until(|| async {
            let url = self.consumer_url(&format!("/notifications/{user}"));
            let response = self.http.get(url).send().await.expect("an answer");
            let status = response.status();
            let body: Value = response.json().await.expect("JSON");
            if status == StatusCode::OK { Ok(body) } else { Err(body) }
        })
        .await
    }

    /// The messages in a user's inbox at consumer 0, oldest first.
    pub async fn inbox(&self, user: i64) -> Vec<String> {
        page_messages(&self.read_page(user).await)
    }

    /// Waits until the user's inbox at consumer 0 holds exactly these messages, in this order.
    pub async fn expect_inbox(&self, user: i64, expected: &[String]) {
        until(|| async {
            let found = self.inbox(user).await;
            if found == expected { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Waits until `/readyz` of the service at this URL answers 200.
    pub async fn await_ready(&self, base: &str) {
        until(|| async {
            let response = self.http.get(format!("{base}/readyz")).send().await.expect("an answer");
            let ready = response.status() == StatusCode::OK;
            let body = response.text().await.expect("a body");
            if ready { Ok(()) } else { Err(body) }
        })
        .await;
    }

    /// Appends a record directly to the log, as a foreign producer would.
    pub async fn append_raw(&self, partition: i32, key: &str, value: &str) -> Position {
        let log = self.backend.connect_log("test-foreign-producer");
        until(|| async {
            // So that the position can be compared with cursors.
            log.refresh_epoch(&self.topic).await.map_err(|error| error.to_string())?;
            let record =
                NewRecord { partition, key: key.into(), value: value.into(), headers: Vec::new() };
            match log.writer().append(&self.topic, record) {
                Ok(ack) => ack.await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }
}

/// The `client.id` of consumer `number`.
pub fn consumer_client_id(number: usize) -> String {
    format!("test-consumer-{number}")
}

/// The messages of a page, oldest first.
pub fn page_messages(page: &Value) -> Vec<String> {
    let notifications = page["notifications"].as_array().expect("a list of notifications");
    notifications.iter().map(|n| n["message"].as_str().expect("a message").to_owned()).collect()
}

/// The partition of this user's inbox, for [`PARTITIONS`] partitions.
pub fn home_partition(user: i64) -> i32 {
    let user = UserId::new(user).expect("positive");
    Partitioner::default().partition_for(user.record_key().as_bytes(), PARTITIONS)
}

/// A name that is unique among all tests and runs.
pub fn unique_name(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::now_v7().simple())
}

async fn start_service<F>(run: impl FnOnce(TcpListener, CancellationToken) -> F) -> RunningService
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(run(listener, shutdown.clone()));
    RunningService { url, shutdown, task }
}
