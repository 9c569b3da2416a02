//! What the producer counts: each handle is made once, and kept by those who count with it.

use std::collections::HashMap;

use log::AppendError;
use metric_names::{
    ACKNOWLEDGEMENT_SECONDS, BULK_LINES, DIRECTORY_CACHED, DIRECTORY_LOOKUPS, DIRECTORY_TRUSTED,
    SENT,
};
use metrics::{Counter, Histogram, counter, histogram};
use service::metrics::Scrape;

use crate::directory::Names;

/// What becomes of notifications, a recipient each.
#[derive(Clone)]
pub(crate) struct Outcomes {
    acknowledged: Counter,
    refused: Counter,
    unknown: Counter,
    unavailable: Counter,
    /// Those that were in the log already.
    pub(crate) duplicate: Counter,
    seconds: Histogram,
}

impl Default for Outcomes {
    fn default() -> Self {
        let of = |outcome: &'static str| counter!(SENT.name, "outcome" => outcome);
        Self {
            acknowledged: of("acknowledged"),
            refused: of("refused"),
            unknown: of("unknown"),
            unavailable: of("unavailable"),
            duplicate: of("duplicate"),
            seconds: histogram!(ACKNOWLEDGEMENT_SECONDS.name),
        }
    }
}

impl Outcomes {
    /// The log has it, so long after it was appended.
    pub(crate) fn acknowledged(&self, took: std::time::Duration) {
        self.acknowledged.increment(1);
        self.seconds.record(took);
    }

    /// It was given up.
    pub(crate) fn failed(&self, error: &AppendError) {
        match error {
            AppendError::Full | AppendError::Unreachable(_) => self.unavailable.increment(1),
            AppendError::TimedOut(_) => self.unknown.increment(1),
            AppendError::TooLarge | AppendError::Refused(_) => self.refused.increment(1),
        }
    }
}

/// The lines of one bulk.
#[derive(Default)]
pub(crate) struct BulkLines(HashMap<u16, Counter>);

impl BulkLines {
    /// One was answered with this status.
    pub(crate) fn answered(&mut self, status: u16) {
        let known = self.0.entry(status);
        let known =
            known.or_insert_with(|| counter!(BULK_LINES.name, "status" => status.to_string()));
        known.increment(1);
    }
}

/// How users were looked up.
pub(crate) struct Lookups {
    pub(crate) hit: Counter,
    pub(crate) miss: Counter,
    pub(crate) failed: Counter,
}

impl Default for Lookups {
    fn default() -> Self {
        let of = |result: &'static str| counter!(DIRECTORY_LOOKUPS.name, "result" => result);
        Self { hit: of("hit"), miss: of("miss"), failed: of("failed") }
    }
}

/// What the producer is asked at a scrape.
pub(crate) fn states(names: &Names, scrape: &mut Scrape) {
    if let Some((count, trusted)) = names.cache_state() {
        scrape.add(&DIRECTORY_CACHED, &[], count as f64);
        scrape.add(&DIRECTORY_TRUSTED, &[], f64::from(u8::from(trusted)));
    }
}
