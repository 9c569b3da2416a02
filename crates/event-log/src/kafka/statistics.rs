//! What librdkafka counts of itself, as metrics. Each client tells it every few seconds, on
//! whichever thread polls it.

use crate::metrics::{
    KAFKA_BROKERS, KAFKA_DISCONNECTS, KAFKA_QUEUE_BYTES, KAFKA_QUEUE_MESSAGES, KAFKA_RETRIES,
    KAFKA_ROUND_TRIP, KAFKA_TIMEOUTS,
};
use metrics::{counter, gauge};
use parking_lot::Mutex;
use rdkafka::{Statistics, statistics::Broker};

/// Which of our clients it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Asks for metadata and makes topics. Nobody polls for its statistics, so it has none.
    Admin,
    /// Appends.
    Writer,
    /// Is a member of a group.
    Reader,
    /// Reads what it is told.
    Follower,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Writer => "writer",
            Self::Reader => "reader",
            Self::Follower => "follower",
        }
    }
}

/// Of one client, and of those that take its place.
pub(super) struct Told {
    role: Role,
    /// What was counted when it was last told.
    totals: Mutex<Totals>,
}

/// Since the client was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    retries: u64,
    timeouts: u64,
    disconnects: u64,
}

impl Told {
    pub(super) fn by(role: Role) -> Self {
        Self { role, totals: Mutex::default() }
    }

    pub(super) fn take(&self, statistics: &Statistics) {
        let client = self.role.as_str();
        gauge!(KAFKA_QUEUE_MESSAGES, "client" => client).set(statistics.msg_cnt as f64);
        gauge!(KAFKA_QUEUE_BYTES, "client" => client).set(statistics.msg_size as f64);

        let brokers = || statistics.brokers.values().filter(|broker| is_one(broker));
        let up = brokers().filter(|broker| broker.state == "UP").count();
        let down = brokers().count() - up;
        for (state, count) in [("up", up), ("down", down)] {
            gauge!(KAFKA_BROKERS, "client" => client, "state" => state).set(count as f64);
        }
        // While nothing was asked, the last round trip is all that is known.
        let windows = brokers().filter_map(|b| b.rtt.as_ref()).filter(|rtt| rtt.cnt > 0);
        let slowest =
            windows.map(|rtt| (rtt.p50, rtt.p99)).reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
        if let Some((p50, p99)) = slowest {
            for (quantile, micros) in [("p50", p50), ("p99", p99)] {
                gauge!(KAFKA_ROUND_TRIP, "client" => client, "quantile" => quantile)
                    .set(micros as f64 / 1e6);
            }
        }

        let now = Totals::of(statistics);
        let grown = now.since(std::mem::replace(&mut *self.totals.lock(), now));
        counter!(KAFKA_RETRIES, "client" => client).increment(grown.retries);
        counter!(KAFKA_TIMEOUTS, "client" => client).increment(grown.timeouts);
        counter!(KAFKA_DISCONNECTS, "client" => client).increment(grown.disconnects);
    }
}

impl Totals {
    fn of(statistics: &Statistics) -> Self {
        statistics.brokers.values().fold(Self::default(), |sum, broker| Self {
            retries: sum.retries + broker.txretries,
            timeouts: sum.timeouts + broker.req_timeouts,
            disconnects: sum.disconnects
                + broker.disconnects.map_or(0, |count| u64::try_from(count).unwrap_or(0)),
        })
    }

    /// What has been added. A client that took another's place counts from 0 again.
    fn since(self, before: Self) -> Self {
        let grown = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Self {
            retries: grown(self.retries, before.retries),
            timeouts: grown(self.timeouts, before.timeouts),
            disconnects: grown(self.disconnects, before.disconnects),
        }
    }
}

/// Whether it is a broker of the cluster: neither an address to begin with that was not reached
/// yet, nor a second connection to one of them (to a group's coordinator).
fn is_one(broker: &Broker) -> bool {
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
        let counted = seen.map(|(source, nodeid)| is_one(&broker(source, nodeid)));
        assert_eq!(counted, [false, true, true, false]);
    }

    #[test]
    fn a_client_that_takes_another_s_place_adds_to_what_that_one_counted() {
        let of = |retries| Totals { retries, ..Totals::default() };
        assert_eq!(of(7).since(of(5)).retries, 2);
        assert_eq!(of(3).since(of(7)).retries, 3);
    }
}
