//! Which instance owns which partition: each announces its own in the owners' topic, and all read it.
//!
//! The topic has one partition, so its order decides: the last claim counts. A release only takes
//! back the releaser's own claim, so it cannot undo a claim that overtook it. An instance that
//! reads another's claim to what it owns itself claims it again.

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

use crate::view::fold::Ownership;

/// How long to wait before an announcement that failed, or was contradicted, is made again.
const ANNOUNCE_AGAIN: Duration = Duration::from_millis(500);

/// What an instance says of a partition; the value of a record, whose key is the partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The partition.
    pub partition: i32,
    /// The instance, of which there is a new one at each start of a process.
    pub instance: Uuid,
    /// Where its peers reach it.
    pub url: String,
    /// What the partition does there.
    pub state: ClaimState,
}

/// What a claimed partition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClaimState {
    /// It is being rebuilt.
    Rebuilding,
    /// It answers.
    Live,
    /// The instance has it no longer.
    Released,
}

/// Who owns what, as far as this instance knows. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Owners(Arc<Shared>);

struct Shared {
    instance: Uuid,
    url: String,
    /// By partition.
    owners: RwLock<BTreeMap<i32, Claim>>,
    changed: watch::Sender<()>,
    mine: Mutex<Mine>,
    wake: Notify,
}

#[derive(Default)]
struct Mine {
    claims: BTreeMap<i32, ClaimState>,
    /// What must still be announced.
    open: BTreeMap<i32, ClaimState>,
}

impl Owners {
    /// For an instance that its peers reach at this URL, such as `http://10.0.0.7:8081`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self(Arc::new(Shared {
            instance: Uuid::now_v7(),
            url: url.trim_end_matches('/').to_owned(),
            owners: RwLock::default(),
            changed: watch::Sender::new(()),
            mine: Mutex::default(),
            wake: Notify::new(),
        }))
    }

    /// The last claim to this partition; this instance's own or another's.
    #[must_use]
    pub fn of(&self, partition: i32) -> Option<Claim> {
        self.0.owners.read().get(&partition).cloned()
    }

    /// The last claim to this partition, if it is another instance's.
    #[must_use]
    pub fn peer(&self, partition: i32) -> Option<Claim> {
        self.of(partition).filter(|claim| claim.instance != self.0.instance)
    }

    /// Resolves when any owner changes after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changed = self.0.changed.subscribe();
        async move {
            let _ = changed.changed().await;
        }
    }

    /// The partition is live here.
    pub fn live(&self, partition: i32) {
        self.claim(partition, ClaimState::Live);
    }

    /// Announces what is claimed and released, until dropped. Never ends.
    pub async fn announce(self, writer: Writer, topic: String) {
        loop {
            self.0.wake.notified().await;
            while self.announce_open(&writer, &topic).await.is_err() {
                tokio::time::sleep(ANNOUNCE_AGAIN).await;
            }
        }
    }

    /// Announces what is still open, once.
    ///
    /// # Errors
    /// [`AppendError`], when the log does not take it; what is left stays open.
    pub async fn announce_open(&self, writer: &Writer, topic: &str) -> Result<(), AppendError> {
        loop {
            let open = std::mem::take(&mut self.0.mine.lock().open);
            if open.is_empty() {
                return Ok(());
            }
            // All are queued before any is waited for: who leaves has little time to say so, and
            // what it did not say leads its peers astray.
            let append = |(partition, state)| {
                let claim =
                    Claim { partition, instance: self.0.instance, url: self.0.url.clone(), state };
                let record = NewRecord {
                    partition: 0,
                    key: partition.to_string().into_bytes(),
                    value: serde_json::to_vec(&claim).unwrap_or_default(),
                    headers: Vec::new(),
                };
                (partition, state, writer.append(topic, record))
            };
            let queued: Vec<_> = open.into_iter().map(append).collect();
            let mut failed = None;
            for (partition, state, queued) in queued {
                let appended = match queued {
                    Ok(ack) => ack.await.map(|_| ()),
                    Err(error) => Err(error),
                };
                if let Err(error) = appended {
                    tracing::debug!(%error, kafka.partition = partition, "an owner is not announced yet");
                    // A newer state of the same partition replaces this one.
                    self.0.mine.lock().open.entry(partition).or_insert(state);
                    failed = Some(error);
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
    }

    fn claim(&self, partition: i32, state: ClaimState) {
        let mut mine = self.0.mine.lock();
        match state {
            ClaimState::Released => mine.claims.remove(&partition),
            ClaimState::Rebuilding | ClaimState::Live => mine.claims.insert(partition, state),
        };
        mine.open.insert(partition, state);
        drop(mine);
        self.0.wake.notify_one();
    }
}

impl Ownership for Owners {
    fn assigned(&mut self, partition: i32) {
        self.claim(partition, ClaimState::Rebuilding);
    }

    fn revoked(&mut self, partition: i32) {
        self.claim(partition, ClaimState::Released);
    }
}

/// Folds the owners' topic. To be followed in its one partition.
pub struct OwnersFold {
    owners: Weak<Shared>,
    runtime: tokio::runtime::Handle,
}

impl OwnersFold {
    /// Into this table. To be called within a tokio runtime.
    #[must_use]
    pub fn into(owners: &Owners) -> Self {
        Self { owners: Arc::downgrade(&owners.0), runtime: tokio::runtime::Handle::current() }
    }

    fn fold(&self, claim: Claim) {
        let Some(shared) = self.owners.upgrade() else { return };
        let (partition, instance) = (claim.partition, claim.instance);
        {
            let mut owners = shared.owners.write();
            if claim.state == ClaimState::Released {
                if owners.get(&partition).is_none_or(|owner| owner.instance != instance) {
                    return;
                }
                owners.remove(&partition);
            } else {
                owners.insert(partition, claim);
            }
        }
        shared.changed.send_replace(());
        if instance != shared.instance && shared.mine.lock().claims.contains_key(&partition) {
            // One of us is mistaken, and will find out soon. Should it be the other, ours must be
            // the last word; a moment later, so that two cannot shout each other down.
            let owners = self.owners.clone();
            self.runtime.spawn(async move {
                tokio::time::sleep(ANNOUNCE_AGAIN).await;
                let Some(shared) = owners.upgrade() else { return };
                let last = shared.owners.read().get(&partition).map(|claim| claim.instance);
                let mut mine = shared.mine.lock();
                if let Some(state) = mine.claims.get(&partition).copied()
                    && last != Some(shared.instance)
                {
                    mine.open.entry(partition).or_insert(state);
                    shared.wake.notify_one();
                }
            });
        }
    }
}

impl PartitionHandler for OwnersFold {
    fn on_assigned(&mut self, _: i32) -> StartAt {
        StartAt::Beginning
    }

    fn on_watermarks(&mut self, _: i32, _: Watermarks) {}

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        match record.value.map(serde_json::from_slice) {
            Some(Ok(claim)) => {
                self.fold(claim);
                RecordOutcome::Applied
            }
            // Compaction's own, of no meaning here.
            None => RecordOutcome::Applied,
            Some(Err(error)) => RecordOutcome::Poison(error.to_string()),
        }
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
                serde_json::to_vec(&Claim { partition, instance, url, state }).expect("JSON")
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
            let mut owners = Owners::new("http://me");
            // A foreign claim to what is ours is answered, whatever it says.
            owners.assigned(3);
            let verdict = OwnersFold::into(&owners).on_record(&Record {
                partition: 0,
                offset: 0,
                timestamp_ms: 0,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: smallvec::SmallVec::new(),
            });
            let claim: Option<Claim> = value.and_then(|value| serde_json::from_slice(&value).ok());
            let held: Vec<_> = owners.0.owners.read().values().cloned().collect();
            match claim {
                Some(claim) if claim.state != ClaimState::Released => {
                    let written = serde_json::to_vec(&claim).expect("JSON");
                    prop_assert_eq!(serde_json::from_slice::<Claim>(&written).ok(), Some(claim.clone()));
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

    fn claim(owners: &Owners, instance: u128, state: ClaimState) {
        let claim = Claim {
            partition: 3,
            instance: Uuid::from_u128(instance),
            url: format!("http://peer-{instance}"),
            state,
        };
        let value = serde_json::to_vec(&claim).expect("JSON");
        OwnersFold::into(owners).on_record(&Record {
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
        let owners = Owners::new("http://me");
        claim(&owners, 1, ClaimState::Live);
        claim(&owners, 2, ClaimState::Rebuilding);
        claim(&owners, 1, ClaimState::Released);
        assert_eq!(owners.peer(3).map(|owner| owner.url), Some("http://peer-2".into()));
        claim(&owners, 2, ClaimState::Released);
        assert_eq!(owners.peer(3), None);
    }

    #[tokio::test]
    async fn a_foreign_claim_to_what_is_ours_is_contradicted() {
        let mut owners = Owners::new("http://me");
        owners.assigned(3);
        owners.0.mine.lock().open.clear();
        owners.0.wake.notified().await;
        claim(&owners, 2, ClaimState::Live);
        // It is what wakes the announcer.
        let woken = tokio::time::timeout(Duration::from_secs(10), owners.0.wake.notified()).await;
        assert!(woken.is_ok());
        assert_eq!(owners.0.mine.lock().open.get(&3), Some(&ClaimState::Rebuilding));
    }
}
