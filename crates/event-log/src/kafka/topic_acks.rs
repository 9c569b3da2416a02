//! Which epoch the acknowledgements of a topic's records get. Kafka acknowledges an offset without
//! the topic's id, so an epoch that was fetched earlier may be that of a topic that has been deleted
//! and created again since.
//!
//! The acknowledgements of a partition arrive in the order of their offsets. One that goes on after
//! an earlier one is of the same topic. The first one of a partition, and one that goes back, wait
//! until the epoch has been fetched again; see [`TopicAcks::add_fetched`].

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long an acknowledgement waits for the epoch. Later, it has none.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// For how long the epoch that the topic had is not believed after an offset went back: a broker may
/// not know yet that the topic was created again. Later, it was not: an unclean election removed
/// records.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(5);

/// The acknowledgements of one topic. `T` is a waiting one.
pub(super) struct TopicAcks<T> {
    /// The epoch that was fetched last.
    epoch: Option<u32>,
    partitions: HashMap<i32, PartitionAcks>,
    waiting: Vec<WaitingAck<T>>,
    /// Since when there is a sign that the topic was created again, and `epoch` is not the new one.
    doubted_since: Option<Instant>,
}

struct PartitionAcks {
    highest_offset: i64,
    proof: Proof,
}

/// If the highest acknowledgement of a partition is of the topic with the known epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// It is of the topic with `epoch`, so later ones are too.
    Proven,
    /// It waits for the next query.
    Awaited,
    /// It is of a topic before the one with `epoch`.
    Earlier,
}

struct WaitingAck<T> {
    ack: T,
    partition: i32,
    offset: i64,
    arrived_at: Instant,
    is_doubted: bool,
}

/// The epoch of an acknowledgement, or that it has to wait for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AckEpoch {
    Known(Option<u32>),
    /// The caller hands it to [`TopicAcks::add_waiting`], and has the epoch fetched.
    Awaited,
}

/// An acknowledgement that has waited, and its epoch.
pub(super) type Resolved<T> = (T, Option<u32>);

impl<T> Default for TopicAcks<T> {
    fn default() -> Self {
        let (partitions, waiting) = (HashMap::new(), Vec::new());
        Self { epoch: None, partitions, waiting, doubted_since: None }
    }
}

impl<T> TopicAcks<T> {
    pub(super) fn epoch(&self) -> Option<u32> {
        self.epoch
    }

    /// Adds the acknowledgement of a record that was queued while the topic's epoch was known as
    /// `queued_epoch`.
    pub(super) fn add_ack(
        &mut self,
        partition: i32,
        offset: i64,
        queued_epoch: Option<u32>,
        now: impl FnOnce() -> Instant,
    ) -> AckEpoch {
        if self.epoch.is_none() {
            return AckEpoch::Known(None);
        }
        let is_queued_earlier = queued_epoch != self.epoch;
        match self.partitions.get_mut(&partition) {
            Some(acks) if offset > acks.highest_offset => {
                acks.highest_offset = offset;
                match acks.proof {
                    Proof::Proven if self.doubted_since.is_none() => {
                        return AckEpoch::Known(self.epoch);
                    }
                    // Of the old topic, or of the new one if that has grown beyond it.
                    Proof::Proven => return AckEpoch::Known(None),
                    Proof::Earlier if is_queued_earlier => return AckEpoch::Known(None),
                    Proof::Awaited | Proof::Earlier => acks.proof = Proof::Awaited,
                }
            }
            Some(acks) => {
                // The first of a topic whose epoch is known already is no sign of yet another one.
                if acks.proof != Proof::Earlier {
                    self.doubted_since.get_or_insert_with(now);
                }
                *acks = PartitionAcks { highest_offset: offset, proof: Proof::Awaited };
            }
            // It may be of the topic before `epoch`.
            None if is_queued_earlier => return AckEpoch::Known(None),
            None => {
                let acks = PartitionAcks { highest_offset: offset, proof: Proof::Awaited };
                self.partitions.insert(partition, acks);
            }
        }
        AckEpoch::Awaited
    }

    pub(super) fn add_waiting(&mut self, ack: T, partition: i32, offset: i64, now: Instant) {
        let is_doubted = self.doubted_since.is_some();
        self.waiting.push(WaitingAck { ack, partition, offset, arrived_at: now, is_doubted });
    }

    /// The topic does not exist at the moment.
    pub(super) fn add_missing(&mut self, now: Instant) {
        if self.epoch.is_some() {
            self.doubted_since.get_or_insert(now);
        }
    }

    /// True if the epoch should be fetched soon.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Adds the answer to a query that was sent at `queried_at`. Returns the acknowledgements whose
    /// epoch follows from it.
    pub(super) fn add_fetched(
        &mut self,
        epoch: Option<u32>,
        queried_at: Instant,
    ) -> Vec<Resolved<T>> {
        if epoch != self.epoch {
            return self.change_epoch(epoch);
        }
        if self.doubted_since.is_some_and(|since| queried_at < since + DOUBT_TIMEOUT) {
            return Vec::new();
        }
        self.doubted_since = None;
        // A topic never gets an earlier id again: what was acknowledged between two answers with the
        // same epoch is of that topic.
        for waiting in &self.waiting {
            if waiting.arrived_at <= queried_at
                && let Some(acks) = self.partitions.get_mut(&waiting.partition)
            {
                acks.proof = Proof::Proven;
            }
        }
        let partitions = &self.partitions;
        let is_proven = |waiting: &mut WaitingAck<T>| {
            partitions.get(&waiting.partition).is_some_and(|acks| acks.proof == Proof::Proven)
        };
        self.waiting.extract_if(.., is_proven).map(|waiting| (waiting.ack, epoch)).collect()
    }

    fn change_epoch(&mut self, epoch: Option<u32>) -> Vec<Resolved<T>> {
        self.epoch = epoch;
        self.doubted_since = None;
        for acks in self.partitions.values_mut() {
            acks.proof = Proof::Earlier;
        }
        let resolve = |waiting: WaitingAck<T>| {
            // Acknowledged before there was a sign of a new topic: it may be of either.
            if !waiting.is_doubted {
                return (waiting.ack, None);
            }
            let acks = PartitionAcks { highest_offset: waiting.offset, proof: Proof::Proven };
            // The last one of a partition is its highest.
            self.partitions.insert(waiting.partition, acks);
            (waiting.ack, epoch)
        };
        self.waiting.drain(..).map(resolve).collect()
    }

    /// Returns the acknowledgements that have waited too long.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Resolved<T>> {
        let is_late = |waiting: &mut WaitingAck<T>| now >= waiting.arrived_at + MAX_WAIT;
        self.waiting.extract_if(.., is_late).map(|waiting| (waiting.ack, None)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Option<u32> = Some(1);
    const NEW: Option<u32> = Some(2);

    struct Acks {
        topic: TopicAcks<(i32, i64)>,
        now: Instant,
    }

    impl Acks {
        /// A topic with one acknowledgement at this offset in each of these partitions.
        fn with_acks(partitions: &[(i32, i64)]) -> Self {
            let mut acks = Self { topic: TopicAcks::default(), now: Instant::now() };
            acks.fetch(OLD);
            for &(partition, offset) in partitions {
                assert_eq!(acks.add(partition, offset), AckEpoch::Awaited);
            }
            assert_eq!(acks.fetch(OLD).len(), partitions.len());
            acks
        }

        fn add(&mut self, partition: i32, offset: i64) -> AckEpoch {
            self.add_queued(partition, offset, self.topic.epoch())
        }

        fn add_queued(&mut self, partition: i32, offset: i64, queued: Option<u32>) -> AckEpoch {
            self.now += Duration::from_millis(1);
            let epoch = self.topic.add_ack(partition, offset, queued, || self.now);
            if epoch == AckEpoch::Awaited {
                self.topic.add_waiting((partition, offset), partition, offset, self.now);
            }
            epoch
        }

        fn fetch(&mut self, epoch: Option<u32>) -> Vec<Resolved<(i32, i64)>> {
            self.now += Duration::from_millis(1);
            self.topic.add_fetched(epoch, self.now)
        }
    }

    #[test]
    fn acks_that_go_on_have_the_epoch_at_once() {
        let mut acks = Acks::with_acks(&[(0, 7)]);
        assert_eq!(acks.add(0, 8), AckEpoch::Known(OLD));
        assert_eq!(acks.add(0, 20), AckEpoch::Known(OLD), "other producers write too");
        assert!(!acks.topic.is_awaited());
    }

    #[test]
    fn a_partition_s_first_ack_and_those_behind_it_wait_for_a_query_that_was_sent_later() {
        let mut acks = Acks::with_acks(&[]);
        let before = acks.now;
        assert_eq!(acks.add(0, 0), AckEpoch::Awaited);
        assert_eq!(acks.add(0, 1), AckEpoch::Awaited);
        assert!(acks.topic.is_awaited());
        assert_eq!(acks.topic.add_fetched(OLD, before), []);
        assert_eq!(acks.fetch(OLD), [((0, 0), OLD), ((0, 1), OLD)]);
        assert_eq!(acks.add(0, 2), AckEpoch::Known(OLD));
        assert_eq!(acks.add(1, 0), AckEpoch::Awaited);
        assert_eq!(acks.fetch(NEW), [((1, 0), None)], "it may be of either topic");
    }

    #[test]
    fn an_ack_that_goes_back_has_the_epoch_of_the_topic_that_was_made_again() {
        let mut acks = Acks::with_acks(&[(0, 7), (1, 7), (2, 0)]);
        for offset in [0, 1] {
            assert_eq!(acks.add(0, offset), AckEpoch::Awaited);
        }
        assert_eq!(acks.add(1, 7), AckEpoch::Awaited, "the same offset twice");
        assert_eq!(acks.add(2, 1), AckEpoch::Known(None), "of either topic");
        assert_eq!(acks.add(3, 0), AckEpoch::Awaited, "a partition without earlier acks");
        assert_eq!(acks.fetch(OLD), [], "a broker that does not know it yet");
        let resolved = acks.fetch(NEW);
        assert_eq!(resolved, [(0, 0), (0, 1), (1, 7), (3, 0)].map(|ack| (ack, NEW)));
        assert_eq!(acks.add_queued(0, 2, OLD), AckEpoch::Known(NEW), "behind one of the new topic");
        assert_eq!(acks.add_queued(2, 2, OLD), AckEpoch::Known(None));
        assert_eq!(acks.add_queued(2, 3, NEW), AckEpoch::Awaited);
        assert_eq!(acks.fetch(NEW), [((2, 3), NEW)]);
    }

    #[test]
    fn records_that_waited_for_the_new_topic_have_its_epoch_if_their_offsets_go_back() {
        let mut acks = Acks::with_acks(&[(0, 7), (1, 0)]);
        acks.topic.add_missing(acks.now);
        assert_eq!(acks.fetch(NEW), []);
        assert_eq!(acks.add_queued(0, 0, OLD), AckEpoch::Awaited);
        assert_eq!(acks.add_queued(0, 1, OLD), AckEpoch::Awaited);
        assert_eq!(acks.add_queued(1, 1, OLD), AckEpoch::Known(None), "of either topic");
        assert_eq!(acks.add_queued(2, 0, OLD), AckEpoch::Known(None), "of either topic");
        assert_eq!(acks.fetch(NEW), [((0, 0), NEW), ((0, 1), NEW)]);
        assert_eq!(acks.add(0, 2), AckEpoch::Known(NEW));
    }

    #[test]
    fn a_topic_that_is_missing_is_taken_for_one_that_is_made_again() {
        let mut acks = Acks::with_acks(&[(0, 7)]);
        acks.topic.add_missing(acks.now);
        assert_eq!(acks.add(0, 8), AckEpoch::Known(None));
        assert_eq!(acks.add(1, 0), AckEpoch::Awaited);
        assert_eq!(acks.fetch(NEW), [((1, 0), NEW)]);
    }

    #[test]
    fn an_ack_waits_for_a_limited_time() {
        let mut acks = Acks::with_acks(&[(0, 7)]);
        acks.add(0, 0);
        assert!(acks.topic.take_expired(acks.now).is_empty());
        acks.now += MAX_WAIT;
        assert_eq!(acks.topic.take_expired(acks.now), [((0, 0), None)]);
    }

    #[test]
    fn records_that_were_lost_in_an_election_do_not_cost_the_epoch_for_ever() {
        let mut acks = Acks::with_acks(&[(0, 7), (1, 0)]);
        acks.add(0, 5);
        acks.now += DOUBT_TIMEOUT;
        assert_eq!(acks.fetch(OLD), [((0, 5), OLD)]);
        assert_eq!(acks.add(0, 6), AckEpoch::Known(OLD));
        assert_eq!(acks.add(1, 1), AckEpoch::Known(OLD));
    }

    #[test]
    fn brokers_without_topic_ids_are_not_waited_for() {
        let mut acks = Acks { topic: TopicAcks::default(), now: Instant::now() };
        assert_eq!(acks.add(0, 0), AckEpoch::Known(None));
        acks.fetch(None);
        acks.topic.add_missing(acks.now);
        assert_eq!(acks.add(0, 0), AckEpoch::Known(None));
    }
}
