//! The producer's metrics: names, meanings and labels, and the counters. The code that counts keeps
//! the counters, because looking one up by name is slow.
#![allow(missing_docs)] // The descriptions say what each constant is.

use std::collections::HashMap;

use event_log::AppendError;
use metrics::{
    Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, histogram,
};
pub const RATE_LIMITED: &str = "notifications_rate_limited_total";
pub const SENT: &str = "notifications_sent_total";
pub const ACKNOWLEDGEMENT_SECONDS: &str = "notifications_acknowledgement_seconds";
pub const BULK_LINES: &str = "notifications_bulk_lines_total";
pub const DIRECTORY_LOOKUPS: &str = "notifications_directory_lookups_total";
pub const DIRECTORY_CACHED: &str = "notifications_directory_cached_names";
pub const DIRECTORY_TRUSTED: &str = "notifications_directory_cache_trusted";

/// Describes every metric of a producer.
pub fn describe() {
    service::ops::metrics::describe_service();
    event_log::metrics::describe_clients();
    describe_counter!(
        RATE_LIMITED,
        "Requests refused because their sender exceeds its rate; labels: service"
    );
    describe_counter!(
        SENT,
        "Notifications, one for each recipient: `acknowledged`, `refused`, `unknown` (no acknowledgement in time, 504), `unavailable` (queue full or log away, 503), `duplicate` (its Idempotency-Key was known and it is in the log); labels: outcome"
    );
    describe_histogram!(ACKNOWLEDGEMENT_SECONDS, "From appending a record to its acknowledgement");
    describe_counter!(BULK_LINES, "Lines of bulk requests answered; labels: status");
    describe_counter!(
        DIRECTORY_LOOKUPS,
        "Users looked up: `hit` (in the cache), `miss` (asked of the directory), `failed` (the directory did not answer); labels: result"
    );
    describe_gauge!(DIRECTORY_CACHED, "Names in the cache; absent without a cache");
    describe_gauge!(
        DIRECTORY_TRUSTED,
        "1 while the cache is certain to be told of changes, otherwise 0; absent without a cache"
    );
}

/// Counts notifications, one for each recipient, by outcome.
#[derive(Clone)]
pub(crate) struct SendMetrics {
    acknowledged: Counter,
    refused: Counter,
    unknown: Counter,
    unavailable: Counter,
    /// Notifications that an earlier request with the same Idempotency-Key wrote.
    pub(crate) duplicate: Counter,
    acknowledgement_seconds: Histogram,
}

impl Default for SendMetrics {
    fn default() -> Self {
        let with_outcome = |outcome: &'static str| counter!(SENT, "outcome" => outcome);
        Self {
            acknowledged: with_outcome("acknowledged"),
            refused: with_outcome("refused"),
            unknown: with_outcome("unknown"),
            unavailable: with_outcome("unavailable"),
            duplicate: with_outcome("duplicate"),
            acknowledgement_seconds: histogram!(ACKNOWLEDGEMENT_SECONDS),
        }
    }
}

impl SendMetrics {
    /// Counts a record that the log acknowledged this long after it was appended.
    pub(crate) fn count_acknowledged(&self, took: std::time::Duration) {
        self.acknowledged.increment(1);
        self.acknowledgement_seconds.record(took);
    }

    /// Counts a record that was not acknowledged.
    pub(crate) fn count_failed(&self, error: &AppendError) {
        match error {
            AppendError::Full | AppendError::Unreachable(_) => self.unavailable.increment(1),
            AppendError::TimedOut(_) => self.unknown.increment(1),
            AppendError::TooLarge | AppendError::Refused(_) => self.refused.increment(1),
        }
    }
}

/// Counts the lines of one bulk request by status.
#[derive(Default)]
pub(crate) struct BulkLineCounters(HashMap<u16, Counter>);

impl BulkLineCounters {
    /// Counts a line that was answered with this status.
    pub(crate) fn count_line(&mut self, status: u16) {
        let counter = self.0.entry(status);
        counter
            .or_insert_with(|| counter!(BULK_LINES, "status" => status.to_string()))
            .increment(1);
    }
}

/// Counts users by the result of their look-up.
pub(crate) struct LookupCounters {
    pub(crate) hit: Counter,
    pub(crate) miss: Counter,
    pub(crate) failed: Counter,
}

impl Default for LookupCounters {
    fn default() -> Self {
        let with_result = |result: &'static str| counter!(DIRECTORY_LOOKUPS, "result" => result);
        Self { hit: with_result("hit"), miss: with_result("miss"), failed: with_result("failed") }
    }
}
