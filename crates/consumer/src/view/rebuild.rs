//! Progress of a partition that is not live yet: how much of its two topics is still unread.

use std::time::Instant;

use event_log::Watermarks;

/// The two topics whose records make a partition of the view. The discriminant indexes arrays of
/// two, notifications first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceTopic {
    /// The notifications.
    Notifications,
    /// The receipts.
    Receipts,
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct RebuildProgress {
    /// Records read so far; offsets that the log skips count as read.
    pub records: u64,
    /// Notifications that a snapshot supplied. They are counted in no other field.
    pub restored: u64,
    /// Records to read, as of the assignment; `None` until the watermarks are known.
    pub total: Option<u64>,
    /// 0 to 100; `None` while `total` is.
    pub percent: Option<f64>,
    /// Average since the assignment.
    pub records_per_second: f64,
    /// At that average; `None` while `total` is.
    pub seconds_left: Option<f64>,
}

/// A rebuild under way.
#[derive(Debug)]
pub(super) struct Rebuild {
    pub(super) started_at: Instant,
    restored: u64,
    topics: [TopicRead; 2],
}

/// How far one topic's partition is read.
#[derive(Debug, Default)]
struct TopicRead {
    /// True once this topic's reader has started on the current assignment. A record or an end that
    /// it reports earlier belongs to the previous one.
    started: bool,
    /// Offset of the first record to read; 0 for the log's first.
    start_offset: i64,
    caught_up: bool,
    watermarks: Option<Watermarks>,
    last_offset: Option<i64>,
}

impl Rebuild {
    /// Starts with this many notifications restored.
    pub(super) fn new(restored: u64) -> Self {
        Self { started_at: Instant::now(), restored, topics: Default::default() }
    }

    /// The reader of this topic starts at this offset.
    pub(super) fn start_topic(&mut self, source: SourceTopic, start_offset: i64) {
        self.topics[source as usize] =
            TopicRead { started: true, start_offset, ..TopicRead::default() };
    }

    /// Returns true if the reader of this topic has started on this assignment.
    pub(super) fn has_started(&self, source: SourceTopic) -> bool {
        self.topics[source as usize].started
    }

    pub(super) fn set_watermarks(&mut self, source: SourceTopic, watermarks: Watermarks) {
        self.topics[source as usize].watermarks = Some(watermarks);
    }

    pub(super) fn advance_to(&mut self, source: SourceTopic, offset: i64) {
        self.topics[source as usize].last_offset = Some(offset);
    }

    /// Marks this topic as read to its end. Returns true if both topics are.
    pub(super) fn mark_caught_up(&mut self, source: SourceTopic) -> bool {
        let topic = &mut self.topics[source as usize];
        topic.caught_up = topic.started;
        self.topics.iter().all(|topic| topic.caught_up)
    }

    pub(super) fn progress(&self) -> RebuildProgress {
        let records = self.topics.iter().map(TopicRead::records_read).sum::<u64>();
        let total = self.topics.iter().map(TopicRead::records_total).sum::<Option<u64>>();
        #[allow(clippy::cast_precision_loss)] // displayed with two digits
        let (done, all) = (records as f64, total.map(|total| total as f64));
        let rate = done / self.started_at.elapsed().as_secs_f64().max(0.001);
        RebuildProgress {
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

impl TopicRead {
    fn records_read(&self) -> u64 {
        let low = self.watermarks.map_or(0, |watermarks| watermarks.low).max(self.start_offset);
        self.last_offset.map_or(0, |last| u64::try_from(last + 1 - low).unwrap_or(0))
    }

    fn records_total(&self) -> Option<u64> {
        let length =
            |watermarks: Watermarks| watermarks.high - watermarks.low.max(self.start_offset);
        self.watermarks.map(|watermarks| u64::try_from(length(watermarks)).unwrap_or(0))
    }
}
