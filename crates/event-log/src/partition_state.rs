//! The reading of one partition as a state machine, shared by both drivers. A driver reports what
//! its log returned and executes the actions that follow. The machine owns the rules for start,
//! reset and liveness; it never does I/O and never calls a handler.
//!
//! ```text
//! Verifying ──anchor found──▶ Reading ──caught up──▶ Live
//!     └───────────── reset ──────┴──────────┬─────────┘
//!                                      Rewinding ──first record or end──▶ Reading, Live
//! ```

#[cfg(test)]
mod tests;

use smallvec::{SmallVec, smallvec};

use crate::{Record, RecordAnchor, StartAt, Watermarks};

/// How far the reading of a partition is. In every state `high` is the high watermark at the
/// assignment, `None` until it is known: the partition is live once it was read up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartitionState {
    /// The handler holds the partition up to `anchor` from an earlier run. The first record that
    /// the log returns must be that one; otherwise the partition is reset.
    Verifying { anchor: RecordAnchor, high: Option<i64> },
    /// The partition was reset, and the client has to seek to the beginning. `highest_seen` is the
    /// highest offset seen before the seek. If the first record after the seek is above it, the
    /// client had prefetched it: seek again.
    Rewinding { highest_seen: i64, has_sought: bool, high: Option<i64> },
    /// The handler is given the log up to `high`. `next` is one beyond the last record, `None`
    /// before the first.
    Reading { next: Option<i64>, high: Option<i64> },
    /// The handler was given everything that the log held at the assignment.
    Live { next: Option<i64> },
}

/// Offsets from `from` up to, not including, `to` at which the log returned no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetGap {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl OffsetGap {
    /// How many of these offsets retention removed, given the low watermark. The others are
    /// ordinary: compaction and transaction markers leave gaps too.
    pub(crate) fn count_lost(self, low: i64) -> i64 {
        (low.min(self.to) - self.from).max(0)
    }

    pub(crate) fn len(self) -> i64 {
        self.to - self.from
    }
}

/// One step that the driver has to take. The steps of an event are taken in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Call `on_reset`, `on_revoked` and `on_assigned`, begin a new epoch and fetch the watermarks
    /// again. While [`PartitionState::needs_seek`], the client has to seek to the beginning.
    Reset(ResetReason),
    /// Give the record to the handler.
    Apply,
    /// Call `on_live`.
    BecomeLive,
    /// Compare the gap with the low watermark: retention may have removed unread records.
    AskAboutGap(OffsetGap),
    /// Fetch the high watermark once more and report it to
    /// [`on_end_offset`](PartitionState::on_end_offset) as confirmed.
    ConfirmEndOffset { next: i64 },
}

/// No event has more actions than this.
const MAX_ACTIONS: usize = 3;

pub(crate) type Actions = SmallVec<[Action; MAX_ACTIONS]>;

/// Why a partition is read again from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResetReason {
    AnchorMismatch,
    AnchorGone,
    EndsBeforeAnchor,
    GroupBehind,
    Invalidated,
    OffsetsRestarted,
    EndMovedBack,
}

impl ResetReason {
    /// For logs and for [`PartitionHandler::on_reset`](crate::PartitionHandler::on_reset).
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::AnchorMismatch => {
                "the log holds another record at the offset of the last applied one: the topic was \
                 recreated, or this is another cluster"
            }
            Self::AnchorGone => "the log no longer holds the last applied record",
            Self::EndsBeforeAnchor => "the log ends before the last applied record",
            Self::GroupBehind => {
                "the group's committed offset is below the start offset, so poison records might \
                 be missed"
            }
            Self::Invalidated => "the partition handler invalidated it",
            Self::OffsetsRestarted => "the log's offsets started again below those already read",
            Self::EndMovedBack => "the log ends before what was already read",
        }
    }

    /// True if the log lost records that the handler had already applied in this run.
    pub(crate) fn is_data_loss(self) -> bool {
        matches!(self, Self::OffsetsRestarted | Self::EndMovedBack)
    }
}

impl PartitionState {
    /// `beginning` is the first offset that the log still has, `None` if the driver does not know.
    pub(crate) fn new(start: StartAt, beginning: Option<i64>) -> Self {
        match start.anchor() {
            Some(anchor) => Self::Verifying { anchor, high: None },
            None => Self::Reading { next: beginning, high: None },
        }
    }

    /// The record to be verified, which is also the first one to read.
    pub(crate) fn anchor(self) -> Option<RecordAnchor> {
        if let Self::Verifying { anchor, .. } = self { Some(anchor) } else { None }
    }

    /// One beyond the last record that the handler holds, `None` if that is not known.
    pub(crate) fn next_offset(self) -> Option<i64> {
        match self {
            Self::Verifying { .. } | Self::Rewinding { .. } => None,
            Self::Reading { next, .. } | Self::Live { next } => next,
        }
    }

    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// True if the client has to seek to the partition's beginning and report it to
    /// [`on_seek`](Self::on_seek). A seek that failed is tried again.
    pub(crate) fn needs_seek(self) -> bool {
        matches!(self, Self::Rewinding { has_sought: false, .. })
    }

    /// The log returned its next record.
    pub(crate) fn on_record(&mut self, record: &Record<'_>) -> Actions {
        let mut actions = Actions::new();
        let offset = record.offset;
        match *self {
            Self::Verifying { anchor, .. } if offset != anchor.offset => {
                return self.rewind(offset, ResetReason::AnchorGone);
            }
            Self::Verifying { anchor, .. } if record.anchor() != anchor => {
                return self.rewind(offset, ResetReason::AnchorMismatch);
            }
            // The handler holds it already.
            Self::Verifying { .. } => {}
            Self::Rewinding { highest_seen, has_sought, high }
                if !has_sought || offset > highest_seen =>
            {
                let highest_seen = highest_seen.max(offset);
                *self = Self::Rewinding { highest_seen, has_sought: false, high };
                return actions;
            }
            Self::Rewinding { .. } => actions.push(Action::Apply),
            Self::Reading { next, .. } | Self::Live { next } => {
                let next = next.unwrap_or(offset);
                if offset < next {
                    // The client fell back to the first offset of a recreated topic, so this is
                    // the first record of it: no seek is needed.
                    actions.push(Action::Reset(ResetReason::OffsetsRestarted));
                    *self = Self::Reading { next: None, high: None };
                } else if offset > next {
                    actions.push(Action::AskAboutGap(OffsetGap { from: next, to: offset }));
                }
                actions.push(Action::Apply);
            }
        }
        self.advance(offset + 1, &mut actions);
        actions
    }

    /// The log has no more records at the moment: it returned all of them below `end`. `None` if
    /// the driver does not know the offset.
    pub(crate) fn on_end(&mut self, end: Option<i64>) -> Actions {
        match *self {
            Self::Verifying { anchor, .. } => {
                self.rewind(anchor.offset - 1, ResetReason::EndsBeforeAnchor)
            }
            // Reported before the seek.
            Self::Rewinding { has_sought: false, .. } => Actions::new(),
            Self::Rewinding { .. } | Self::Reading { .. } | Self::Live { .. } => {
                let (next, mut actions) = (self.next_offset(), Actions::new());
                if let (Some(from), Some(to)) = (next, end)
                    && to > from
                {
                    actions.push(Action::AskAboutGap(OffsetGap { from, to }));
                }
                if !self.is_live() {
                    actions.push(Action::BecomeLive);
                }
                *self = Self::Live { next: end.or(next) };
                actions
            }
        }
    }

    /// The log's watermarks at the assignment became known. A busy partition may never report its
    /// end, so they decide too when it is live.
    pub(crate) fn on_watermarks(&mut self, watermarks: Watermarks) -> Actions {
        let Watermarks { low, high: end } = watermarks;
        match self {
            Self::Reading { next, .. } if low == end || next.is_some_and(|next| next >= end) => {
                *self = Self::Live { next: *next };
                smallvec![Action::BecomeLive]
            }
            // After a reset the client reports the end of an empty log once it has sought.
            Self::Verifying { high, .. }
            | Self::Rewinding { high, .. }
            | Self::Reading { high, .. } => {
                *high = Some(end);
                Actions::new()
            }
            Self::Live { .. } => Actions::new(),
        }
    }

    /// The driver had the client seek to the beginning. `beginning` is the first offset if the driver
    /// knows that the next record comes from there, `None` if prefetched ones may come first.
    pub(crate) fn on_seek(&mut self, beginning: Option<i64>) -> Actions {
        let mut actions = Actions::new();
        if let Self::Rewinding { has_sought, .. } = self {
            *has_sought = true;
            if let Some(beginning) = beginning {
                self.advance(beginning, &mut actions);
            }
        }
        actions
    }

    /// The high watermark was fetched again after everything below `next` had been read. After a
    /// leader election a replica may know less for a moment, so a lower one counts only once it is
    /// confirmed.
    pub(crate) fn on_end_offset(&mut self, next: i64, high: i64, is_confirmed: bool) -> Actions {
        match (high < next, is_confirmed) {
            (false, _) => Actions::new(),
            (true, false) => smallvec![Action::ConfirmEndOffset { next }],
            (true, true) => self.reset(ResetReason::EndMovedBack),
        }
    }

    /// The partition must be read again from its beginning.
    pub(crate) fn reset(&mut self, reason: ResetReason) -> Actions {
        let highest_seen = match *self {
            Self::Verifying { anchor, .. } => anchor.offset - 1,
            Self::Rewinding { highest_seen, .. } => highest_seen,
            Self::Reading { next, .. } | Self::Live { next } => next.unwrap_or(0) - 1,
        };
        self.rewind(highest_seen, reason)
    }

    fn rewind(&mut self, highest_seen: i64, reason: ResetReason) -> Actions {
        *self = Self::Rewinding { highest_seen, has_sought: false, high: None };
        smallvec![Action::Reset(reason)]
    }

    fn advance(&mut self, offset: i64, actions: &mut Actions) {
        let next = Some(offset);
        match *self {
            Self::Live { .. } => *self = Self::Live { next },
            Self::Verifying { high, .. }
            | Self::Rewinding { high, .. }
            | Self::Reading { high, .. } => {
                if high.is_some_and(|high| offset >= high) {
                    *self = Self::Live { next };
                    actions.push(Action::BecomeLive);
                } else {
                    *self = Self::Reading { next, high };
                }
            }
        }
    }
}
