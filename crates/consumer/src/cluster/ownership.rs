//! The table of owners: each instance announces the partitions that it owns in the owners' topic,
//! and every instance reads the whole topic.
//!
//! The topic has one partition, so every instance reads the claims in the same order, and the last
//! claim to a partition wins. A release takes back the releaser's own claim only, so it cannot undo
//! a claim that was written before it by the next owner.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use event_log::{
    AppendError, NewRecord, PartitionHandler, Record, RecordOutcome, StartAt, Watermarks, Writer,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::claims::{ClaimRefusal, ClaimRules, ClaimState, OwnershipClaim};
use crate::apply::AssignmentListener;

/// Time before an announcement is repeated that failed or met a conflicting claim.
const REANNOUNCE_DELAY: Duration = Duration::from_millis(500);
/// Interval at which all claims are announced again, for peers that could not verify them: those
/// that read a new secret later than this instance.
const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
/// Refused claims are logged at most this often.
const MIN_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// The owner of each partition, as far as this instance knows. A cheap handle, to be cloned.
#[derive(Clone)]
pub(crate) struct OwnershipTable(Arc<TableState>);

struct TableState {
    instance: Uuid,
    rules: ClaimRules,
    /// The last claim to each partition.
    claims: RwLock<BTreeMap<i32, OwnershipClaim>>,
    /// Peers that answered for a partition without a known claim to it.
    guesses: RwLock<BTreeMap<i32, OwnershipClaim>>,
    changed: watch::Sender<()>,
    /// The owners' topic has been read to its end once. Before that, a claim may have been released.
    is_read: AtomicBool,
    own: Mutex<OwnClaims>,
    wake_announcer: Notify,
    warned_at: Mutex<Option<Instant>>,
}

/// The claims of this instance.
#[derive(Default)]
struct OwnClaims {
    held: BTreeMap<i32, ClaimState>,
    /// Not yet written to the topic.
    pending: BTreeMap<i32, ClaimState>,
    /// Those that will be announced again after a delay.
    contradicted: BTreeSet<i32>,
}

impl OwnershipTable {
    pub(crate) fn new(rules: ClaimRules) -> Self {
        Self(Arc::new(TableState {
            instance: Uuid::now_v7(),
            rules,
            claims: RwLock::default(),
            guesses: RwLock::default(),
            changed: watch::Sender::new(()),
            is_read: AtomicBool::new(false),
            own: Mutex::default(),
            wake_announcer: Notify::new(),
            warned_at: Mutex::default(),
        }))
    }

    /// The last claim to this partition, this instance's own or another's.
    pub(crate) fn find_owner(&self, partition: i32) -> Option<OwnershipClaim> {
        self.0.claims.read().get(&partition).cloned()
    }

    /// The last claim to this partition, if it is another instance's; otherwise the peer that
    /// answered for it since.
    pub(crate) fn find_peer(&self, partition: i32) -> Option<OwnershipClaim> {
        let claimed = self.find_owner(partition).filter(|claim| claim.instance != self.0.instance);
        claimed.or_else(|| self.0.guesses.read().get(&partition).cloned())
    }

    /// Returns true if another instance owns each partition, as far as the owners' topic says.
    pub(crate) fn has_peer_for_all(&self, mut partitions: impl Iterator<Item = i32>) -> bool {
        self.0.is_read.load(Ordering::Acquire)
            && partitions.all(|partition| self.find_peer(partition).is_some())
    }

    /// One claim of each other instance that has any, as if it were to this partition.
    pub(crate) fn guess_owners(&self, partition: i32) -> Vec<OwnershipClaim> {
        let claims = self.0.claims.read();
        let peers = claims.values().filter(|claim| claim.instance != self.0.instance);
        let by_url: BTreeMap<_, _> = peers.map(|claim| (&claim.url, claim)).collect();
        by_url.into_values().map(|claim| OwnershipClaim { partition, ..claim.clone() }).collect()
    }

    /// Notes that this peer has answered for the partition. A claim to it replaces this.
    pub(crate) fn note_guess(&self, guess: OwnershipClaim) {
        self.0.guesses.write().insert(guess.partition, guess);
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
        let signer = &self.0.rules.signer;
        let mut refresh = tokio::time::interval(REFRESH_INTERVAL);
        let mut new_secret = Box::pin(signer.subscribe_to_change());
        loop {
            tokio::select! {
                () = self.0.wake_announcer.notified() => {}
                _ = refresh.tick() => self.queue_held_claims(),
                () = &mut new_secret => {
                    new_secret = Box::pin(signer.subscribe_to_change());
                    self.queue_held_claims();
                }
            }
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
                let (instance, url) = (self.0.instance, self.0.rules.own_url.clone());
                let claim = OwnershipClaim { partition, instance, url, state };
                let record = NewRecord {
                    partition: 0,
                    key: partition.to_string().into_bytes(),
                    value: self.0.rules.encode_claim(claim),
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

    fn queue_held_claims(&self) {
        let own = &mut *self.0.own.lock();
        for (partition, state) in &own.held {
            own.pending.entry(*partition).or_insert(*state);
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
        let is_own_claim = table.is_own_claim(&claim);
        let mut claims = table.claims.write();
        let is_change = if claim.state != ClaimState::Released {
            claims.insert(partition, claim);
            true
        } else if claims.get(&partition).is_some_and(|owner| owner.instance == instance) {
            claims.remove(&partition);
            true
        } else {
            false
        };
        drop(claims);
        if is_change {
            table.guesses.write().remove(&partition);
            table.changed.send_replace(());
        }
        if !is_own_claim {
            self.reannounce_later(&table, partition);
        }
    }

    /// Handles a claim that contradicts one of this instance's, also a release that it has not
    /// written. The group decides who is right; this instance re-announces after a delay, so that a
    /// stale claim does not win and two owners do not ping-pong. However many claims contradict, it
    /// does so once in each delay.
    fn reannounce_later(&self, table: &TableState, partition: i32) {
        let mut own = table.own.lock();
        if !own.held.contains_key(&partition) || !own.contradicted.insert(partition) {
            return;
        }
        let table = self.table.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(REANNOUNCE_DELAY).await;
            let Some(table) = table.upgrade() else { return };
            let stands =
                table.claims.read().get(&partition).is_some_and(|last| table.is_own_claim(last));
            let mut own = table.own.lock();
            own.contradicted.remove(&partition);
            if let Some(state) = own.held.get(&partition).copied()
                && !stands
            {
                own.pending.entry(partition).or_insert(state);
                table.wake_announcer.notify_one();
            }
        });
    }
}

impl TableState {
    /// Returns true if this instance wrote the claim and it says that the instance is an owner.
    fn is_own_claim(&self, claim: &OwnershipClaim) -> bool {
        claim.instance == self.instance
            && claim.url == self.rules.own_url
            && claim.state != ClaimState::Released
    }

    fn log_refusal(&self, refusal: &ClaimRefusal) {
        let mut warned_at = self.warned_at.lock();
        if warned_at.is_some_and(|at| at.elapsed() < MIN_WARNING_INTERVAL) {
            tracing::debug!(%refusal, "a claim to a partition is not believed");
        } else {
            *warned_at = Some(Instant::now());
            tracing::warn!(%refusal, "a claim to a partition is not believed");
        }
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
        let Some(table) = self.table.upgrade() else { return RecordOutcome::Applied };
        match table.rules.decode_claim(value) {
            Ok(claim) => self.apply_claim(claim),
            Err(refusal) => {
                table.log_refusal(&refusal);
                return RecordOutcome::Poison(refusal.to_string());
            }
        }
        RecordOutcome::Applied
    }

    fn on_live(&mut self, _: i32) {
        if let Some(table) = self.table.upgrade() {
            table.is_read.store(true, Ordering::Release);
        }
    }

    fn on_revoked(&mut self, _: i32) {}
}

#[cfg(test)]
mod fuzz {
    use inputs::{bytes, json, mutated, text};
    use proptest::{option, prelude::*, sample::select};

    use super::*;
    use crate::cluster::claims::tests::open_rules;

    fn claim() -> impl Strategy<Value = Vec<u8>> {
        const STATES: [ClaimState; 3] =
            [ClaimState::Rebuilding, ClaimState::Live, ClaimState::Released];
        let partition = prop_oneof![4 => 0..4_i32, 1 => any::<i32>()];
        let url = prop_oneof![
            1 => text(),
            4 => "http://(10[.]0[.]0[.][1-9]|8[.]8[.]8[.]8|peer)(:[1-9][0-9]{1,3})?/?",
        ];
        (partition, any::<u128>(), url, select(&STATES[..])).prop_map(
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
            let table = OwnershipTable::new(open_rules());
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
            let claim = value.and_then(|value| open_rules().decode_claim(&value).ok());
            let held: Vec<_> = table.0.claims.read().values().cloned().collect();
            match claim {
                Some(claim) if claim.state != ClaimState::Released => {
                    let written = serde_json::to_vec(&claim).expect("JSON");
                    prop_assert_eq!(serde_json::from_slice::<OwnershipClaim>(&written).ok(), Some(claim.clone()));
                    prop_assert!(claim.url.starts_with("http://") && (0..4).contains(&claim.partition));
                    prop_assert_eq!(held, [claim]);
                }
                _ => prop_assert!(held.is_empty(), "{:?} by {:?}", held, verdict),
            }
        }
    }
}

#[cfg(test)]
mod tests;
