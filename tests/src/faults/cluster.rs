//! One producer and several consumers as processes, on a Kafka and a PostgreSQL of their own.
//! Everything ends with this, however the run ends.

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
    member::{self, Member, State},
    real::Instance,
    world::{PARTITIONS, unique},
};

/// How long a process may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the group may take to spread its partitions.
const BALANCE: Duration = Duration::from_secs(30);

/// Who reaches whom, and what can be done to them.
pub struct Cluster {
    kafka: Arc<Instance>,
    // Held for as long as the cluster lives.
    _postgres: Arc<Instance>,
    database_url: String,
    /// The only one.
    pub producer: Member,
    /// Numbered from 0.
    pub consumers: Vec<Member>,
    http: reqwest::Client,
    folder: PathBuf,
    journal: Arc<Journal>,
    /// Who and what is hit next.
    victims: Mutex<Random>,
}

impl Cluster {
    /// Starts Kafka, PostgreSQL, a producer and so many consumers, whose logs go to `folder`, and
    /// waits until all are ready.
    ///
    /// # Errors
    /// When one of them does not get ready.
    pub async fn start(
        consumers: usize,
        programs: &dyn Fn(&str) -> std::path::PathBuf,
        folder: &Path,
        seed: u64,
        journal: Arc<Journal>,
    ) -> Result<Self, String> {
        let (kafka, postgres) = tokio::join!(
            blocking(|| Instance::start("kafka")),
            blocking(|| Instance::start("postgres"))
        );
        let (kafka, postgres) = (Arc::new(kafka?), Arc::new(postgres?));
        let topic = unique("notifications");
        let group = format!("{topic}-group");
        let common = ["--kafka-brokers", &kafka.address, "--topic", &topic, "--log", "info"];
        let mut producer = vec!["--database-url", &postgres.address, "--migrate"];
        producer.extend(common);
        let mut consumer = vec!["--group", &group, "--inbox-entries", "100000"];
        consumer.extend(common);
        let mut ports = member::free_ports(consumers + 1).into_iter();
        let producer_port = ports.next().ok_or("no free port")?;
        let cluster = Self {
            producer: Member::new(
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
                    Member::new(&name, programs("consumer"), &consumer, "--listen", port, folder)
                })
                .collect(),
            database_url: postgres.address.clone(),
            kafka,
            _postgres: postgres,
            http: reqwest::Client::builder()
                .timeout(Duration::from_secs(5))
                .build()
                .map_err(text)?,
            folder: folder.to_owned(),
            journal,
            victims: Mutex::new(Random::new(seed, "victims")),
        };
        cluster.restore().await?;
        Ok(cluster)
    }

    /// Makes these users.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn add_users(&self, ids: &[i64]) -> Result<(), String> {
        let mut connection = PgConnection::connect(&self.database_url).await.map_err(text)?;
        let sql = "INSERT INTO users (id, name) SELECT id, 'User ' || id FROM unnest($1::bigint[]) AS id \
                   ON CONFLICT DO NOTHING";
        sqlx::query(sql).bind(ids).execute(&mut connection).await.map_err(text)?;
        connection.close().await.map_err(text)
    }

    /// A consumer that is running, by chance.
    pub fn victim(&self) -> usize {
        let up = self.up();
        self.victims.lock().pick(&up).copied().unwrap_or(0)
    }

    /// So long at most, by chance.
    pub fn moment(&self, longest: Duration) -> Duration {
        let thousandths = self.victims.lock().below(1001);
        longest.mul_f64(f64::from(u32::try_from(thousandths).unwrap_or(0)) / 1000.0)
    }

    /// The consumers that run.
    pub fn up(&self) -> Vec<usize> {
        let numbered = self.consumers.iter().enumerate();
        numbered
            .filter(|(_, member)| member.state() == State::Up)
            .map(|(number, _)| number)
            .collect()
    }

    /// The consumers that a client may know: those that run, and those that are frozen.
    pub fn known(&self) -> Vec<usize> {
        let numbered = self.consumers.iter().enumerate();
        numbered
            .filter(|(_, member)| member.state() != State::Down)
            .map(|(number, _)| number)
            .collect()
    }

    /// The partitions that this consumer says are its own and live; none when it does not say.
    pub async fn partitions(&self, consumer: usize) -> Vec<i32> {
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
    /// When that does not work.
    pub async fn kill_broker(&self) -> Result<(), String> {
        let kafka = Arc::clone(&self.kafka);
        blocking(move || kafka.does("kill")).await
    }

    /// Starts the broker with the data that it had, and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start_broker(&self) -> Result<(), String> {
        let kafka = Arc::clone(&self.kafka);
        blocking(move || kafka.start_again("kafka")).await
    }

    /// That the broker has ended, if it did; its last words are kept with the other logs.
    pub fn broker_died(&self) -> Option<String> {
        TcpStream::connect(&self.kafka.address).err()?;
        let kept = self.folder.join("kafka.log");
        let words = std::fs::copy(self.kafka.log(), &kept);
        let kept = words.map_or_else(|error| error.to_string(), |_| kept.display().to_string());
        Some(format!("the broker is gone although nobody here ended it; see {kept}"))
    }

    /// Whatever does not run is started, whatever is frozen goes on, and all are waited for.
    ///
    /// # Errors
    /// When one does not get ready.
    pub async fn restore(&self) -> Result<(), String> {
        self.start_broker().await?;
        for member in self.consumers.iter().chain([&self.producer]) {
            match member.state() {
                State::Up => {}
                State::Paused => member.resume()?,
                State::Down => member.start()?,
            }
        }
        self.all_ready().await?;
        self.balanced().await;
        Ok(())
    }

    /// Waits until each consumer that runs has partitions that are live, and together all of them.
    /// Where that takes too long it is no error here: what is done next is only a harder test.
    pub async fn balanced(&self) {
        let deadline = tokio::time::Instant::now() + BALANCE;
        while tokio::time::Instant::now() < deadline {
            let mut owned = Vec::new();
            for consumer in self.up() {
                owned.push(self.partitions(consumer).await.len());
            }
            let all = usize::try_from(PARTITIONS).unwrap_or(usize::MAX);
            if owned.iter().all(|count| *count > 0) && owned.iter().sum::<usize>() == all {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.say("the partitions are still not spread over all consumers");
    }

    /// Waits until all that run say that they are ready.
    ///
    /// # Errors
    /// When one of them is not after `PATIENCE`: with its own words.
    pub async fn all_ready(&self) -> Result<(), String> {
        let up = self.consumers.iter().chain([&self.producer]);
        for member in up.filter(|member| member.state() == State::Up) {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while let Err(why) = self.ready(member).await {
                if tokio::time::Instant::now() > deadline {
                    return Err(format!(
                        "the {} is not ready after {PATIENCE:?}: {why}",
                        member.name
                    ));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn ready(&self, member: &Member) -> Result<(), String> {
        let response =
            self.http.get(format!("{}/readyz", member.url)).send().await.map_err(text)?;
        if response.status() == StatusCode::OK {
            Ok(())
        } else {
            Err(response.text().await.map_err(text)?)
        }
    }

    /// Says something of this run.
    pub fn say(&self, what: &str) {
        self.journal.say(what);
    }
}

/// Does what blocks on a thread of its own. A panic there is an error here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => panic.downcast::<String>().map_or_else(|_| "a panic".to_owned(), |text| *text),
        Err(error) => error.to_string(),
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
