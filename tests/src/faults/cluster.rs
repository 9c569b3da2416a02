//! One producer and several consumers as processes, on a Kafka and a PostgreSQL of their own.
//! Dropping it ends all of them.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::StatusCode;
use sqlx::{Connection, PgConnection};

use super::{journal::Journal, random::Random};
use crate::{
    real::RealServer,
    service_process::{self, ProcessState, ServiceProcess},
    world::{PARTITIONS, unique_name},
};

/// How long a process may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the group may take to distribute its partitions.
const BALANCE_TIMEOUT: Duration = Duration::from_secs(30);

/// The processes of an installation, and the faults that can be caused.
pub struct ServiceCluster {
    kafka: Arc<RealServer>,
    // Removed on drop.
    _postgres: Arc<RealServer>,
    database_url: String,
    /// The only producer.
    pub producer: ServiceProcess,
    /// Numbered from 0.
    pub consumers: Vec<ServiceProcess>,
    http: reqwest::Client,
    folder: PathBuf,
    journal: Arc<Journal>,
    /// Chooses what fails next.
    victims: Mutex<Random>,
}

impl ServiceCluster {
    /// Starts Kafka, PostgreSQL, a producer and this many consumers, whose logs go to `folder`, and
    /// waits until all are ready.
    ///
    /// # Errors
    /// If one of them does not get ready.
    pub async fn start(
        consumers: usize,
        programs: &dyn Fn(&str) -> std::path::PathBuf,
        folder: &Path,
        seed: u64,
        journal: Arc<Journal>,
    ) -> Result<Self, String> {
        let (kafka, postgres) = tokio::join!(
            run_blocking(|| RealServer::start("kafka")),
            run_blocking(|| RealServer::start("postgres"))
        );
        let (kafka, postgres) = (Arc::new(kafka?), Arc::new(postgres?));
        let topic = unique_name("notifications");
        let group = format!("{topic}-group");
        let common = ["--kafka-brokers", &kafka.address, "--topic", &topic, "--log", "info"];
        let mut producer =
            vec!["--database-url", &postgres.address, "--migrate", "--rate-limit", "0"];
        producer.extend(common);
        let mut consumer = vec!["--group", &group, "--inbox-entries", "100000"];
        consumer.extend(["--inbox-bytes", "1073741824", "--receipt-rate", "0"]);
        consumer.extend(common);
        let mut ports = service_process::free_ports(consumers + 1).into_iter();
        let producer_port = ports.next().ok_or("no free port")?;
        let cluster = Self {
            producer: ServiceProcess::new(
                "producer",
                programs("producer"),
                &producer,
                "--listen",
                producer_port,
                folder,
            ),
            consumers: (0..)
                .zip(ports)
                .map(|(number, port)| {
                    let name = format!("consumer {number}");
                    ServiceProcess::new(
                        &name,
                        programs("consumer"),
                        &consumer,
                        "--listen",
                        port,
                        folder,
                    )
                })
                .collect(),
            database_url: postgres.address.clone(),
            kafka,
            _postgres: postgres,
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(5))
                .build()
                .map_err(to_text)?,
            folder: folder.to_owned(),
            journal,
            victims: Mutex::new(Random::new(seed, "victims")),
        };
        cluster.start_all().await?;
        Ok(cluster)
    }

    /// Inserts these users.
    ///
    /// # Errors
    /// If the database refuses.
    pub async fn add_users(&self, ids: &[i64]) -> Result<(), String> {
        let mut connection = PgConnection::connect(&self.database_url).await.map_err(to_text)?;
        let sql = "INSERT INTO users (id, name) SELECT id, 'User ' || id FROM unnest($1::bigint[]) AS id \
                   ON CONFLICT DO NOTHING";
        sqlx::query(sql).bind(ids).execute(&mut connection).await.map_err(to_text)?;
        connection.close().await.map_err(to_text)
    }

    /// A random running consumer.
    pub fn pick_running_consumer(&self) -> usize {
        let up = self.running_consumers();
        self.victims.lock().pick_one(&up).copied().unwrap_or(0)
    }

    /// A random duration up to `longest`.
    pub fn random_duration(&self, longest: Duration) -> Duration {
        let thousandths = self.victims.lock().next_below(1001);
        longest.mul_f64(f64::from(u32::try_from(thousandths).unwrap_or(0)) / 1000.0)
    }

    /// The numbers of the running consumers.
    pub fn running_consumers(&self) -> Vec<usize> {
        let numbered = self.consumers.iter().enumerate();
        numbered
            .filter(|(_, member)| member.state() == ProcessState::Up)
            .map(|(number, _)| number)
            .collect()
    }

    /// The numbers of the running and the frozen consumers: a client may hold connections to them.
    pub fn reachable_consumers(&self) -> Vec<usize> {
        let numbered = self.consumers.iter().enumerate();
        numbered
            .filter(|(_, member)| member.state() != ProcessState::Down)
            .map(|(number, _)| number)
            .collect()
    }

    /// The partitions that this consumer reports as live; empty if it does not answer.
    pub async fn live_partitions(&self, consumer: usize) -> Vec<i32> {
        let url = format!("{}/partitions", self.consumers[consumer].url);
        let Ok(response) = self.http.get(url).send().await else { return Vec::new() };
        let body: serde_json::Value = response.json().await.unwrap_or_default();
        let listed = body["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let live = listed.iter().filter(|partition| partition["state"] == "live");
        live.filter_map(|partition| i32::try_from(partition["partition"].as_i64()?).ok()).collect()
    }

    /// kill -9 of the broker.
    ///
    /// # Errors
    /// If `scripts/real` fails.
    pub async fn kill_broker(&self) -> Result<(), String> {
        let kafka = Arc::clone(&self.kafka);
        run_blocking(move || kafka.run_action("kill")).await
    }

    /// Restarts the broker with its data, and waits until it answers.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn start_broker(&self) -> Result<(), String> {
        let kafka = Arc::clone(&self.kafka);
        run_blocking(move || kafka.start_again("kafka")).await
    }

    /// A text about the broker's exit, if it ended by itself; its log is copied to the other logs.
    pub fn take_broker_exit_report(&self) -> Option<String> {
        TcpStream::connect(&self.kafka.address).err()?;
        let kept = self.folder.join("kafka.log");
        let words = std::fs::copy(self.kafka.log_file(), &kept);
        let kept = words.map_or_else(|error| error.to_string(), |_| kept.display().to_string());
        Some(format!("the broker ended by itself; see {kept}"))
    }

    /// Starts all stopped processes, resumes the frozen ones, and waits until all are ready.
    ///
    /// # Errors
    /// If one does not get ready.
    pub async fn start_all(&self) -> Result<(), String> {
        self.start_broker().await?;
        for member in self.consumers.iter().chain([&self.producer]) {
            match member.state() {
                ProcessState::Up => {}
                ProcessState::Paused => member.resume()?,
                ProcessState::Down => member.start()?,
            }
        }
        self.await_all_ready().await?;
        self.await_balance().await;
        Ok(())
    }

    /// Waits until every running consumer has live partitions, and together they have all. A
    /// timeout is no error: the next fault is only a harder test.
    pub async fn await_balance(&self) {
        let deadline = tokio::time::Instant::now() + BALANCE_TIMEOUT;
        while tokio::time::Instant::now() < deadline {
            let mut owned = Vec::new();
            for consumer in self.running_consumers() {
                owned.push(self.live_partitions(consumer).await.len());
            }
            let all = usize::try_from(PARTITIONS).unwrap_or(usize::MAX);
            if owned.iter().all(|count| *count > 0) && owned.iter().sum::<usize>() == all {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.print_event("the partitions are still not distributed over all consumers");
    }

    /// Waits until `/readyz` of all running processes answers 200.
    ///
    /// # Errors
    /// The last answer of one that is not ready after `READY_TIMEOUT`.
    pub async fn await_all_ready(&self) -> Result<(), String> {
        let up = self.consumers.iter().chain([&self.producer]);
        for member in up.filter(|member| member.state() == ProcessState::Up) {
            let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
            while let Err(why) = self.await_ready(member).await {
                if tokio::time::Instant::now() > deadline {
                    return Err(format!(
                        "the {} is not ready after {READY_TIMEOUT:?}: {why}",
                        member.name
                    ));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn await_ready(&self, member: &ServiceProcess) -> Result<(), String> {
        let response =
            self.http.get(format!("{}/readyz", member.url)).send().await.map_err(to_text)?;
        if response.status() == StatusCode::OK {
            Ok(())
        } else {
            Err(response.text().await.map_err(to_text)?)
        }
    }

    /// Writes an event of this run to the journal and to standard error.
    pub fn print_event(&self, what: &str) {
        self.journal.print_event(what);
    }
}

/// Runs blocking work on a thread of its own. A panic there becomes an error here.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => panic.downcast::<String>().map_or_else(|_| "a panic".to_owned(), |text| *text),
        Err(error) => error.to_string(),
    })
}

fn to_text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
