//! The scenarios' names, and the installation that each needs.

use super::cluster::Topology;

const ONE_BROKER: Topology = Topology { brokers: 1, consumers: 3, small_disks: false };
const THREE_BROKERS: Topology = Topology { brokers: 3, consumers: 3, small_disks: false };
const SMALL_DISKS: Topology = Topology { brokers: 1, consumers: 3, small_disks: true };

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// kill -9 of the producer
    Producer,
    /// kill -9 of one of three consumers
    Consumer,
    /// kill -9 of the only broker
    Broker,
    /// SIGSTOP of a consumer for longer than its session, then SIGCONT
    Pause,
    /// SIGTERM and a new start of each consumer, one after the other
    Rolling,
    /// From three consumers to one, and to three again
    Scale,
    /// A consumer or the producer is cut off from Kafka
    Cut,
    /// The same in one direction only
    CutOneWay,
    /// Kafka's answers to a consumer are 1 to 5 s late
    Late,
    /// A consumer is cut off from its peers
    Peers,
    /// The producer is cut off from PostgreSQL
    Postgres,
    /// Retention removes half of the log while partitions are rebuilt
    Retention,
    /// The topic is deleted and made again
    Recreate,
    /// kill -9 of each of three brokers, one after the other
    Brokers,
    /// kill -9 of the broker that coordinates the group, and of a consumer
    Coordinator,
    /// kill -9 of two of three brokers
    TwoBrokers,
    /// A clean restart of each of three brokers, and their elections
    Elections,
    /// The disk of a consumer's snapshots is full, and then the broker's
    Disk,
}

impl Scenario {
    /// All scenarios, by installation.
    pub const ALL: [Self; 18] = [
        Self::Producer,
        Self::Consumer,
        Self::Broker,
        Self::Pause,
        Self::Rolling,
        Self::Scale,
        Self::Cut,
        Self::CutOneWay,
        Self::Late,
        Self::Peers,
        Self::Postgres,
        Self::Retention,
        Self::Recreate,
        Self::Brokers,
        Self::Coordinator,
        Self::TwoBrokers,
        Self::Elections,
        Self::Disk,
    ];

    /// One of each family.
    pub const SHORT: [Self; 8] = [
        Self::Consumer,
        Self::Pause,
        Self::Cut,
        Self::Late,
        Self::Peers,
        Self::Postgres,
        Self::Coordinator,
        Self::TwoBrokers,
    ];

    /// Name in the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Producer => "kill -9 the producer",
            Self::Consumer => "kill -9 a consumer",
            Self::Broker => "kill -9 the broker",
            Self::Pause => "freeze a consumer",
            Self::Rolling => "rolling restart",
            Self::Scale => "scale 3 → 1 → 3",
            Self::Cut => "cut one off from Kafka",
            Self::CutOneWay => "cut one way",
            Self::Late => "Kafka answers late",
            Self::Peers => "cut a consumer from peers",
            Self::Postgres => "cut off PostgreSQL",
            Self::Retention => "retention during rebuilds",
            Self::Recreate => "topic made again",
            Self::Brokers => "kill -9 three brokers in turn",
            Self::Coordinator => "kill -9 coordinator and consumer",
            Self::TwoBrokers => "kill -9 two of three brokers",
            Self::Elections => "restart brokers, elections",
            Self::Disk => "full disks",
        }
    }

    /// True if it removes records of earlier scenarios too.
    #[must_use]
    pub fn removes_records(self) -> bool {
        matches!(self, Self::Retention | Self::Recreate)
    }

    /// The installation that it needs.
    #[must_use]
    pub fn topology(self) -> Topology {
        match self {
            Self::Brokers | Self::Coordinator | Self::TwoBrokers | Self::Elections => THREE_BROKERS,
            Self::Disk => SMALL_DISKS,
            _ => ONE_BROKER,
        }
    }
}
