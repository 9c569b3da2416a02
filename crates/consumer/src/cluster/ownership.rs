//! The table of owners: each instance announces the partitions that it owns in the owners' topic,
//! and every instance reads the whole topic.
//!
//! The topic has one partition, so every instance reads the claims in the same order, and the last
//! claim to a partition wins. A release takes back the releaser's own claim only, so it cannot undo
//! a claim that was written before it by the next owner.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use event_log::{
    AppendError, NewRecord, PartitionHandler, Record, RecordOutcome, StartAt, Watermarks, Writer,
};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::apply::AssignmentListener;

/// Time before an announcement is repeated that failed or met a conflicting claim.
const REANNOUNCE_DELAY: Duration = Duration::from_millis(500);

/// An instance's claim to a partition: the value of a record whose key is the partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnershipClaim {
    pub(crate) partition: i32,
    /// A process has a new one at each start.
    pub(crate) instance: Uuid,
    /// URL at which peers reach the instance.
    pub(crate) url: String,
    pub(crate) state: ClaimState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClaimState {
    Rebuilding,
    Live,
    /// The instance no longer owns the partition.
    Released,
}

/// The owner of each partition, as far as this instance knows. A cheap handle, to be cloned.
#[derive(Clone)]
pub(crate) struct OwnershipTable(Arc<TableState>);

struct TableState {
    instance: Uuid,
    url: String,
    /// The last claim to each partition.
    claims: RwLock<BTreeMap<i32, OwnershipClaim>>,
    changed: watch::Sender<()>,
    own: Mutex<OwnClaims>,
    wake_announcer: Notify,
}

/// The claims of this instance.
#[derive(Default)]
struct OwnClaims {
    held: BTreeMap<i32, ClaimState>,
    /// Not yet written to the topic.
    pending: BTreeMap<i32, ClaimState>,
}

impl OwnershipTable {
    /// `url`: where peers reach this instance, such as `http://10.0.0.7:8081`.
    pub(crate) fn new(url: &str) -> Self {
        Self(Arc::new(TableState {
            instance: Uuid::now_v7(),
            url: url.trim_end_matches('/').to_owned(),
            claims: RwLock::default(),
            changed: watch::Sender::new(()),
            own: Mutex::default(),
            wake_announcer: Notify::new(),
        }))
    }

    /// The last claim to this partition, this instance's own or another's.
    pub(crate) fn find_owner(&self, partition: i32) -> Option<OwnershipClaim> {
        self.0.claims.read().get(&partition).cloned()
    }

    /// The last claim to this partition, if it is another instance's.
    pub(crate) fn find_peer(&self, partition: i32) -> Option<OwnershipClaim> {
        self.find_owner(partition).filter(|claim| claim.instance != self.0.instance)
    }

    /// Returns a future that resolves when any owner changes after this call.
    pub(crate) fn subscribe_to_change(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changed = self.0.changed.subscribe();
        async move {
            let _ = changed.changed().await;
        }
    }

    /// Announces claims and releases as they come, until dropped. Never ends.
    pub(crate) async fn run_announcer(self, writer: Writer, topic: String) {
        loop {
            self.0.wake_announcer.notified().await;
            while self.announce_pending(&writer, &topic).await.is_err() {
                tokio::time::sleep(REANNOUNCE_DELAY).await;
            }
        }
    }

    /// Announces all pending claims and releases, once. Those that the log does not take stay pending.
    pub(crate) async fn announce_pending(
        &self,
        writer: &Writer,
        topic: &str,
    ) -> Result<(), AppendError> {
        loop {
            let pending = std::mem::take(&mut self.0.own.lock().pending);
            if pending.is_empty() {
                return Ok(());
            }
            // All are appended before the first is awaited: at shutdown there is little time, and
            // peers forward to this instance until they read its releases.
            let append = |(partition, state)| {
                let (instance, url) = (self.0.instance, self.0.url.clone());
                let claim = OwnershipClaim { partition, instance, url, state };
                let record = NewRecord {
                    partition: 0,
                    key: partition.to_string().into_bytes(),
                    value: serde_json::to_vec(&claim).unwrap_or_default(),
                    headers: Vec::new(),
                };
                (partition, state, writer.append(topic, record))
            };
            let appended: Vec<_> = pending.into_iter().map(append).collect();
            let mut result = Ok(());
            for (partition, state, ack) in appended {
                if let Err(error) = async { ack?.await }.await {
                    tracing::debug!(%error, kafka.partition = partition, "a claim was not announced");
                    // Unless a newer state of the same partition became pending meanwhile.
                    self.0.own.lock().pending.entry(partition).or_insert(state);
                    result = Err(error);
                }
            }
            result?;
        }
    }

    fn set_claim(&self, partition: i32, state: ClaimState) {
        let mut own = self.0.own.lock();
        match state {
            ClaimState::Released => own.held.remove(&partition),
            ClaimState::Rebuilding | ClaimState::Live => own.held.insert(partition, state),
        };
        own.pending.insert(partition, state);
        drop(own);
        self.0.wake_announcer.notify_one();
    }
}

impl AssignmentListener for OwnershipTable {
    fn on_assigned(&self, partition: i32) {
        self.set_claim(partition, ClaimState::Rebuilding);
    }

    fn on_live(&self, partition: i32) {
        self.set_claim(partition, ClaimState::Live);
    }

    fn on_revoked(&self, partition: i32) {
        self.set_claim(partition, ClaimState::Released);
    }
}

/// Applies the records of the owners' topic to the table.
pub(crate) struct OwnersTopicHandler {
    table: Weak<TableState>,
    runtime: tokio::runtime::Handle,
}

impl OwnersTopicHandler {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(table: &OwnershipTable) -> Self {
        Self { table: Arc::downgrade(&table.0), runtime: tokio::runtime::Handle::current() }
    }

    pub(super) fn apply_claim(&self, claim: OwnershipClaim) {
        let Some(table) = self.table.upgrade() else { return };
        let (partition, instance) = (claim.partition, claim.instance);
        let mut claims = table.claims.write();
        if claim.state != ClaimState::Released {
            claims.insert(partition, claim);
        } else if claims.get(&partition).is_some_and(|owner| owner.instance == instance) {
            claims.remove(&partition);
        } else {
            return;
        }
        drop(claims);
        table.changed.send_replace(());
        if instance != table.instance && table.own.lock().held.contains_key(&partition) {
            self.reannounce_later(partition);
        }
    }

    /// Handles a conflicting claim. The group decides who is right; this instance re-announces
    /// after a delay, so that a stale claim does not win and two owners do not ping-pong.
    fn reannounce_later(&self, partition: i32) {
        let table = self.table.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(REANNOUNCE_DELAY).await;
            let Some(table) = table.upgrade() else { return };
            let last = table.claims.read().get(&partition).map(|claim| claim.instance);
            let mut own = table.own.lock();
            if let Some(state) = own.held.get(&partition).copied()
                && last != Some(table.instance)
            {
                own.pending.entry(partition).or_insert(state);
                table.wake_announcer.notify_one();
            }
        });
    }
}

impl PartitionHandler for OwnersTopicHandler {
    fn on_assigned(&mut self, _: i32) -> StartAt {
        StartAt::Beginning
    }

    fn on_watermarks(&mut self, _: i32, _: Watermarks) {}

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        // A tombstone has no meaning here: releases are records with a value.
        let Some(value) = record.value else { return RecordOutcome::Applied };
        match serde_json::from_slice(value) {
            Ok(claim) => self.apply_claim(claim),
            Err(error) => return RecordOutcome::Poison(error.to_string()),
        }
        RecordOutcome::Applied
    }

    fn on_live(&mut self, _: i32) {}

    fn on_revoked(&mut self, _: i32) {}
}

#[cfg(test)]
mod fuzz {
    use inputs::{bytes, json, mutated, text};
    use proptest::{option, prelude::*, sample::select};

    use super::*;

    fn claim() -> impl Strategy<Value = Vec<u8>> {
        const STATES: [ClaimState; 3] =
            [ClaimState::Rebuilding, ClaimState::Live, ClaimState::Released];
        let partition = prop_oneof![4 => 0..4_i32, 1 => any::<i32>()];
        (partition, any::<u128>(), text(), select(&STATES[..])).prop_map(
            |(partition, instance, url, state)| {
                let instance = Uuid::from_u128(instance);
                serde_json::to_vec(&OwnershipClaim { partition, instance, url, state })
                    .expect("JSON")
            },
        )
    }

    proptest! {
        #[test]
        fn a_claim_is_poison_or_kept_as_it_was_written(
            key in option::of(bytes()),
            value in option::of(prop_oneof![
                1 => bytes(), 1 => json().prop_map(String::into_bytes), 5 => mutated(claim()),
            ]),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            let _within = runtime.enter();
            let table = OwnershipTable::new("http://me");
            // A conflicting claim to partition 3 is re-announced, whatever it holds.
            table.on_assigned(3);
            let verdict = OwnersTopicHandler::new(&table).on_record(&Record {
                partition: 0,
                offset: 0,
                timestamp_ms: 0,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: smallvec::SmallVec::new(),
            });
            let claim: Option<OwnershipClaim> = value.and_then(|value| serde_json::from_slice(&value).ok());
            let held: Vec<_> = table.0.claims.read().values().cloned().collect();
            match claim {
                Some(claim) if claim.state != ClaimState::Released => {
                    let written = serde_json::to_vec(&claim).expect("JSON");
                    prop_assert_eq!(serde_json::from_slice::<OwnershipClaim>(&written).ok(), Some(claim.clone()));
                    prop_assert_eq!(held, [claim]);
                }
                _ => prop_assert!(held.is_empty(), "{:?} by {:?}", held, verdict),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(table: &OwnershipTable, instance: u128, state: ClaimState) {
        let claim = OwnershipClaim {
            partition: 3,
            instance: Uuid::from_u128(instance),
            url: format!("http://peer-{instance}"),
            state,
        };
        let value = serde_json::to_vec(&claim).expect("JSON");
        OwnersTopicHandler::new(table).on_record(&Record {
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: Some(b"3"),
            value: Some(&value),
            headers: smallvec::SmallVec::new(),
        });
    }

    #[tokio::test]
    async fn a_release_that_comes_after_the_next_owner_s_claim_changes_nothing() {
        let table = OwnershipTable::new("http://me");
        claim(&table, 1, ClaimState::Live);
        claim(&table, 2, ClaimState::Rebuilding);
        claim(&table, 1, ClaimState::Released);
        assert_eq!(table.find_peer(3).map(|owner| owner.url), Some("http://peer-2".into()));
        claim(&table, 2, ClaimState::Released);
        assert_eq!(table.find_peer(3), None);
    }

    #[tokio::test]
    async fn a_foreign_claim_to_what_is_ours_is_contradicted() {
        let table = OwnershipTable::new("http://me");
        table.on_assigned(3);
        table.0.own.lock().pending.clear();
        table.0.wake_announcer.notified().await;
        claim(&table, 2, ClaimState::Live);
        // The re-announcement wakes the announcer.
        let woken =
            tokio::time::timeout(Duration::from_secs(10), table.0.wake_announcer.notified()).await;
        assert!(woken.is_ok());
        assert_eq!(table.0.own.lock().pending.get(&3), Some(&ClaimState::Rebuilding));
    }
}
