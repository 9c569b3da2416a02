//! All inboxes of one partition, and the position in the log that they have reached.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
};

use event_log::{RecordAnchor, StartAt};
use model::{Receipt, UserId};

use super::{
    entry::Entry,
    inbox::{AddOutcome, Inbox, Limits, Totals},
    rebuild::{ReplayFilter, SourceTopic},
};

/// The most offsets of conflicts that are remembered: enough for those that come while the inboxes
/// are being saved.
pub(crate) const MAX_CONFLICTS: usize = 1000;

/// Every inbox of one partition. Arrays of two have the notifications' value first, then the
/// receipts'.
#[derive(Debug)]
pub struct Inboxes {
    pub(crate) users: HashMap<UserId, Inbox>,
    pub(crate) totals: Totals,
    /// Offset of the last record applied of each topic; −1 before any.
    pub(crate) last_offsets: [i64; 2],
    /// Offset and checksum of that record; `None` before any, or if the caller computes none.
    pub(crate) anchors: [Option<RecordAnchor>; 2],
    /// Offsets of the newest notifications that reused an Idempotency-Key, oldest first.
    pub(crate) conflict_offsets: VecDeque<i64>,
    /// Set while the reader passes records that these inboxes were restored with.
    pub(crate) replay_filter: Option<Box<ReplayFilter>>,
    /// True if these inboxes did not start empty.
    pub(crate) is_restored: bool,
    /// True once these inboxes contradict the log.
    pub(crate) is_invalid: bool,
    /// Identifies these inboxes within the process: each partition gets new ones when it is
    /// assigned.
    pub(crate) epoch: u64,
    /// The offset from which on the notifications are complete: the low watermark at the assignment,
    /// or one beyond the newest entry of an inbox that was dropped because all it held had expired.
    pub(crate) complete_from: i64,
    /// The offset below which the log lost notifications before they were read; 0 if it lost none
    /// since the assignment.
    pub(crate) lost_below: i64,
}

impl Default for Inboxes {
    fn default() -> Self {
        static NEXT_EPOCH: AtomicU64 = AtomicU64::new(0);
        Self {
            users: HashMap::new(),
            totals: Totals::default(),
            last_offsets: [-1, -1],
            anchors: [None, None],
            conflict_offsets: VecDeque::new(),
            replay_filter: None,
            is_restored: false,
            is_invalid: false,
            epoch: NEXT_EPOCH.fetch_add(1, Ordering::Relaxed),
            complete_from: 0,
            lost_below: 0,
        }
    }
}

impl Inboxes {
    /// Offset of the last notification record applied; −1 before any.
    pub fn last_offset(&self) -> i64 {
        self.last_offsets[SourceTopic::Notifications as usize]
    }

    /// Offset of the last receipt record applied; −1 before any.
    pub fn last_receipt_offset(&self) -> i64 {
        self.last_offsets[SourceTopic::Receipts as usize]
    }

    /// Notes that the record at this offset was applied.
    pub(crate) fn advance_to(
        &mut self,
        source: SourceTopic,
        offset: i64,
        anchor: Option<RecordAnchor>,
    ) {
        self.last_offsets[source as usize] = offset;
        self.anchors[source as usize] = anchor;
        if let Some(filter) = &mut self.replay_filter {
            self.is_invalid |= !filter.verify_record(source, offset, anchor);
            if filter.expected == [None, None] {
                self.replay_filter = None;
            }
        }
    }

    /// Notes that the reader has reached the end of this topic. A record of a restored inbox that it
    /// has not met by then is not in the log.
    pub(super) fn mark_caught_up(&mut self, source: SourceTopic) {
        let filter = self.replay_filter.as_ref();
        self.is_invalid |= filter.is_some_and(|filter| filter.expected[source as usize].is_some());
    }

    /// The position at which the reader of this topic must start.
    pub(super) fn start_at(&self, source: SourceTopic) -> StartAt {
        let anchor = self.anchors[source as usize];
        StartAt::from_anchor(anchor.filter(|_| self.is_restored && !self.is_invalid))
    }

    /// Notes the first offset that the log still has.
    pub(crate) fn set_low_watermark(&mut self, source: SourceTopic, low: i64) {
        let last = &mut self.last_offsets[source as usize];
        *last = (*last).max(low - 1);
        if source == SourceTopic::Receipts {
            return;
        }
        if !self.is_restored {
            self.complete_from = low;
            return;
        }
        // A rebuild would not find records that retention has removed meanwhile, so a restored
        // inbox drops them too. If the log still has a duplicate of one, that stays dropped.
        if low > 0 {
            for inbox in self.users.values_mut() {
                inbox.forget_before(low, &mut self.totals);
            }
        }
        self.complete_from = self.complete_from.max(low);
    }

    /// Notes that the log lost this topic's records below `next` before they were read.
    pub(super) fn note_lost_records(&mut self, source: SourceTopic, next: i64) {
        let last = &mut self.last_offsets[source as usize];
        *last = (*last).max(next - 1);
        if source == SourceTopic::Notifications {
            self.complete_from = self.complete_from.max(next);
            self.lost_below = self.lost_below.max(next);
        }
    }

    pub(crate) fn add_entry(
        &mut self,
        user: UserId,
        entry: Entry,
        limits: Limits,
        now_ms: i64,
    ) -> AddOutcome {
        let offset = entry.offset;
        if self.is_applied(user, SourceTopic::Notifications, offset) {
            let reused = self.conflict_offsets.contains(&offset);
            return if reused { AddOutcome::Conflict } else { AddOutcome::AlreadyApplied };
        }
        let inbox = self.users.entry(user).or_default();
        let outcome = inbox.add_entry(entry, limits, now_ms, &mut self.totals);
        if outcome == AddOutcome::Conflict && !self.conflict_offsets.contains(&offset) {
            if self.conflict_offsets.len() == MAX_CONFLICTS {
                self.conflict_offsets.pop_front();
            }
            self.conflict_offsets.push_back(offset);
        }
        outcome
    }

    pub(crate) fn apply_receipt(&mut self, receipt: &Receipt, offset: i64, limits: Limits) {
        let user = receipt.user_id;
        if self.is_applied(user, SourceTopic::Receipts, offset) {
            return;
        }
        let inbox = self.users.entry(user).or_default();
        inbox.apply_receipt(receipt.action, &receipt.ids, offset, limits, &mut self.totals);
    }

    fn is_applied(&self, user: UserId, source: SourceTopic, offset: i64) -> bool {
        let filter = self.replay_filter.as_ref();
        filter.is_some_and(|filter| filter.is_applied(user, source, offset))
    }

    pub(crate) fn expire_entries(&mut self, limits: Limits, now_ms: i64) {
        let (complete_from, totals) = (&mut self.complete_from, &mut self.totals);
        self.users.retain(|_, inbox| {
            inbox.expire_entries(limits, now_ms, totals);
            if inbox.is_empty() {
                // A client with an older cursor must still learn of these entries by a gap.
                let eviction = inbox.last_eviction(i64::MIN);
                *complete_from = eviction
                    .map_or(*complete_from, |eviction| (*complete_from).max(eviction.through + 1));
            }
            !inbox.is_empty()
        });
    }
}
