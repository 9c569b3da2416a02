//! What librdkafka says, brought into our own log.

use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::{ClientContext, Statistics, config::RDKafkaLogLevel, error::KafkaError};

/// Passes a client's words on, and remembers whether something looked wrong.
#[derive(Default)]
pub(super) struct ClientLog {
    /// Set when the client lost its brokers or failed for good; whoever looks after the client
    /// takes it.
    suspect: AtomicBool,
}

impl ClientLog {
    /// Says that the client should be looked at.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
    }

    /// Whether the client should be looked at; asked once per suspicion.
    pub(super) fn take_suspicion(&self) -> bool {
        self.suspect.swap(false, Ordering::AcqRel)
    }
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => {
                tracing::warn!(target: "librdkafka", { kafka.facility = facility }, "{message}");
            }
            // Broken connections are reported once, by `error`; librdkafka repeats them here.
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(target: "librdkafka", { kafka.facility = facility }, "{message}");
            }
            RDKafkaLogLevel::Debug => {
                tracing::debug!(target: "librdkafka", { kafka.facility = facility }, "{message}");
            }
        }
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.suspect();
        tracing::warn!(target: "librdkafka", %error, "{reason}");
    }
}
