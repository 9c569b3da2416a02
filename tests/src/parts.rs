//! The log and the directory that a world stands on: embedded, librdkafka's in-memory broker, or a
//! real Apache Kafka and a real PostgreSQL.

use event_log::{
    Log,
    embedded::Embedded,
    kafka::{Kafka, KafkaSettings, security::Security},
    mock::Cluster,
};
use model::TopicNames;
use producer::directory::Directory;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

/// What a world stands on.
pub enum Parts {
    /// SQLite files in a folder of the test's own.
    Embedded {
        /// The folder, which goes with this.
        folder: TempDir,
        /// The one handle to the log: only one may have it open.
        log: Embedded,
    },
    /// librdkafka's in-memory broker, and SQLite for the users.
    Mock {
        /// The broker.
        cluster: Cluster,
        /// Of the users' file.
        folder: TempDir,
    },
    /// Apache Kafka and PostgreSQL.
    Real {
        /// `host:port`.
        brokers: String,
        /// How to speak with it.
        security: Box<Security>,
        /// With a database of the test's own.
        database_url: String,
    },
}

impl Parts {
    /// A fresh embedded log.
    pub async fn embedded() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = Embedded::open(&folder.path().join("log.db")).await.expect("an embedded log");
        Self::Embedded { folder, log }
    }

    /// A fresh in-memory broker that has this topic and those that go with it.
    pub fn mock(topic: &str, partitions: u32) -> Self {
        Self::mock_of(1, topic, partitions)
    }

    /// So many fresh in-memory brokers that have this topic and those that go with it.
    pub fn mock_of(brokers: i32, topic: &str, partitions: u32) -> Self {
        let cluster = Cluster::with_brokers(brokers).expect("a mock cluster");
        let names = TopicNames::of(topic);
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

    /// The broker and the server that the environment names, and a database of this name in it.
    pub async fn real(database: &str) -> Self {
        let brokers = required("TEST_KAFKA_BROKERS");
        let server = required("TEST_DATABASE_URL");
        Self::on(brokers, &server, database).await
    }

    /// This broker, and a new database of this name in this server.
    pub async fn on(brokers: String, server: &str, database: &str) -> Self {
        Self::secured(brokers, Security::default(), server, database).await
    }

    /// The same with a broker that wants TLS or a login.
    pub async fn secured(
        brokers: String,
        security: Security,
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
        Self::Real { brokers, security: Box::new(security), database_url }
    }

    /// New clients of the log.
    pub fn log(&self, client_id: &str) -> Log {
        match self {
            Self::Embedded { log, .. } => Log::Embedded(log.clone()),
            Self::Mock { cluster, .. } => Log::Kafka(cluster.connect(client_id).expect("clients")),
            Self::Real { brokers, security, .. } => kafka(brokers, security, client_id),
        }
    }

    /// The directory, with its four users.
    pub async fn directory(&self) -> Directory {
        let directory = match self {
            Self::Embedded { folder, .. } | Self::Mock { folder, .. } => {
                Directory::sqlite(&folder.path().join("users.db")).await
            }
            Self::Real { database_url, .. } => Directory::postgres(database_url, 5),
        };
        let directory = directory.expect("a directory");
        directory.migrate().await.expect("the users' table");
        directory
    }
}

/// Clients of the broker at this address, whether it is there or not.
fn kafka(brokers: &str, security: &Security, client_id: &str) -> Log {
    let settings = KafkaSettings {
        brokers: brokers.to_owned(),
        client_id: client_id.to_owned(),
        security: security.clone(),
        ..KafkaSettings::default()
    };
    Log::Kafka(Kafka::new(settings).expect("clients"))
}

fn required(name: &str) -> String {
    let value = std::env::var(name);
    let missing = "not set: these tests need a real Kafka and PostgreSQL, see `task test:real`";
    assert!(value.is_ok(), "{name} is {missing}");
    value.unwrap_or_default()
}
