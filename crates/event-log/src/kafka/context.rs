//! What librdkafka says, brought into our own log.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::statistics::{Role, Told};
use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Statistics, config::RDKafkaLogLevel, error::KafkaError, types::RDKafkaErrorCode,
};

/// Connection trouble is said at most this often: librdkafka repeats it for every broker, thread
/// and attempt.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Why brokers that are there turn us away, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// They do not know the user, or the password is another.
    User,
    /// Their certificate is not what it should be.
    TheirCertificate,
    /// Ours is not, or there is none.
    OurCertificate,
    /// They expect TLS, or SASL, or neither.
    Protocol,
}

impl Refusal {
    /// By what librdkafka says of it: for some of them there is nothing but the text.
    fn of(code: Option<RDKafkaErrorCode>, reason: &str) -> Option<Self> {
        if reason.contains(" alert ") {
            Some(Self::OurCertificate)
        } else if reason.contains("listener?") || hung_up(reason) {
            Some(Self::Protocol)
        } else {
            match code {
                Some(RDKafkaErrorCode::Authentication) => Some(Self::User),
                Some(RDKafkaErrorCode::SSL) => Some(Self::TheirCertificate),
                _ => None,
            }
        }
    }

    /// What a person can do.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::User => {
                "it refuses the login: check --kafka-username, its password and \
                 --kafka-sasl-mechanism"
            }
            Self::TheirCertificate => {
                "its certificate is not trusted: --kafka-ca must be the authority that has signed \
                 it, and it must be for the host names by which the brokers are reached; the log \
                 says more"
            }
            Self::OurCertificate => {
                "it refuses our certificate, or wants one: check --kafka-cert and --kafka-key"
            }
            Self::Protocol => {
                "it closes the connection at once: check --kafka-security, as its listener may \
                 expect TLS or a login"
            }
        }
    }
}

/// Whether the connection was closed before anything was said: librdkafka ends such a text with
/// `(after 0ms in state APIVERSION_QUERY, 1 identical error(s) suppressed)`.
fn hung_up(reason: &str) -> bool {
    let Some((what, after)) = reason.rsplit_once("(after ") else { return false };
    let Some((span, state)) = after.split_once("ms in state ") else { return false };
    // A listener that expects a login lets TLS come about first. Two seconds, as librdkafka has it
    // where it suspects the same: a busy broker takes its time.
    let at_once = span.parse::<u32>().is_ok_and(|span| span < 2000);
    what.contains("Disconnected")
        && (["APIVERSION_QUERY", "SSL_HANDSHAKE"].iter().any(|early| state.starts_with(early))
            || (at_once && state.starts_with("UP")))
}

/// Passes a client's words and numbers on, and remembers whether something looked wrong.
pub(super) struct ClientLog {
    told: Told,
    /// Set when the client lost its brokers or failed for good; whoever looks after the client
    /// takes it.
    suspect: AtomicBool,
    said: Mutex<Option<Instant>>,
    /// The last one since a broker answered.
    refusal: Mutex<Option<Refusal>>,
}

impl ClientLog {
    pub(super) fn of(role: Role) -> Self {
        let (told, suspect) = (Told::by(role), AtomicBool::new(false));
        Self { told, suspect, said: Mutex::default(), refusal: Mutex::default() }
    }

    /// Says that the client should be looked at.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// Whether the client should be looked at; asked once per suspicion.
    pub(super) fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::AcqRel)
    }

    /// Why the brokers turn us away, if they do.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        *self.refusal.lock()
    }

    /// Says that a broker has answered.
    pub(super) fn answered(&self) {
        *self.refusal.lock() = None;
    }

    fn note(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        let mut refusal = self.refusal.lock();
        if let Some(new) = Refusal::of(code, reason) {
            *refusal = Some(new);
        } else if *refusal == Some(Refusal::Protocol) && reason.contains("Connect to ") {
            // It hung up because it was about to end.
            *refusal = None;
        }
    }

    fn may_say(&self) -> bool {
        let mut said = self.said.lock();
        let may = said.is_none_or(|at| at.elapsed() >= SAY_AGAIN);
        if may {
            *said = Some(Instant::now());
        }
        may
    }
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => {
                // Broken connections come by `error` too, which counts them.
                if matches!(facility, "FAIL" | "REQTMOUT" | "ERROR") {
                    tracing::debug!(target: "librdkafka", { kafka.facility = facility }, "{message}");
                } else {
                    tracing::warn!(target: "librdkafka", { kafka.facility = facility }, "{message}");
                }
            }
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
                // A closed connection comes in no other way.
                if facility == "FAIL" {
                    self.note(None, message);
                }
                tracing::debug!(target: "librdkafka", { kafka.facility = facility }, "{message}");
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.told.take(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        self.note(code, reason);
        match code {
            // Nothing is wrong: the end of a partition was reached.
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SSL,
            ) => {
                self.suspect();
                if self.may_say() {
                    tracing::warn!(target: "librdkafka", "{reason}");
                } else {
                    tracing::debug!(target: "librdkafka", "{reason}");
                }
            }
            _ => {
                self.suspect();
                tracing::warn!(target: "librdkafka", %error, "{reason}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_broker_turns_us_away_is_told_from_what_librdkafka_says() {
        let transport = Some(RDKafkaErrorCode::BrokerTransportFailure);
        for (code, reason, expected) in [
            (
                Some(RDKafkaErrorCode::Authentication),
                "sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed \
                 (after 359ms in state AUTH_REQ)",
                Some(Refusal::User),
            ),
            (
                Some(RDKafkaErrorCode::SSL),
                "ssl://b:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::\
                 certificate verify failed: broker certificate could not be verified",
                Some(Refusal::TheirCertificate),
            ),
            (
                transport,
                "ssl://b:1/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad \
                 certificate: SSL alert number 42 (after 0ms in state APIVERSION_QUERY)",
                Some(Refusal::OurCertificate),
            ),
            (
                None,
                "b:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN \
                 (after 0ms in state APIVERSION_QUERY, 1 identical error(s) suppressed)",
                Some(Refusal::Protocol),
            ),
            (
                None,
                "ssl://b:1/bootstrap: Disconnected: SSL connection closed by peer (after 0ms in \
                 state UP)",
                Some(Refusal::Protocol),
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
            assert_eq!(Refusal::of(code, reason), expected, "{reason}");
        }
    }

    #[test]
    fn what_a_broker_said_counts_until_one_answers() {
        let log = ClientLog::of(Role::Writer);
        log.note(Some(RDKafkaErrorCode::Authentication), "no");
        log.note(Some(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(log.refusal(), Some(Refusal::User));
        log.answered();
        assert_eq!(log.refusal(), None);
    }

    #[test]
    fn a_broker_that_hung_up_because_it_ended_is_only_away() {
        let log = ClientLog::of(Role::Writer);
        log.note(None, "b:1: Disconnected (after 0ms in state APIVERSION_QUERY)");
        assert_eq!(log.refusal(), Some(Refusal::Protocol));
        log.note(None, "b:1: Connect to ipv4#127.0.0.1:1 failed (after 0ms in state CONNECT)");
        assert_eq!(log.refusal(), None);
    }
}
