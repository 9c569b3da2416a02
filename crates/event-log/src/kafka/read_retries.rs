//! When to read a batch again that could not be read. librdkafka fetches a damaged batch, and all
//! before it, as fast as it can, so its partition is paused between two attempts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How often the batch is tried again, and for how long.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryStep {
    /// Have the client pause the partition.
    Pause,
    /// Have the client go on with the partition where the handler is.
    Retry,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Paused,
    Trying,
}

#[derive(Default)]
pub(super) struct ReadRetries {
    unreadable: BTreeMap<i32, (Instant, Phase)>,
    /// Those that the client has paused. It keeps that over assignments.
    paused: BTreeSet<i32>,
}

impl ReadRetries {
    /// The partitions were revoked or are read anew.
    pub(super) fn end(&mut self, partitions: &[i32]) {
        self.unreadable.retain(|partition, _| !partitions.contains(partition));
    }

    /// The step that the client has to take now with an assigned partition.
    pub(super) fn next_step(
        &mut self,
        partition: i32,
        is_unreadable: bool,
        now: Instant,
    ) -> Option<RetryStep> {
        let pause = if is_unreadable {
            match self.unreadable.get(&partition) {
                None => true,
                Some((since, Phase::Paused)) if now - *since >= RETRY_INTERVAL => false,
                Some((since, Phase::Trying)) if now - *since >= RETRY_TIMEOUT => true,
                Some(_) => return None,
            }
        } else {
            self.unreadable.remove(&partition);
            return self.paused.remove(&partition).then_some(RetryStep::Retry);
        };
        let phase = if pause { Phase::Paused } else { Phase::Trying };
        self.unreadable.insert(partition, (now, phase));
        if pause {
            self.paused.insert(partition);
            Some(RetryStep::Pause)
        } else {
            self.paused.remove(&partition);
            Some(RetryStep::Retry)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RetryStep::{Pause, Retry};

    #[test]
    fn an_unreadable_batch_is_tried_again_at_intervals_and_its_partition_paused_between_them() {
        let start = Instant::now();
        let mut retries = ReadRetries::default();
        for (second, is_unreadable, expected) in [
            (0, false, None),
            (1, true, Some(Pause)),
            (5, true, None),
            (11, true, Some(Retry)),
            (15, true, None),
            (16, true, Some(Pause)),
            (26, true, Some(Retry)),
            (27, false, None),
            (28, true, Some(Pause)),
            // It was deleted, for example.
            (29, false, Some(Retry)),
            (30, false, None),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(retries.next_step(3, is_unreadable, now), expected, "at {second} s");
        }
    }

    #[test]
    fn a_partition_that_was_revoked_while_it_was_paused_is_read_when_it_is_assigned_again() {
        let now = Instant::now();
        let mut retries = ReadRetries::default();
        assert_eq!(retries.next_step(3, true, now), Some(Pause));
        retries.end(&[3]);
        assert_eq!(retries.next_step(3, false, now), Some(Retry));
    }
}
