//! A partition on its way to being live: what is still to be read of its two topics.

use std::time::Instant;

use event_log::Watermarks;

/// The two topics that make a partition of the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// What was sent.
    Notifications,
    /// What recipients did.
    Receipts,
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Progress {
    /// Records read so far; offsets that the log skips count as read.
    pub records: u64,
    /// Notifications that came from a snapshot. What it has is not read, and counts nowhere else.
    pub restored: u64,
    /// Records there were at the assignment; unknown for the first moment.
    pub total: Option<u64>,
    /// 0 to 100; unknown while `total` is.
    pub percent: Option<f64>,
    /// Since the assignment.
    pub records_per_second: f64,
    /// At the present rate; unknown while `total` is.
    pub seconds_left: Option<f64>,
}

/// A rebuild under way.
#[derive(Debug)]
pub(super) struct Rebuild {
    /// Since when.
    pub(super) since: Instant,
    /// Notifications that came from a snapshot.
    restored: u64,
    sources: [Reading; 2],
}

/// How far one topic's partition is read.
#[derive(Debug, Default)]
struct Reading {
    /// Whether its reader has begun with it since the assignment: a word of its end that is older
    /// than that is of an earlier assignment.
    begun: bool,
    /// The first offset that is read, where that is not the log's first.
    from: i64,
    caught_up: bool,
    extent: Option<Watermarks>,
    last: Option<i64>,
}

impl Default for Rebuild {
    fn default() -> Self {
        Self { since: Instant::now(), restored: 0, sources: Default::default() }
    }
}

impl Rebuild {
    /// One that begins with so many notifications of a snapshot.
    pub(super) fn on(restored: u64) -> Self {
        Self { restored, ..Self::default() }
    }

    /// The reader of this topic begins at this offset, or with the first that the log has.
    pub(super) fn follow(&mut self, source: Source, from: Option<i64>) {
        let from = from.unwrap_or(0);
        self.sources[source as usize] = Reading { begun: true, from, ..Reading::default() };
    }

    /// Whether the reader of this topic has begun with this assignment.
    pub(super) fn has_begun(&self, source: Source) -> bool {
        self.sources[source as usize].begun
    }

    pub(super) fn set_extent(&mut self, source: Source, extent: Watermarks) {
        self.sources[source as usize].extent = Some(extent);
    }

    pub(super) fn advance(&mut self, source: Source, offset: i64) {
        self.sources[source as usize].last = Some(offset);
    }

    /// Whether the rebuild is complete now.
    pub(super) fn caught_up(&mut self, source: Source) -> bool {
        let reading = &mut self.sources[source as usize];
        reading.caught_up = reading.begun;
        self.sources.iter().all(|reading| reading.caught_up)
    }

    pub(super) fn progress(&self) -> Progress {
        let records = self.sources.iter().map(Reading::done).sum::<u64>();
        let total = self.sources.iter().map(Reading::total).sum::<Option<u64>>();
        #[allow(clippy::cast_precision_loss)] // shown to people, with two digits
        let (done, all) = (records as f64, total.map(|total| total as f64));
        let rate = done / self.since.elapsed().as_secs_f64().max(0.001);
        Progress {
            records,
            restored: self.restored,
            total,
            percent: all.map(|all| if all > 0.0 { (100.0 * done / all).min(100.0) } else { 100.0 }),
            records_per_second: rate.round(),
            seconds_left: all
                .filter(|_| rate > 0.0)
                .map(|all| ((all - done) / rate).max(0.0).round()),
        }
    }
}

impl Reading {
    fn done(&self) -> u64 {
        let low = self.extent.map_or(0, |extent| extent.low).max(self.from);
        self.last.map_or(0, |last| u64::try_from(last + 1 - low).unwrap_or(0))
    }

    fn total(&self) -> Option<u64> {
        let length = |extent: Watermarks| extent.high - extent.low.max(self.from);
        self.extent.map(|extent| u64::try_from(length(extent)).unwrap_or(0))
    }
}
