//! Passes librdkafka's logs, errors and statistics on, and derives from them why brokers refuse a
//! client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::statistics::ClientMetrics;
use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Statistics, config::RDKafkaLogLevel, error::KafkaError, types::RDKafkaErrorCode,
};

/// Connection errors are logged at most this often: librdkafka repeats them for each broker, thread
/// and attempt.
const MIN_WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// For logs. See [`ClientLog::take_lost_brokers`].
pub(super) const LOST_BROKERS: &str = "the client has dropped all its brokers";

/// Why a reachable broker refuses the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BrokerRefusal {
    /// The user name or the password is wrong.
    Login,
    /// The client does not trust the broker's certificate.
    BrokerCertificate,
    /// The broker does not trust the client's certificate, or requires one.
    ClientCertificate,
    /// The security protocol is not the listener's.
    Protocol,
}

impl BrokerRefusal {
    /// librdkafka reports some of them only in the text of its error.
    fn from_client_error(code: Option<RDKafkaErrorCode>, reason: &str) -> Option<Self> {
        if reason.contains(" alert ") {
            Some(Self::ClientCertificate)
        } else if reason.contains("listener?") || is_early_close(reason) {
            Some(Self::Protocol)
        } else {
            match code {
                Some(RDKafkaErrorCode::Authentication) => Some(Self::Login),
                Some(RDKafkaErrorCode::SSL) => Some(Self::BrokerCertificate),
                _ => None,
            }
        }
    }

    /// Tells the operator which settings to check.
    pub(super) fn to_advice(self) -> &'static str {
        match self {
            Self::Login => {
                "the broker refuses the login: check --kafka-username, its password and \
                 --kafka-sasl-mechanism"
            }
            Self::BrokerCertificate => {
                "the broker's certificate is not trusted: --kafka-ca must have signed it, and it \
                 must be valid for the host names in --kafka-brokers; see the log"
            }
            Self::ClientCertificate => {
                "the broker requires a trusted client certificate: check --kafka-cert and \
                 --kafka-key"
            }
            Self::Protocol => {
                "the broker closes the connection: check --kafka-security, because its listener may \
                 require TLS or a login"
            }
        }
    }
}

/// Returns true if the broker closed the connection before its first response. librdkafka ends such
/// a text with `(after 0ms in state APIVERSION_QUERY, 1 identical error(s) suppressed)`.
fn is_early_close(reason: &str) -> bool {
    let Some((what, after)) = reason.rsplit_once("(after ") else { return false };
    let Some((span, state)) = after.split_once("ms in state ") else { return false };
    // A listener that requires a login completes the TLS handshake first. librdkafka uses the same
    // two seconds for its own hint.
    let at_once = span.parse::<u32>().is_ok_and(|span| span < 2000);
    what.contains("Disconnected")
        && (["APIVERSION_QUERY", "SSL_HANDSHAKE"].iter().any(|early| state.starts_with(early))
            || (at_once && state.starts_with("UP")))
}

/// The context of a client and of those that replace it. It remembers signs of trouble. A cheap
/// handle, to be cloned.
#[derive(Clone)]
pub(super) struct ClientLog(Arc<ClientState>);

struct ClientState {
    metrics: ClientMetrics,
    /// The client lost its brokers or had a fatal error, and its supervisor has not checked it yet.
    suspect: AtomicBool,
    /// The client has lost its last broker, and none has answered since.
    has_no_broker: AtomicBool,
    /// Reports of statistics in a row that name no broker.
    empty_reports: AtomicU32,
    warned_at: Mutex<Option<Instant>>,
    /// The last refusal since a broker answered.
    refusal: Mutex<Option<BrokerRefusal>>,
}

impl ClientLog {
    /// `client` is its label in the metrics.
    pub(super) fn new(client: &'static str) -> Self {
        Self(Arc::new(ClientState {
            metrics: ClientMetrics::new(client),
            suspect: AtomicBool::new(false),
            has_no_broker: AtomicBool::new(false),
            empty_reports: AtomicU32::new(0),
            warned_at: Mutex::default(),
            refusal: Mutex::default(),
        }))
    }

    /// Asks the supervisor to check the client.
    pub(super) fn set_suspect(&self) {
        self.0.suspect.store(true, Ordering::Release);
    }

    /// Returns true once after each [`set_suspect`](Self::set_suspect).
    pub(super) fn take_suspect(&self) -> bool {
        self.0.suspect.swap(false, Ordering::AcqRel)
    }

    pub(super) fn last_refusal(&self) -> Option<BrokerRefusal> {
        *self.0.refusal.lock()
    }

    /// True from the loss of the last broker until one has answered.
    pub(super) fn has_no_broker(&self) -> bool {
        self.0.has_no_broker.load(Ordering::Acquire)
    }

    /// True once after the client has dropped all its brokers. It never asks for them again
    /// (confluentinc/librdkafka#5301), so it must be replaced. A Metadata response that names no
    /// broker does that, as one of a broker that was fenced for a moment.
    pub(super) fn take_lost_brokers(&self) -> bool {
        // A bootstrap after the loss of the last broker shows no broker for a moment.
        let is_lost = self.0.empty_reports.load(Ordering::Acquire) >= 2;
        if is_lost {
            self.0.empty_reports.store(0, Ordering::Release);
        }
        is_lost
    }

    /// A broker has answered.
    pub(super) fn record_answer(&self) {
        self.0.has_no_broker.store(false, Ordering::Release);
        *self.0.refusal.lock() = None;
    }

    fn record_error(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        let mut refusal = self.0.refusal.lock();
        if let Some(new) = BrokerRefusal::from_client_error(code, reason) {
            *refusal = Some(new);
        } else if *refusal == Some(BrokerRefusal::Protocol) && reason.contains("Connect to ") {
            // The broker closed the connection because it was shutting down.
            *refusal = None;
        }
    }

    fn may_warn(&self) -> bool {
        let mut warned_at = self.0.warned_at.lock();
        let may = warned_at.is_none_or(|at| at.elapsed() >= MIN_WARNING_INTERVAL);
        if may {
            *warned_at = Some(Instant::now());
        }
        may
    }
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let is_quiet = matches!(
            level,
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug
        );
        // librdkafka logs a closed connection (a TLS listener's answer to plaintext) at INFO only.
        if is_quiet && facility == "FAIL" {
            self.record_error(None, message);
        }
        // librdkafka reports these to `error` too.
        if is_quiet || matches!(facility, "FAIL" | "REQTMOUT" | "ERROR") {
            tracing::debug!(target: "librdkafka", { kafka.facility = facility }, "{message}");
        } else {
            tracing::warn!(target: "librdkafka", { kafka.facility = facility }, "{message}");
        }
    }

    fn stats(&self, statistics: Statistics) {
        let is_broker = |source: &str| matches!(source, "configured" | "learned");
        if statistics.brokers.values().any(|broker| is_broker(&broker.source)) {
            self.0.empty_reports.store(0, Ordering::Release);
        } else if self.0.empty_reports.fetch_add(1, Ordering::AcqRel) > 0 {
            self.set_suspect();
        }
        self.0.metrics.record_statistics(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        self.record_error(code, reason);
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.0.has_no_broker.store(true, Ordering::Release);
        }
        match code {
            // Not an error.
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SSL,
            ) => {
                self.set_suspect();
                if self.may_warn() {
                    tracing::warn!(target: "librdkafka", "{reason}");
                } else {
                    tracing::debug!(target: "librdkafka", "{reason}");
                }
            }
            _ => {
                self.set_suspect();
                tracing::warn!(target: "librdkafka", %error, "{reason}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_refusal_is_derived_from_librdkafka_s_errors() {
        let transport = Some(RDKafkaErrorCode::BrokerTransportFailure);
        for (code, reason, expected) in [
            (
                Some(RDKafkaErrorCode::Authentication),
                "sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed \
                 (after 359ms in state AUTH_REQ)",
                Some(BrokerRefusal::Login),
            ),
            (
                Some(RDKafkaErrorCode::SSL),
                "ssl://b:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::\
                 certificate verify failed: broker certificate could not be verified",
                Some(BrokerRefusal::BrokerCertificate),
            ),
            (
                transport,
                "ssl://b:1/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad \
                 certificate: SSL alert number 42 (after 0ms in state APIVERSION_QUERY)",
                Some(BrokerRefusal::ClientCertificate),
            ),
            (
                None,
                "b:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN \
                 (after 0ms in state APIVERSION_QUERY, 1 identical error(s) suppressed)",
                Some(BrokerRefusal::Protocol),
            ),
            (
                None,
                "ssl://b:1/bootstrap: Disconnected: SSL connection closed by peer (after 0ms in \
                 state UP)",
                Some(BrokerRefusal::Protocol),
            ),
            (
                None,
                "ssl://b:1/bootstrap: Disconnected: SSL connection closed by peer (after 600000ms \
                 in state UP)",
                None,
            ),
            (
                transport,
                "b:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms \
                 in state CONNECT)",
                None,
            ),
        ] {
            assert_eq!(BrokerRefusal::from_client_error(code, reason), expected, "{reason}");
        }
    }

    #[test]
    fn a_client_without_brokers_is_noticed_at_the_second_report() {
        let report = |source: &str| {
            let broker =
                rdkafka::statistics::Broker { source: source.into(), ..Default::default() };
            Statistics { brokers: [("b".to_owned(), broker)].into(), ..Statistics::default() }
        };
        let log = ClientLog::new("writer");
        for (sources, expected) in [
            (["logical", "logical"], true),
            (["logical", "learned"], false),
            (["logical", "configured"], false),
            (["logical", "logical"], true),
        ] {
            for source in sources {
                log.stats(report(source));
            }
            assert_eq!(log.take_lost_brokers(), expected, "{sources:?}");
            assert!(!log.take_lost_brokers(), "once");
        }
    }

    #[test]
    fn a_refusal_is_remembered_until_a_broker_answers() {
        let log = ClientLog::new("writer");
        log.record_error(Some(RDKafkaErrorCode::Authentication), "no");
        log.record_error(Some(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(log.last_refusal(), Some(BrokerRefusal::Login));
        log.record_answer();
        assert_eq!(log.last_refusal(), None);
    }

    #[test]
    fn a_broker_that_closes_connections_because_it_shuts_down_is_unreachable() {
        let log = ClientLog::new("writer");
        log.record_error(None, "b:1: Disconnected (after 0ms in state APIVERSION_QUERY)");
        assert_eq!(log.last_refusal(), Some(BrokerRefusal::Protocol));
        log.record_error(
            None,
            "b:1: Connect to ipv4#127.0.0.1:1 failed (after 0ms in state CONNECT)",
        );
        assert_eq!(log.last_refusal(), None);
    }
}
