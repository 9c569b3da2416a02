//! librdkafka's statistics as metrics. A client reports them every few seconds, on the thread that
//! polls it.

use crate::metrics::{
    KAFKA_BROKERS, KAFKA_DISCONNECTS, KAFKA_QUEUE_BYTES, KAFKA_QUEUE_MESSAGES, KAFKA_RETRIES,
    KAFKA_ROUND_TRIP, KAFKA_TIMEOUTS,
};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use rdkafka::{Statistics, statistics::Broker};

/// The purpose of a client: its label in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientRole {
    /// Fetches metadata and creates topics. It is not polled, so it reports no statistics.
    Admin,
    /// Appends.
    Writer,
    /// Reads as a member of a group.
    Reader,
    /// Reads partitions without a group.
    Follower,
}

impl ClientRole {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Follower => "follower",
        }
    }
}

/// The metrics of one client and of its replacements.
pub(super) struct ClientMetrics {
    role: ClientRole,
    /// The counters of the last report.
    counters: Mutex<ClientCounters>,
}

/// Counted since the client was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct ClientCounters {
    retries: u64,
    timeouts: u64,
    disconnects: u64,
}

impl ClientMetrics {
    pub(super) fn new(role: ClientRole) -> Self {
        Self { role, counters: Mutex::default() }
    }

    pub(super) fn record_statistics(&self, statistics: &Statistics) {
        let client = self.role.as_str();
        gauge!(KAFKA_QUEUE_MESSAGES, "client" => client).set(statistics.msg_cnt as f64);
        gauge!(KAFKA_QUEUE_BYTES, "client" => client).set(statistics.msg_size as f64);

        let brokers = || statistics.brokers.values().filter(|broker| is_cluster_broker(broker));
        let up = brokers().filter(|broker| broker.state == "UP").count();
        let down = brokers().count() - up;
        for (state, count) in [("up", up), ("down", down)] {
            gauge!(KAFKA_BROKERS, "client" => client, "state" => state).set(count as f64);
        }
        // Without requests since the last report, the gauges keep their values.
        let windows = brokers().filter_map(|b| b.rtt.as_ref()).filter(|rtt| rtt.cnt > 0);
        let slowest =
            windows.map(|rtt| (rtt.p50, rtt.p99)).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
        if let Some((p50, p99)) = slowest {
            for (quantile, micros) in [("p50", p50), ("p99", p99)] {
                gauge!(KAFKA_ROUND_TRIP, "client" => client, "quantile" => quantile)
                    .set(micros as f64 / 1e6);
            }
        }

        let now = ClientCounters::from_statistics(statistics);
        let added = now.added_since(std::mem::replace(&mut *self.counters.lock(), now));
        counter!(KAFKA_RETRIES, "client" => client).increment(added.retries);
        counter!(KAFKA_TIMEOUTS, "client" => client).increment(added.timeouts);
        counter!(KAFKA_DISCONNECTS, "client" => client).increment(added.disconnects);
    }
}

impl ClientCounters {
    fn from_statistics(statistics: &Statistics) -> Self {
        statistics.brokers.values().fold(Self::default(), |sum, broker| Self {
            retries: sum.retries + broker.txretries,
            timeouts: sum.timeouts + broker.req_timeouts,
            disconnects: sum.disconnects
                + broker.disconnects.map_or(0, |count| u64::try_from(count).unwrap_or(0)),
        })
    }

    /// The increase since `before`. A replacement of the client counts from 0 again.
    fn added_since(self, before: Self) -> Self {
        let added = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self {
            retries: added(self.retries, before.retries),
            timeouts: added(self.timeouts, before.timeouts),
            disconnects: added(self.disconnects, before.disconnects),
        }
    }
}

/// Returns false for a bootstrap address that is not connected yet, and for a second connection to
/// a broker (to a group's coordinator).
fn is_cluster_broker(broker: &Broker) -> bool {
    broker.nodeid >= 0 && broker.source != "logical"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(source: &str, nodeid: i32) -> Broker {
        Broker { source: source.into(), nodeid, ..Broker::default() }
    }

    #[test]
    fn only_brokers_of_the_cluster_are_counted() {
        let seen = [("configured", -1), ("configured", 1), ("learned", 2), ("logical", 2)];
        let counted = seen.map(|(source, nodeid)| is_cluster_broker(&broker(source, nodeid)));
        assert_eq!(counted, [false, true, true, false]);
    }

    #[test]
    fn a_client_that_takes_another_s_place_adds_to_what_that_one_counted() {
        let with = |retries| ClientCounters { retries, ..ClientCounters::default() };
        assert_eq!(with(7).added_since(with(5)).retries, 2);
        assert_eq!(with(3).added_since(with(7)).retries, 3);
    }
}
