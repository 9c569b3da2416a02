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

/// Passes a client's words and numbers on, and remembers whether something looked wrong.
pub(super) struct ClientLog {
    told: Told,
    /// Set when the client lost its brokers or failed for good; whoever looks after the client
    /// takes it.
    suspect: AtomicBool,
    said: Mutex<Option<Instant>>,
}

impl ClientLog {
    pub(super) fn of(role: Role) -> Self {
        let (told, suspect, said) = (Told::by(role), AtomicBool::new(false), Mutex::default());
        Self { told, suspect, said }
    }

    /// Says that the client should be looked at.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// Whether the client should be looked at; asked once per suspicion.
    pub(super) fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::AcqRel)
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
                tracing::debug!(target: "librdkafka", { kafka.facility = facility }, "{message}");
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.told.take(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            // Nothing is wrong: the end of a partition was reached.
            Some(RDKafkaErrorCode::PartitionEOF) => {}
            Some(
                RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut,
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
