//! The lease of a group member: until when the group cannot have given its partitions to another
//! member.
//!
//! The heartbeats are librdkafka's, and it does not tell when an answered heartbeat was sent. So this
//! module commits an offset about once a second. A commit carries the member's id and generation.
//! The coordinator refuses it from a member that it has removed, and otherwise begins the member's
//! session anew, as after a heartbeat (Kafka: `OffsetMetadataManager.validateOffsetCommit`, and before
//! 4.0 `GroupCoordinator.doCommitOffsets`). It does so at some time after the commit was sent, so the
//! session lasts at least until that instant plus the session timeout, however late the answer is.
//!
//! During a rebalance the coordinator accepts commits until the last member has joined again. Then it
//! answers `REBALANCE_IN_PROGRESS` or `ILLEGAL_GENERATION` until the leader has sent the assignment.
//! These two do not end the lease: with cooperative rebalances, a partition moves only after its owner
//! has given it up and joined again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, consumer::ConsumerContext, error::KafkaResult, types::RDKafkaErrorCode,
};

use super::commits::ConsumerOffsets;
use crate::{
    commits::GroupOffsets as _,
    offset_tracker::{OffsetTracker, Worker},
};

/// Time between two commits that renew the lease. Shorter than the commits take if the brokers are
/// slow: then the next one is sent at once.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// Time before a failed commit is repeated.
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// librdkafka's default, in milliseconds.
const DEFAULT_SESSION_TIMEOUT_MS: u32 = 45_000;

/// The lease of one group member. A cheap handle, to be cloned.
#[derive(Clone)]
pub(super) struct MemberLease(Arc<LeaseState>);

struct LeaseState {
    ttl: Duration,
    until: Mutex<Option<Instant>>,
}

impl MemberLease {
    /// The lease ends a tenth of the session timeout before the session, to leave time between the
    /// check of the lease and the end of the answer.
    pub(super) fn from_config(consumer: &ClientConfig) -> Self {
        let session = consumer.get("session.timeout.ms").and_then(|ms| ms.parse().ok());
        let session = Duration::from_millis(session.unwrap_or(DEFAULT_SESSION_TIMEOUT_MS).into());
        Self(Arc::new(LeaseState { ttl: session * 9 / 10, until: Mutex::default() }))
    }

    /// Until when the member is known to be one. `None` before the coordinator has confirmed it, and
    /// after the coordinator has removed it.
    pub(super) fn until(&self) -> Option<Instant> {
        *self.0.until.lock()
    }

    pub(super) fn end(&self) {
        *self.0.until.lock() = None;
    }

    /// The outcome of a commit that was sent after `asked_at`.
    pub(super) fn record_commit(&self, asked_at: Instant, outcome: &KafkaResult<()>) {
        let code = outcome.as_ref().err().and_then(rdkafka::error::KafkaError::rdkafka_error_code);
        match (outcome, code) {
            (Ok(()), _) => {
                let mut until = self.0.until.lock();
                *until = (*until).max(Some(asked_at + self.0.ttl));
            }
            (_, Some(RDKafkaErrorCode::UnknownMemberId | RDKafkaErrorCode::FencedInstanceId)) => {
                tracing::warn!("the group has removed this member; it joins again");
                self.end();
            }
            (Err(error), _) => tracing::debug!(%error, "a commit did not renew the lease"),
        }
    }

    /// Starts a thread that renews the lease while partitions are assigned. It ends after
    /// [`OffsetTracker::close`].
    pub(super) fn start_renewals<C: ConsumerContext + 'static>(
        tracker: &Arc<OffsetTracker>,
        offsets: ConsumerOffsets<C>,
    ) -> std::io::Result<()> {
        let (worker, mut not_before) = (Arc::clone(tracker), Instant::now());
        tracker.spawn_worker(Worker::Lease, "the lease cannot be renewed", move || {
            let batch = worker.next_renewal(not_before)?;
            let asked_at = Instant::now();
            let positions: Vec<_> =
                batch.iter().map(|(assigned, offset)| (assigned.partition, *offset)).collect();
            let committed = offsets.commit_offsets(&positions).is_ok();
            worker.finish_commit(&batch, committed);
            not_before =
                if committed { asked_at + RENEWAL_INTERVAL } else { Instant::now() + RETRY_DELAY };
            Some(Ok(()))
        })
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::KafkaError;

    use super::*;

    const TTL: Duration = Duration::from_secs(9);

    fn lease() -> MemberLease {
        let mut config = ClientConfig::new();
        config.set("session.timeout.ms", "10000");
        MemberLease::from_config(&config)
    }

    fn failed(code: RDKafkaErrorCode) -> KafkaResult<()> {
        Err(KafkaError::ConsumerCommit(code))
    }

    #[test]
    fn a_lease_counts_from_when_the_brokers_were_asked() {
        let (lease, asked_at) = (lease(), Instant::now());
        assert_eq!(lease.until(), None);
        lease.record_commit(asked_at, &Ok(()));
        assert_eq!(lease.until(), Some(asked_at + TTL));
        // An answer that was overtaken does not shorten it.
        lease.record_commit(asked_at.checked_sub(TTL).unwrap_or(asked_at), &Ok(()));
        assert_eq!(lease.until(), Some(asked_at + TTL));
    }

    #[test]
    fn a_refusal_ends_the_lease_only_if_the_group_has_removed_the_member() {
        use RDKafkaErrorCode as Code;
        for (code, ends) in [
            (Code::RebalanceInProgress, false),
            (Code::IllegalGeneration, false),
            (Code::RequestTimedOut, false),
            (Code::UnknownMemberId, true),
            (Code::FencedInstanceId, true),
        ] {
            let lease = lease();
            lease.record_commit(Instant::now(), &Ok(()));
            lease.record_commit(Instant::now(), &failed(code));
            assert_eq!(lease.until().is_none(), ends, "{code:?}");
        }
    }
}
