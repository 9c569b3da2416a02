//! The log and the user directory of a [`World`](crate::World): embedded, librdkafka's in-memory
//! broker, or a real Apache Kafka and a real PostgreSQL.

use std::time::Duration;

use event_log::{
    Log,
    embedded::Embedded,
    kafka::{Kafka, KafkaSettings},
    mock::Cluster,
};
use model::TopicNames;
use producer::directory::Directory;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

use crate::until;

/// The log and the user directory of a world.
pub enum Backend {
    /// SQLite files in a folder of the test's own.
    Embedded {
        /// Deleted on drop.
        folder: TempDir,
        /// The log's only handle: one process may open it once.
        log: Embedded,
    },
    /// librdkafka's in-memory broker, and SQLite for the users.
    Mock {
        /// The broker.
        cluster: Cluster,
        /// Holds the users' file.
        folder: TempDir,
    },
    /// Apache Kafka and PostgreSQL.
    Real {
        /// `host:port`.
        brokers: String,
        /// TLS and login.
        properties: Vec<(String, String)>,
        /// URL of the test's own database.
        database_url: String,
    },
}

impl Backend {
    /// An empty embedded log.
    pub async fn embedded() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = Embedded::open(&folder.path().join("log.db")).await.expect("an embedded log");
        Self::Embedded { folder, log }
    }

    /// An in-memory broker with this topic and those beside it (receipts, owners, DLQ), all empty.
    pub fn mock(topic: &str, partitions: u32) -> Self {
        Self::mock_with_brokers(1, topic, partitions)
    }

    /// Like [`mock`](Self::mock), with this many brokers.
    pub fn mock_with_brokers(brokers: i32, topic: &str, partitions: u32) -> Self {
        let cluster = Cluster::with_brokers(brokers).expect("a mock cluster");
        let names = TopicNames::from_notifications(topic);
        for (name, partitions) in [
            (&names.notifications, partitions),
            (&names.receipts, partitions),
            (&names.dlq, partitions),
            (&names.owners, 1),
        ] {
            cluster.create_topic(name, partitions).expect("a new topic");
        }
        Self::Mock { cluster, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// The broker and the server that the environment names, and a new database of this name.
    pub async fn real(database: &str) -> Self {
        let brokers = required_env("TEST_KAFKA_BROKERS");
        let server = required_env("TEST_DATABASE_URL");
        Self::from_servers(brokers, &server, database).await
    }

    /// This broker, and a new database of this name in this server.
    pub async fn from_servers(brokers: String, server: &str, database: &str) -> Self {
        Self::from_secured_servers(brokers, Vec::new(), server, database).await
    }

    /// Like [`from_servers`](Self::from_servers), with a broker that requires TLS or a login.
    pub async fn from_secured_servers(
        brokers: String,
        properties: Vec<(String, String)>,
        server: &str,
        database: &str,
    ) -> Self {
        let mut connection = PgConnection::connect(server).await.expect("a PostgreSQL server");
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {database}")))
            .execute(&mut connection)
            .await
            .expect("a database of the test's own");
        let (path, query) = server.split_once('?').unwrap_or((server, ""));
        let (before, _) = path.rsplit_once('/').expect("a URL with a database");
        let database_url = format!("{before}/{database}?{query}");
        Self::Real { brokers, properties, database_url }
    }

    /// Connects new clients to the log.
    pub fn connect_log(&self, client_id: &str) -> Log {
        match self {
            Self::Embedded { log, .. } => Log::Embedded(log.clone()),
            Self::Mock { cluster, .. } => Log::Kafka(cluster.connect(client_id).expect("clients")),
            Self::Real { brokers, properties, .. } => connect_kafka(brokers, properties, client_id),
        }
    }

    /// Deletes a topic of a real Kafka and creates it again, empty.
    pub async fn recreate_topic(&self, topic: &str, partitions: u32) {
        let Self::Real { brokers, .. } = self else { unreachable!("a real Kafka") };
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a client");
        let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await.expect("an answer");
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        // Until the broker has deleted it, it takes records of the new topic for those of the old one.
        until(|| async {
            let metadata = admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5));
            let metadata = metadata.map_err(|error| error.to_string())?;
            let is_gone = metadata.topics().iter().all(|topic| topic.error().is_some());
            if is_gone { Ok(()) } else { Err("the topic is still there".to_owned()) }
        })
        .await;
        let count = partitions.try_into().expect("a small number");
        let new = [NewTopic::new(topic, count, TopicReplication::Fixed(1))];
        until(|| async {
            let created = admin.create_topics(&new, &AdminOptions::new()).await;
            let created = created.expect("an answer").remove(0);
            created.map_err(|(_, code)| code)
        })
        .await;
    }

    /// Opens the directory, with its four users.
    pub async fn open_directory(&self) -> Directory {
        let directory = match self {
            Self::Embedded { folder, .. } | Self::Mock { folder, .. } => {
                Directory::open_sqlite(&folder.path().join("users.db")).await
            }
            Self::Real { database_url, .. } => Directory::open_postgres(database_url, 5),
        };
        let directory = directory.expect("a directory");
        directory.migrate().await.expect("the users' table");
        directory
    }
}

/// Clients of the broker at this address. Does not wait for the broker.
fn connect_kafka(brokers: &str, properties: &[(String, String)], client_id: &str) -> Log {
    let settings = KafkaSettings {
        brokers: brokers.to_owned(),
        client_id: client_id.to_owned(),
        properties: properties.to_vec(),
        ..KafkaSettings::default()
    };
    Log::Kafka(Kafka::new(settings).expect("clients"))
}

fn required_env(name: &str) -> String {
    let value = std::env::var(name);
    let missing = "not set: these tests need a real Kafka and PostgreSQL, see `task test:real`";
    assert!(value.is_ok(), "{name} is {missing}");
    value.unwrap_or_default()
}
