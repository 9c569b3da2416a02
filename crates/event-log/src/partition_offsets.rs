//! The offsets of one assigned partition: which of them the group may commit. No clock, no lock and
//! no I/O, so that its rule is tested as a table.

use std::{collections::BTreeMap, sync::Arc};

use crate::poison::PoisonRecord;

/// One assignment of a partition. A later assignment or reset of the same partition has a higher
/// epoch, so results that belong to an earlier one can be dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AssignmentEpoch {
    pub(crate) partition: i32,
    pub(crate) epoch: u64,
}

/// Poison records that are not copied yet, by offset.
pub(crate) type PendingCopies = BTreeMap<i64, Arc<PoisonRecord>>;

#[derive(Debug, Default)]
pub(crate) struct PartitionOffsets {
    pub(crate) assignment: AssignmentEpoch,
    /// The offset at which reading began, if not at the beginning of the log. It is compared with
    /// the committed offset once, as soon as that is known.
    start: Option<i64>,
    /// Reading began above the committed offset, so the poison records between the two would never
    /// be copied. Nothing is committed until the partition is reset.
    pub(crate) behind: bool,
    /// The group's committed offset; `None` until the log has answered.
    pub(crate) committed: Option<i64>,
    /// One above the last applied record; `None` before the first.
    next: Option<i64>,
    pub(crate) poison: PendingCopies,
    /// The first poison record that found the backlog full. The next replay copies it and the
    /// poison records above it.
    pub(crate) skipped: Option<i64>,
}

impl PartitionOffsets {
    pub(crate) fn new(assignment: AssignmentEpoch, start: Option<i64>) -> Self {
        Self { assignment, start, ..Self::default() }
    }

    /// The offset to commit next; `None` if there is no progress to commit. It is above the
    /// committed offset, and never above a poison record that is not copied.
    pub(crate) fn commit_position(&self) -> Option<i64> {
        let committed = self.committed.filter(|_| !self.behind)?;
        let pending = self.poison.keys().next().copied();
        let bounds = [pending, self.skipped].into_iter().flatten();
        let position = bounds.fold(self.next?, i64::min);
        (position > committed).then_some(position)
    }

    /// Returns false if the record at `offset` is known to be copied already, or will be read
    /// again.
    pub(crate) fn wants_copy(&self, offset: i64) -> bool {
        !self.behind && self.committed.is_none_or(|committed| offset >= committed)
    }

    /// The poison records that can be copied now. Until the committed offset is known, any of them
    /// may be copied already.
    pub(crate) fn copyable(&self) -> impl Iterator<Item = &Arc<PoisonRecord>> {
        self.committed.iter().flat_map(|_| self.poison.values())
    }

    pub(crate) fn set_next(&mut self, next: i64) {
        self.next = self.next.max(Some(next));
    }

    /// The group has committed this offset. Returns the poison records that need no copy any more.
    pub(crate) fn set_committed(&mut self, committed: i64) -> PendingCopies {
        self.committed = Some(committed);
        self.behind |= self.start.take().is_some_and(|start| committed < start);
        self.skipped = self.skipped.filter(|skipped| *skipped >= committed);
        let kept =
            if self.behind { PendingCopies::new() } else { self.poison.split_off(&committed) };
        std::mem::replace(&mut self.poison, kept)
    }

    /// The dead-letter queue has acknowledged the copy of the record at `offset`.
    pub(crate) fn remove_copied(&mut self, offset: i64) -> Option<Arc<PoisonRecord>> {
        let copied = self.poison.remove(&offset)?;
        // All records below a poison record were applied before it was queued.
        self.set_next(offset + 1);
        Some(copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Step {
        /// The log says that the group has committed this offset.
        Committed(i64),
        /// All records below this offset are applied.
        Next(i64),
        /// A poison record waits for its copy.
        Poison(i64),
        /// Its copy is acknowledged.
        Copied(i64),
        /// The backlog is full.
        Skipped(i64),
    }
    use Step::{Committed, Copied, Next, Poison, Skipped};

    fn after(start: Option<i64>, steps: &[Step]) -> PartitionOffsets {
        let mut offsets = PartitionOffsets::new(AssignmentEpoch::default(), start);
        for step in steps {
            match *step {
                Committed(offset) => drop(offsets.set_committed(offset)),
                Next(offset) => offsets.set_next(offset),
                Poison(offset) => {
                    offsets.poison.insert(offset, Arc::default());
                }
                Copied(offset) => drop(offsets.remove_copied(offset)),
                Skipped(offset) => offsets.skipped = Some(offset),
            }
        }
        offsets
    }

    #[test]
    fn a_commit_never_goes_back_and_never_passes_a_record_that_is_not_copied() {
        let cases: [(Option<i64>, &[Step], Option<i64>); 16] = [
            (None, &[], None),
            (None, &[Next(5)], None),
            (None, &[Committed(0)], None),
            (None, &[Committed(0), Next(5)], Some(5)),
            (None, &[Committed(5), Next(5)], None),
            (None, &[Committed(9), Next(5)], None),
            (None, &[Committed(0), Next(5), Next(3)], Some(5)),
            (None, &[Committed(0), Poison(3), Next(9)], Some(3)),
            (None, &[Committed(3), Poison(3), Next(9)], None),
            (None, &[Committed(0), Poison(3), Poison(6), Next(9), Copied(3)], Some(6)),
            // The copies may be acknowledged in another order.
            (None, &[Committed(0), Poison(3), Poison(6), Next(9), Copied(6)], Some(3)),
            (None, &[Committed(0), Poison(3), Next(9), Copied(3)], Some(9)),
            // A copy alone is progress: the poison record may be the last of its partition.
            (None, &[Committed(0), Poison(3), Copied(3)], Some(4)),
            (None, &[Committed(0), Skipped(2), Poison(3), Next(9), Copied(3)], Some(2)),
            // Read before the committed offset was known, and copied by an earlier assignment.
            (None, &[Poison(3), Skipped(4), Next(9), Committed(5)], Some(9)),
            (Some(4), &[Committed(4), Next(9)], Some(9)),
        ];
        for (number, (start, steps, expected)) in cases.into_iter().enumerate() {
            assert_eq!(after(start, steps).commit_position(), expected, "case {number}");
        }
    }

    #[test]
    fn a_partition_that_began_above_the_committed_offset_copies_and_commits_nothing() {
        let offsets = after(Some(4), &[Poison(6), Next(9), Committed(3)]);
        assert!(offsets.behind && offsets.poison.is_empty() && !offsets.wants_copy(7));
        assert_eq!(offsets.commit_position(), None);
        // A commit of its own does not look like a start above the committed offset.
        assert!(!after(Some(4), &[Committed(4), Next(9), Committed(9)]).behind);
    }

    #[test]
    fn only_records_that_are_not_copied_yet_are_copied() {
        let unknown = after(None, &[Poison(3)]);
        assert!(unknown.wants_copy(2) && unknown.copyable().next().is_none());
        let known = after(None, &[Poison(3), Poison(5), Committed(5)]);
        assert!(!known.wants_copy(4) && known.wants_copy(5));
        assert_eq!(known.copyable().count(), 1);
    }
}
