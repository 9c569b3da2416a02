//! The brokers of an installation, each behind a proxy that cuts and delays single clients.

mod topics;

use std::{net::TcpStream, path::Path, sync::Arc, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::AdminClient,
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    metadata::{MetadataPartition, MetadataTopic},
};

use super::{cluster::run_blocking, disk::SmallDisk};
use crate::{
    real::RealServer,
    tcp_proxy::{Direction, TcpProxy},
};

/// Timeout of a question to the brokers.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the replicas of a broker that is back may take to follow again.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// The partition count of `__consumer_offsets`, which `scripts/real` sets.
const OFFSETS_PARTITIONS: i32 = 4;
/// Size of the broker's disk in scenarios that fill it.
const DISK_MEBIBYTES: u32 = 512;

/// The brokers, numbered from 0.
pub struct KafkaCluster {
    brokers: Vec<Arc<RealServer>>,
    proxies: Vec<TcpProxy>,
    /// The disk of the only broker. Dropped after it.
    disk: Option<SmallDisk>,
}

impl KafkaCluster {
    /// Starts this many brokers; with `small_disk`, the only one has its data on a small disk.
    ///
    /// # Errors
    /// If one of them does not start.
    pub async fn start(count: usize, small_disk: bool) -> Result<Self, String> {
        let mut proxies = Vec::new();
        for _ in 0..count {
            proxies.push(TcpProxy::listen().await.map_err(|error| error.to_string())?);
        }
        let ports: Vec<_> = proxies.iter().map(|proxy| proxy.address().port()).collect();
        let disk = if small_disk { Some(SmallDisk::mount(DISK_MEBIBYTES)?) } else { None };
        let data = disk.as_ref().map(|disk| disk.create_folder("data")).transpose()?;
        let start = move || RealServer::start_cluster_behind(&ports, data.as_deref());
        let brokers: Vec<_> = run_blocking(start).await?.into_iter().map(Arc::new).collect();
        for (proxy, broker) in proxies.iter().zip(&brokers) {
            proxy.set_server(broker.address.parse().map_err(|_| "not an address")?);
        }
        Ok(Self { brokers, proxies, disk })
    }

    /// The number of brokers, running or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.brokers.len()
    }

    /// The addresses of the proxies.
    #[must_use]
    pub fn addresses(&self) -> String {
        let all: Vec<_> = self.proxies.iter().map(|proxy| proxy.address().to_string()).collect();
        all.join(",")
    }

    /// The disk that can be filled.
    ///
    /// # Errors
    /// If this installation has none.
    pub fn disk(&self) -> Result<&SmallDisk, String> {
        self.disk.as_ref().ok_or_else(|| "the broker has no disk of its own".to_owned())
    }

    /// Removes the group's offsets from the disk of the stopped broker, as an operator must: Kafka
    /// 4.4 cannot load the coordinator's partition after an append that found the disk full ("New
    /// last written offset … must be greater than …"), so no member could join again.
    ///
    /// # Errors
    /// If a folder cannot be removed.
    pub fn remove_group_offsets(&self) -> Result<(), String> {
        let to_text = |error: std::io::Error| error.to_string();
        for entry in std::fs::read_dir(self.disk()?.path().join("data/topics")).map_err(to_text)? {
            let entry = entry.map_err(to_text)?;
            if entry.file_name().to_string_lossy().starts_with("__consumer_offsets-") {
                std::fs::remove_dir_all(entry.path()).map_err(to_text)?;
            }
        }
        Ok(())
    }

    /// kill -9 of these brokers at once.
    ///
    /// # Errors
    /// If `scripts/real` fails.
    pub async fn kill(&self, numbers: &[usize]) -> Result<(), String> {
        self.act_on(numbers, |broker| broker.run_action("kill")).await
    }

    /// A clean stop, before which the broker gives up its leaderships.
    ///
    /// # Errors
    /// If `scripts/real` fails.
    pub async fn stop(&self, number: usize) -> Result<(), String> {
        self.act_on(&[number], |broker| broker.run_action("stop")).await
    }

    /// Starts these brokers at once with their data, and waits until they answer. A broker that
    /// runs is left alone.
    ///
    /// # Errors
    /// If one does not answer.
    pub async fn start_again(&self, numbers: &[usize]) -> Result<(), String> {
        self.act_on(numbers, |broker| broker.start_again("kafka")).await
    }

    /// Starts all brokers that do not run.
    ///
    /// # Errors
    /// If one does not answer.
    pub async fn start_all(&self) -> Result<(), String> {
        self.heal();
        self.start_again(&(0..self.count()).collect::<Vec<_>>()).await
    }

    async fn act_on(&self, numbers: &[usize], act: fn(&RealServer)) -> Result<(), String> {
        let acts = numbers.iter().map(|number| {
            let broker = Arc::clone(&self.brokers[*number]);
            run_blocking(move || act(&broker))
        });
        futures_util::future::try_join_all(acts).await.map(drop)
    }

    /// Holds back all that this client sends or receives in these directions.
    pub fn cut(&self, client: &str, directions: &[Direction]) {
        for (proxy, direction) in
            self.proxies.iter().flat_map(|proxy| directions.iter().map(move |way| (proxy, way)))
        {
            proxy.set_cut(client, *direction, true);
        }
    }

    /// Delays all that this client receives.
    pub fn delay(&self, client: &str, delay: Duration) {
        for proxy in &self.proxies {
            proxy.set_delay(client, Direction::ToClient, delay);
        }
    }

    /// Ends all cuts and delays.
    pub fn heal(&self) {
        for proxy in &self.proxies {
            proxy.heal();
        }
    }

    /// Texts about brokers that ended by themselves; their logs are copied to `folder`.
    pub fn take_exit_reports(&self, folder: &Path) -> Vec<String> {
        let dead = self
            .brokers
            .iter()
            .enumerate()
            .filter(|(_, broker)| TcpStream::connect(&broker.address).is_err());
        let reports = dead.map(|(number, broker)| {
            let kept = folder.join(format!("kafka-{number}.log"));
            let copied = std::fs::copy(broker.log_file(), &kept);
            let kept =
                copied.map_or_else(|error| error.to_string(), |_| kept.display().to_string());
            format!("broker {number} ended by itself; see {kept}")
        });
        reports.collect()
    }

    fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.addresses()).set("client.id", "faults");
        config
    }

    fn connect_admin(&self) -> Result<AdminClient<DefaultClientContext>, String> {
        self.client_config().create().map_err(|error| error.to_string())
    }

    /// Asks the brokers on a thread of its own.
    async fn query<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&BaseConsumer) -> Result<T, rdkafka::error::KafkaError> + Send + 'static,
    ) -> Result<T, String> {
        let config = self.client_config();
        run_blocking(move || {
            let client: BaseConsumer = config.create()?;
            ask(&client)
        })
        .await?
        .map_err(|error| error.to_string())
    }

    /// The number of the broker that coordinates this group: the leader of the group's partition
    /// of `__consumer_offsets`.
    ///
    /// # Errors
    /// If the brokers do not answer.
    pub async fn find_coordinator(&self, group: &str) -> Result<usize, String> {
        let partition = (java_hash(group) & i32::MAX) % OFFSETS_PARTITIONS;
        let leader = self.query(move |client| {
            let metadata = client.fetch_metadata(Some("__consumer_offsets"), QUERY_TIMEOUT)?;
            let mut all = metadata.topics().iter().flat_map(MetadataTopic::partitions);
            Ok(all.find(|found| found.id() == partition).map(MetadataPartition::leader))
        });
        let leader = leader.await?.and_then(|leader| usize::try_from(leader - 1).ok());
        leader.ok_or_else(|| format!("no coordinator of {group}"))
    }
}

/// `String.hashCode` of Java, for ASCII.
fn java_hash(text: &str) -> i32 {
    text.bytes().fold(0, |hash: i32, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)))
}
