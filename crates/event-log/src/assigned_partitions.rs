//! The partitions that one reader is assigned, and the handler that applies their records. Executes
//! the actions of [`PartitionState`], except for reads and queries of the log: those are the
//! driver's. It is used by one thread and never blocks on the log.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use crate::{
    Behind, PartitionHandler, Record, RecordOutcome, Watermarks,
    offset_tracker::OffsetTracker,
    partition_offsets::AssignmentEpoch,
    partition_state::{Action, Actions, OffsetGap, PartitionState, ResetReason},
};

pub(crate) struct AssignedPartitions<H> {
    handler: H,
    topic: String,
    partitions: BTreeMap<i32, (AssignmentEpoch, PartitionState)>,
    /// The low watermark of those that are read from the beginning and had no record yet.
    start_lows: BTreeMap<i32, i64>,
    /// Those that are behind their log.
    behind: BTreeMap<i32, Behind>,
    last_epoch: u64,
    /// The topic was created again in this run: the offsets that the group has committed may be of
    /// the earlier one, so poison records may be copied again.
    is_recreated: bool,
    /// The topic's epoch, `None` if it is not known.
    topic_epoch: Option<u32>,
    /// The topic's epoch was confirmed after each assignment up to and including this one.
    confirmed_through: u64,
    /// Partitions that have caught up, and whose handler is told once the topic's epoch is confirmed.
    unconfirmed: BTreeSet<i32>,
    /// `None` for a follower.
    tracker: Option<Arc<OffsetTracker>>,
}

impl<H: PartitionHandler> AssignedPartitions<H> {
    pub(crate) fn new(topic: &str, handler: H, tracker: Option<Arc<OffsetTracker>>) -> Self {
        Self {
            handler,
            topic: topic.to_owned(),
            partitions: BTreeMap::new(),
            start_lows: BTreeMap::new(),
            behind: BTreeMap::new(),
            last_epoch: 0,
            is_recreated: false,
            topic_epoch: None,
            confirmed_through: 0,
            unconfirmed: BTreeSet::new(),
            tracker,
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// True if a group member uses this tracker.
    pub(crate) fn uses_tracker(&self, tracker: &Arc<OffsetTracker>) -> bool {
        self.tracker.as_ref().is_some_and(|used| Arc::ptr_eq(used, tracker))
    }

    /// Replaces the tracker while no partition is assigned. Each client of a group member has a
    /// tracker of its own.
    pub(crate) fn set_tracker(&mut self, tracker: Arc<OffsetTracker>) {
        self.tracker = Some(tracker);
    }

    pub(crate) fn numbers(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    pub(crate) fn is_assigned(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// The state of each partition, by its number.
    pub(crate) fn states(&self) -> impl Iterator<Item = (i32, PartitionState)> {
        self.partitions.iter().map(|(partition, (_, state))| (*partition, *state))
    }

    pub(crate) fn state(&self, partition: i32) -> Option<PartitionState> {
        self.partitions.get(&partition).map(|(_, state)| *state)
    }

    pub(crate) fn epoch(&self, partition: i32) -> Option<AssignmentEpoch> {
        self.partitions.get(&partition).map(|(epoch, _)| *epoch)
    }

    /// The number of the newest assignment.
    #[cfg(feature = "kafka")]
    pub(crate) fn last_assignment(&self) -> u64 {
        self.last_epoch
    }

    /// The number of the newest assignment, if the topic's epoch was not confirmed since.
    #[cfg(feature = "kafka")]
    pub(crate) fn unconfirmed_assignment(&self) -> Option<u64> {
        let waits = self.confirmed_through < self.last_epoch && !self.partitions.is_empty();
        waits.then_some(self.last_epoch)
    }

    /// The topic has this epoch, asked after the assignment of this number. `None` if the log
    /// returns none; an epoch that is known already then stays. If the topic is another one now,
    /// returns the partitions that the caller must reset, before it calls
    /// [`report_topic_epoch`](Self::report_topic_epoch): what was read so far is not of this epoch.
    pub(crate) fn confirm_topic_epoch(&mut self, assignment: u64, epoch: Option<u32>) -> Vec<i32> {
        let known = self.topic_epoch;
        let is_first = self.confirmed_through == 0;
        self.confirmed_through = self.confirmed_through.max(assignment);
        let epoch = epoch.or(known);
        self.topic_epoch = epoch;
        if known.is_some() && epoch != known && !self.partitions.is_empty() {
            return self.numbers();
        }
        if is_first || epoch != known {
            self.report_topic_epoch();
        }
        for partition in std::mem::take(&mut self.unconfirmed) {
            self.become_live(partition);
        }
        Vec::new()
    }

    /// Tells the handler the topic's epoch.
    pub(crate) fn report_topic_epoch(&mut self) {
        self.handler.on_topic_epoch(self.topic_epoch);
    }

    /// Calls `on_live`, or has [`confirm_topic_epoch`](Self::confirm_topic_epoch) call it.
    fn become_live(&mut self, partition: i32) {
        let assignment = self.epoch(partition);
        if assignment.is_some_and(|assignment| assignment.epoch <= self.confirmed_through) {
            self.handler.on_live(partition);
        } else {
            self.unconfirmed.insert(partition);
        }
    }

    /// Assigns a partition that is not assigned. `beginning` is its first offset if the driver
    /// knows it.
    pub(crate) fn assign(&mut self, partition: i32, beginning: Option<i64>) -> PartitionState {
        let state = PartitionState::new(self.handler.on_assigned(partition), beginning);
        self.begin_epoch(partition, state);
        state
    }

    fn begin_epoch(&mut self, partition: i32, state: PartitionState) {
        self.last_epoch += 1;
        let epoch = AssignmentEpoch { partition, epoch: self.last_epoch };
        self.partitions.insert(partition, (epoch, state));
        if let Some(tracker) = &self.tracker {
            tracker.begin_assignment(epoch, state.anchor().map(|anchor| anchor.offset + 1));
            if self.is_recreated {
                tracker.set_committed(epoch, 0);
            }
        }
    }

    /// Revokes those of these partitions that are assigned. Returns the positions that are still to
    /// be committed.
    pub(crate) fn revoke(&mut self, partitions: &[i32]) -> Vec<(i32, i64)> {
        let revoked = self.revoke_from_handler(partitions);
        let Some(tracker) = &self.tracker else { return Vec::new() };
        let end = |(partition, next)| Some((partition, tracker.end_assignment(partition, next)?));
        revoked.into_iter().filter_map(end).collect()
    }

    /// Like [`revoke`](Self::revoke), except that the tracker goes on with what it was given.
    /// Returns the next offset of each.
    pub(crate) fn revoke_from_handler(&mut self, partitions: &[i32]) -> Vec<(i32, Option<i64>)> {
        let mut revoked = Vec::new();
        for partition in partitions {
            self.unconfirmed.remove(partition);
            if let Some((_, state)) = self.partitions.remove(partition) {
                self.start_lows.remove(partition);
                self.behind.remove(partition);
                self.handler.on_revoked(*partition);
                revoked.push((*partition, state.next_offset()));
            }
        }
        revoked
    }

    pub(crate) fn renew_lease(&mut self, until: Instant) {
        self.handler.renew_lease(until);
    }

    /// Reports to the tracker how far each partition was applied.
    pub(crate) fn record_progress(&self) {
        if let Some(tracker) = &self.tracker {
            let next =
                |(partition, state): (i32, PartitionState)| Some((partition, state.next_offset()?));
            tracker.record_progress(self.states().filter_map(next));
        }
    }

    /// A partition that the handler or the tracker wants to be reset.
    pub(crate) fn next_reset(&mut self) -> Option<(i32, ResetReason)> {
        if let Some(partition) = self.handler.take_invalidated() {
            return Some((partition, ResetReason::Invalidated));
        }
        let behind = self.tracker.as_ref()?.next_behind()?;
        Some((behind, ResetReason::GroupBehind))
    }

    pub(crate) fn report_watermarks(&mut self, partition: i32, watermarks: Watermarks) {
        self.handler.on_watermarks(partition, watermarks);
        if matches!(self.state(partition), Some(PartitionState::Reading { next: None, .. })) {
            self.start_lows.insert(partition, watermarks.low);
        }
        self.transition(partition, None, |state| state.on_watermarks(watermarks));
    }

    /// Tells the handler if the partition is behind its log, or is not any more. Logs the begin and
    /// the end of each episode.
    pub(crate) fn report_behind(&mut self, partition: i32, behind: Option<Behind>) {
        let Some((topic, before)) =
            self.is_assigned(partition).then(|| (self.topic.as_str(), self.behind.get(&partition)))
        else {
            return;
        };
        match (before, &behind) {
            (None, None) => return,
            // The time is computed anew at each call.
            (Some(before), Some(behind)) if before.cause == behind.cause => return,
            (Some(_), Some(_)) => {}
            (None, Some(Behind { cause, .. })) => tracing::warn!(
                kafka.topic = topic,
                kafka.partition = partition,
                "partition is behind its log and not answered from: {cause}",
            ),
            (Some(Behind { since, .. }), None) => tracing::info!(
                kafka.topic = topic,
                kafka.partition = partition,
                behind_ms = since.elapsed().unwrap_or_default().as_millis(),
                "partition follows its log again",
            ),
        }
        let behind = behind.map(|behind| Behind {
            since: before.map_or(behind.since, |before| before.since),
            cause: behind.cause,
        });
        self.handler.on_behind(partition, behind.as_ref());
        match behind {
            Some(behind) => drop(self.behind.insert(partition, behind)),
            None => drop(self.behind.remove(&partition)),
        }
    }

    /// The log has no records, and its next one will have the offset `low`. If the handler was not
    /// given any record yet, tells it about those that retention removed since the assignment.
    pub(crate) fn report_emptied(&mut self, partition: i32, low: i64) {
        if let Some(from) = self.start_lows.remove(&partition) {
            self.report_lost_offsets(partition, OffsetGap { from, to: low }, low);
        }
    }

    /// Logs an error and tells the handler if retention removed offsets of the gap, given the low
    /// watermark.
    pub(crate) fn report_lost_offsets(&mut self, partition: i32, gap: OffsetGap, low: i64) {
        let missing = gap.count_lost(low);
        if missing > 0 {
            self.handler.on_lost_records(partition, low.min(gap.to));
            tracing::error!(
                kafka.topic = self.topic,
                kafka.partition = partition,
                kafka.offset = gap.from,
                missing,
                "retention removed {missing} offsets before they were read",
            );
        }
    }

    /// Reports an event of a partition, and the record if it is one. Returns the actions; those
    /// that concern the handler and the tracker are done.
    pub(crate) fn transition(
        &mut self,
        partition: i32,
        record: Option<&Record<'_>>,
        event: impl FnOnce(&mut PartitionState) -> Actions,
    ) -> Actions {
        let Some((_, state)) = self.partitions.get_mut(&partition) else { return Actions::new() };
        let mut actions = event(state);
        if let Some(record) = record
            && !self.start_lows.is_empty()
            && let Some(from) = self.start_lows.remove(&partition)
            && from < record.offset
        {
            // Retention may have removed the first records since the watermarks were fetched.
            actions.push(Action::AskAboutGap(OffsetGap { from, to: record.offset }));
        }
        for action in &actions {
            match (action, record) {
                (Action::Reset(reason), _) => self.reset(partition, *reason),
                (Action::Apply, Some(record)) => self.apply_record(record),
                (Action::BecomeLive, _) => self.become_live(partition),
                (Action::Apply | Action::AskAboutGap(_) | Action::ConfirmEndOffset { .. }, _) => {}
            }
        }
        actions
    }

    fn apply_record(&mut self, record: &Record<'_>) {
        if let RecordOutcome::Poison(reason) = self.handler.on_record(record)
            && let Some(tracker) = &self.tracker
        {
            tracker.add_poison(record, &reason);
        }
    }

    fn reset(&mut self, partition: i32, reason: ResetReason) {
        let text = reason.text();
        if reason.is_data_loss() {
            tracing::error!(
                kafka.topic = self.topic,
                kafka.partition = partition,
                "{text}. Was the topic deleted and created again, or did a broker lose records? \
                 What was read is dropped, and the partition is read again from its beginning",
            );
        } else {
            tracing::warn!(
                kafka.topic = self.topic,
                kafka.partition = partition,
                "partition is reset and read from its beginning: {text}",
            );
        }
        // The transition has already set the state to go on from.
        let Some(state) = self.state(partition) else { return };
        self.handler.on_reset(partition, text);
        self.revoke(&[partition]);
        self.handler.on_assigned(partition);
        self.is_recreated |= reason == ResetReason::TopicRecreated;
        self.begin_epoch(partition, state);
    }
}
