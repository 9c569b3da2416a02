//! One producer and several consumers as processes, on a Kafka and a PostgreSQL of their own.
//! Proxies stand before the brokers, before PostgreSQL, and before each consumer for its peers.
//! Dropping it ends all of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::StatusCode;
use sqlx::{Connection, PgConnection};

use super::{disk::SmallDisk, journal::Journal, kafka::KafkaCluster, random::Random};
use crate::{
    real::RealServer,
    service_process::{self, ProcessState, ServiceProcess},
    tcp_proxy::{Direction, TcpProxy},
    world::{PARTITIONS, unique_name},
};

/// How long a process may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the group may take to distribute its partitions.
const BALANCE_TIMEOUT: Duration = Duration::from_secs(30);

/// The consumer whose snapshots are on a small disk, where there is one.
pub const SMALL_DISK_CONSUMER: usize = 1;
/// Enough for the snapshots of a few rounds.
const SNAPSHOTS_MEBIBYTES: u32 = 16;
/// The `client.id` of the producer.
pub const PRODUCER_CLIENT: &str = "producer";

/// Whole inboxes, no limit for the load, and heartbeats by which streams notice a cut soon.
const CONSUMER_FLAGS: [&str; 10] = [
    "--inbox-entries",
    "100000",
    "--inbox-bytes",
    "1073741824",
    "--receipt-rate",
    "0",
    "--heartbeat",
    "2s",
    "--max-streams-per-user",
    "1000",
];

/// The parts of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The number of brokers; with three, each record has three replicas.
    pub brokers: usize,
    /// The number of consumers.
    pub consumers: usize,
    /// True if the broker and a consumer's snapshots have small disks of their own.
    pub small_disks: bool,
}

/// The processes of an installation, and the faults that can be caused.
pub struct ServiceCluster {
    /// The brokers.
    pub kafka: KafkaCluster,
    /// The topic of the notifications.
    pub topic: String,
    /// The consumers' group.
    pub group: String,
    // Removed on drop.
    _postgres: Arc<RealServer>,
    database_url: String,
    /// Between the producer and PostgreSQL.
    postgres_proxy: TcpProxy,
    /// Between each consumer and its peers.
    peer_proxies: Vec<TcpProxy>,
    /// The only producer.
    pub producer: ServiceProcess,
    /// Numbered from 0.
    pub consumers: Vec<ServiceProcess>,
    /// The disk of [`SMALL_DISK_CONSUMER`]'s snapshots. Dropped after the processes.
    snapshots_disk: Option<SmallDisk>,
    http: reqwest::Client,
    folder: PathBuf,
    journal: Arc<Journal>,
    /// Chooses what fails next.
    victims: Mutex<Random>,
}

/// The `client.id` of a consumer.
#[must_use]
pub fn consumer_client(number: usize) -> String {
    format!("consumer-{number}")
}

impl ServiceCluster {
    /// Starts Kafka, PostgreSQL, a producer and the consumers, whose logs go to `folder`, and waits
    /// until all are ready.
    ///
    /// # Errors
    /// If one of them does not get ready.
    pub async fn start(
        topology: Topology,
        programs: &dyn Fn(&str) -> std::path::PathBuf,
        folder: &Path,
        seed: u64,
        journal: Arc<Journal>,
    ) -> Result<Self, String> {
        let Topology { brokers, consumers, small_disks } = topology;
        let (kafka, postgres) = tokio::join!(
            KafkaCluster::start(brokers, small_disks),
            run_blocking(|| RealServer::start("postgres"))
        );
        let (kafka, postgres) = (kafka?, Arc::new(postgres?));
        let (postgres_proxy, proxied_url) = start_postgres_proxy(&postgres.address).await?;
        let disk = if small_disks { Some(SmallDisk::mount(SNAPSHOTS_MEBIBYTES)?) } else { None };
        let topic = unique_name("notifications");
        let group = format!("{topic}-group");
        let mut ports = service_process::free_ports(consumers + 1).into_iter();
        let producer_port = ports.next().ok_or("no free port")?;
        let (addresses, replication) = (kafka.addresses(), brokers.min(3).to_string());
        let mut common = vec!["--kafka-brokers", &addresses, "--topic", &topic, "--log", "info"];
        common.extend(["--replication", &replication]);
        let property = format!("client.id={PRODUCER_CLIENT}");
        let mut arguments = vec!["--database-url", &proxied_url, "--migrate", "--rate-limit", "0"];
        arguments.extend(["--kafka-property", &property]);
        arguments.extend(&common);
        let (program, flag) = (programs("producer"), "--listen");
        let producer =
            ServiceProcess::new("producer", program, &arguments, flag, producer_port, folder);
        let mut arguments = vec!["--group", &group];
        arguments.extend(CONSUMER_FLAGS);
        arguments.extend(&common);
        let (mut members, mut peer_proxies) = (Vec::new(), Vec::new());
        for (number, port) in (0..).zip(ports) {
            let proxy = start_proxy(&format!("127.0.0.1:{port}")).await?;
            let small = disk.as_ref().filter(|_| number == SMALL_DISK_CONSUMER);
            let snapshots = small.map_or_else(
                || folder.join(format!("snapshots-{number}")),
                |disk| disk.path().join("snapshots"),
            );
            let own = own_flags(number, &proxy, &snapshots);
            let own = own.iter().map(String::as_str);
            let arguments: Vec<_> = arguments.iter().copied().chain(own).collect();
            let (name, program) = (format!("consumer {number}"), programs("consumer"));
            members.push(ServiceProcess::new(&name, program, &arguments, flag, port, folder));
            peer_proxies.push(proxy);
        }
        let timeout = Duration::from_secs(5);
        let http = reqwest::Client::builder().timeout(timeout).build().map_err(to_text)?;
        let cluster = Self {
            kafka,
            topic,
            group,
            database_url: postgres.address.clone(),
            _postgres: postgres,
            postgres_proxy,
            peer_proxies,
            producer,
            consumers: members,
            snapshots_disk: disk,
            http,
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

    /// Texts about brokers that ended by themselves.
    pub fn take_broker_exit_reports(&self) -> Vec<String> {
        self.kafka.take_exit_reports(&self.folder)
    }

    /// Holds back all bytes between this consumer and the peers that forward to it.
    pub fn cut_from_peers(&self, consumer: usize) {
        cut_both_ways(&self.peer_proxies[consumer]);
    }

    /// Holds back all bytes between the producer and PostgreSQL.
    pub fn cut_postgres(&self) {
        cut_both_ways(&self.postgres_proxy);
    }

    /// Ends all cuts and delays.
    pub fn heal(&self) {
        self.kafka.heal();
        for proxy in self.peer_proxies.iter().chain([&self.postgres_proxy]) {
            proxy.heal();
        }
    }

    /// The disk of [`SMALL_DISK_CONSUMER`]'s snapshots.
    ///
    /// # Errors
    /// If this installation has none.
    pub fn snapshots_disk(&self) -> Result<&SmallDisk, String> {
        self.snapshots_disk.as_ref().ok_or_else(|| "the snapshots have no disk of their own".into())
    }

    /// Starts all stopped processes, resumes the frozen ones, and waits until all are ready.
    ///
    /// # Errors
    /// If one does not get ready.
    pub async fn start_all(&self) -> Result<(), String> {
        self.heal();
        self.kafka.start_all().await?;
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
pub(super) async fn run_blocking<T: Send + 'static>(
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

/// The flags in which one consumer differs from the others. The first one has no snapshots and
/// rebuilds from the log alone.
fn own_flags(number: usize, peer_proxy: &TcpProxy, snapshots: &Path) -> Vec<String> {
    let client = format!("client.id={}", consumer_client(number));
    let advertise = format!("http://{}", peer_proxy.address());
    let mut flags = vec!["--kafka-property".into(), client, "--advertise".into(), advertise];
    if number > 0 {
        flags.extend(["--snapshots".into(), snapshots.display().to_string()]);
        flags.extend(["--snapshot-every".into(), "5s".into()]);
    }
    flags
}

async fn start_proxy(server: &str) -> Result<TcpProxy, String> {
    let proxy = TcpProxy::listen().await.map_err(to_text)?;
    proxy.set_server(server.parse().map_err(to_text)?);
    Ok(proxy)
}

/// A proxy before the server of this URL, and the URL of the proxy.
async fn start_postgres_proxy(url: &str) -> Result<(TcpProxy, String), String> {
    let server = url.split(['@', '/']).nth(3).ok_or("not the URL of a server")?;
    let proxy = start_proxy(server).await?;
    let proxied = url.replace(server, &proxy.address().to_string());
    Ok((proxy, proxied))
}

/// Clients that do not speak Kafka's protocol have the empty name.
fn cut_both_ways(proxy: &TcpProxy) {
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set_cut("", direction, true);
    }
}
