//! The metrics of a producer: name, meaning and labels, and the handles that count.
//! Each handle is made once and kept by the code that counts with it.

use std::collections::HashMap;

use event_log::AppendError;
use metrics::{
    Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, histogram,
};
use service::ops::metrics::Scrape;

use crate::directory::UserLookup;

/// Requests refused because their sender sends too many.
pub const RATE_LIMITED: &str = "notifications_rate_limited_total";
/// Notifications by what became of them, a recipient each.
pub const SENT: &str = "notifications_sent_total";
/// From appending a record to its acknowledgement.
pub const ACKNOWLEDGEMENT_SECONDS: &str = "notifications_acknowledgement_seconds";
/// Lines of bulks answered, by status.
pub const BULK_LINES: &str = "notifications_bulk_lines_total";
/// Users looked up.
pub const DIRECTORY_LOOKUPS: &str = "notifications_directory_lookups_total";
/// Names in the cache.
pub const DIRECTORY_CACHED: &str = "notifications_directory_cached_names";
/// 1 while the cache is certain to hear of changes, otherwise 0.
pub const DIRECTORY_TRUSTED: &str = "notifications_directory_cache_trusted";

/// Describes every metric of a producer.
pub fn describe() {
    service::ops::metrics::describe();
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

/// What becomes of notifications, a recipient each.
#[derive(Clone)]
pub(crate) struct SendMetrics {
    acknowledged: Counter,
    refused: Counter,
    unknown: Counter,
    unavailable: Counter,
    /// Those that were in the log already.
    pub(crate) duplicate: Counter,
    seconds: Histogram,
}

impl Default for SendMetrics {
    fn default() -> Self {
        let of = |outcome: &'static str| counter!(SENT, "outcome" => outcome);
        Self {
            acknowledged: of("acknowledged"),
            refused: of("refused"),
            unknown: of("unknown"),
            unavailable: of("unavailable"),
            duplicate: of("duplicate"),
            seconds: histogram!(ACKNOWLEDGEMENT_SECONDS),
        }
    }
}

impl SendMetrics {
    /// The log has it, so long after it was appended.
    pub(crate) fn count_acknowledged(&self, took: std::time::Duration) {
        self.acknowledged.increment(1);
        self.seconds.record(took);
    }

    /// It was given up.
    pub(crate) fn count_failed(&self, error: &AppendError) {
        match error {
            AppendError::Full | AppendError::Unreachable(_) => self.unavailable.increment(1),
            AppendError::TimedOut(_) => self.unknown.increment(1),
            AppendError::TooLarge | AppendError::Refused(_) => self.refused.increment(1),
        }
    }
}

/// The lines of one bulk.
#[derive(Default)]
pub(crate) struct BulkLineCounters(HashMap<u16, Counter>);

impl BulkLineCounters {
    /// One was answered with this status.
    pub(crate) fn count_line(&mut self, status: u16) {
        let known = self.0.entry(status);
        let known = known.or_insert_with(|| counter!(BULK_LINES, "status" => status.to_string()));
        known.increment(1);
    }
}

/// How users were looked up.
pub(crate) struct LookupCounters {
    pub(crate) hit: Counter,
    pub(crate) miss: Counter,
    pub(crate) failed: Counter,
}

impl Default for LookupCounters {
    fn default() -> Self {
        let of = |result: &'static str| counter!(DIRECTORY_LOOKUPS, "result" => result);
        Self { hit: of("hit"), miss: of("miss"), failed: of("failed") }
    }
}

/// What the producer is asked at a scrape.
pub(crate) fn states(names: &UserLookup, scrape: &mut Scrape) {
    if let Some((count, trusted)) = names.cache_state() {
        scrape.add(DIRECTORY_CACHED, &[], count as f64);
        scrape.add(DIRECTORY_TRUSTED, &[], f64::from(u8::from(trusted)));
    }
}
