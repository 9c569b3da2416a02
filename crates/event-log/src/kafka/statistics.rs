//! librdkafka's statistics as metrics. A client reports them every few seconds, on the thread that
//! polls it.

use crate::metrics::{
    KAFKA_BROKERS, KAFKA_DISCONNECTS, KAFKA_QUEUE_BYTES, KAFKA_QUEUE_MESSAGES, KAFKA_RETRIES,
    KAFKA_ROUND_TRIP, KAFKA_TIMEOUTS,
};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use rdkafka::{Statistics, statistics::Broker};

/// The metrics of one client and of its replacements.
pub(super) struct ClientMetrics {
    /// The label of the client: its purpose.
    client: &'static str,
    /// The counters of the last report: retries, time-outs and lost connections.
    counters: Mutex<[u64; 3]>,
}

impl ClientMetrics {
    pub(super) fn new(client: &'static str) -> Self {
        Self { client, counters: Mutex::default() }
    }

    pub(super) fn record_statistics(&self, statistics: &Statistics) {
        let client = self.client;
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
            for (percentile, micros) in [("p50", p50), ("p99", p99)] {
                gauge!(KAFKA_ROUND_TRIP, "client" => client, "percentile" => percentile)
                    .set(micros as f64 / 1e6);
            }
        }

        let sum = |count: fn(&Broker) -> u64| statistics.brokers.values().map(count).sum::<u64>();
        let now = [
            sum(|broker| broker.txretries),
            sum(|broker| broker.req_timeouts),
            sum(|broker| broker.disconnects.map_or(0, |count| count.max(0) as u64)),
        ];
        let before = std::mem::replace(&mut *self.counters.lock(), now);
        let names = [KAFKA_RETRIES, KAFKA_TIMEOUTS, KAFKA_DISCONNECTS];
        for ((name, now), before) in names.into_iter().zip(now).zip(before) {
            counter!(name, "client" => client).increment(added_since(now, before));
        }
    }
}

/// The increase since `before`. A replacement of the client counts from 0 again.
fn added_since(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
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
        assert_eq!(added_since(7, 5), 2);
        assert_eq!(added_since(3, 7), 3);
    }
}
