//! Progress of a partition that is not live yet: how much of its two topics is still unread, and
//! which of the coming records a restored partition has applied already.

use std::{collections::HashMap, time::Instant};

use event_log::{RecordAnchor, Watermarks};
use model::UserId;

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
    pub(super) topics: [TopicRead; 2],
}

/// How far one topic's partition is read.
#[derive(Debug, Default)]
pub(super) struct TopicRead {
    /// True once this topic's reader has started on the current assignment.
    started: bool,
    /// Offset of the first record to read; 0 for the log's first.
    start_offset: i64,
    caught_up: bool,
    pub(super) watermarks: Option<Watermarks>,
    pub(super) last_offset: Option<i64>,
}

impl Rebuild {
    pub(super) fn new(restored: u64) -> Self {
        Self { started_at: Instant::now(), restored, topics: Default::default() }
    }

    pub(super) fn start_topic(&mut self, source: SourceTopic, start_offset: i64) {
        self.topics[source as usize] =
            TopicRead { started: true, start_offset, ..TopicRead::default() };
    }

    pub(super) fn has_started(&self, source: SourceTopic) -> bool {
        self.topics[source as usize].started
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

/// The records that a restored partition has applied already, until its reader has passed them. Its
/// inboxes may have been saved one after the other while records were applied, so each of them has
/// the records up to another offset.
#[derive(Debug)]
pub(crate) struct ReplayFilter {
    /// For these users, the offset of each topic up to which their inbox has every record. The
    /// inboxes of all others have the records up to where the reader starts.
    pub(crate) applied: HashMap<UserId, [i64; 2]>,
    /// The last record of each topic that the inboxes may contain, until the reader has passed it.
    /// If the log still has that very record, it has lost no record that the inboxes contain.
    pub(crate) expected: [Option<RecordAnchor>; 2],
}

impl ReplayFilter {
    /// Returns true if this user's inbox has this record already.
    pub(super) fn is_applied(&self, user: UserId, source: SourceTopic, offset: i64) -> bool {
        self.applied.get(&user).is_some_and(|applied| offset <= applied[source as usize])
    }

    /// Notes that the reader has passed a record. Returns false if the log is not the one that the
    /// inboxes were built from.
    pub(super) fn verify_record(
        &mut self,
        source: SourceTopic,
        offset: i64,
        anchor: Option<RecordAnchor>,
    ) -> bool {
        let expected = &mut self.expected[source as usize];
        match *expected {
            Some(last) if offset >= last.offset => {
                *expected = None;
                anchor == Some(last)
            }
            _ => true,
        }
    }
}
