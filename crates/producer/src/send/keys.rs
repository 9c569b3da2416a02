//! The keys that were used of late, and what for. Bounded, and gone with the process: what it does
//! not remember any more, the view finds out from the record's fingerprint.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use event_log::Position;
use model::{Fingerprint, NotificationId};
use parking_lot::Mutex;
use smallvec::SmallVec;

/// How many keys are remembered, and for how long. A retry follows its first attempt soon, so the
/// newest are worth the most.
const MAX_KEYS: usize = 100_000;
const KEY_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The memory of keys, by the notification that each makes. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct IdempotencyKeys(Arc<Shared>);

struct Shared {
    most: usize,
    age: Duration,
    /// One lock for all, held while the keys of one send are compared and noted: of two sends with
    /// one key and other contents only one can be the first.
    memory: Mutex<KeyMemory>,
}

#[derive(Default)]
struct KeyMemory {
    used: HashMap<NotificationId, UsedKey>,
    /// What is in `used`, the oldest first, and when each came.
    order: VecDeque<(Instant, NotificationId)>,
}

#[derive(Clone, Copy)]
struct UsedKey {
    fingerprint: Fingerprint,
    /// Where it is in the log; none until that is known.
    position: Option<Position>,
}

/// A key was used for something else before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyReused;

impl Default for IdempotencyKeys {
    fn default() -> Self {
        Self::new(MAX_KEYS, KEY_TTL)
    }
}

impl IdempotencyKeys {
    fn new(most: usize, age: Duration) -> Self {
        Self(Arc::new(Shared { most, age, memory: Mutex::default() }))
    }

    /// Notes that these notifications, of one send, have this content; all of them or none. Returns
    /// the place of each that is in the log already, in the same order.
    ///
    /// # Errors
    /// [`Reused`], when one of them is known with other content.
    pub fn claim_ids<'i>(
        &self,
        ids: impl Iterator<Item = &'i NotificationId> + Clone,
        fingerprint: Fingerprint,
    ) -> Result<SmallVec<[Option<Position>; 1]>, KeyReused> {
        let mut memory = self.0.memory.lock();
        let now = Instant::now();
        while memory.order.front().is_some_and(|(at, _)| now - *at >= self.0.age) {
            memory.forget_oldest();
        }
        let known: SmallVec<[_; 1]> = ids.clone().map(|id| memory.used.get(id).copied()).collect();
        if known.iter().flatten().any(|used| used.fingerprint != fingerprint) {
            return Err(KeyReused);
        }
        for (id, _) in ids.zip(&known).filter(|(_, used)| used.is_none()) {
            if memory.order.len() >= self.0.most {
                memory.forget_oldest();
            }
            memory.used.insert(id.clone(), UsedKey { fingerprint, position: None });
            memory.order.push_back((now, id.clone()));
        }
        Ok(known.into_iter().map(|used| used?.position).collect())
    }

    /// The log has this notification here. Nothing to remember where its key is forgotten by now.
    pub fn record_position(&self, id: &NotificationId, at: Position) {
        if let Some(used) = self.0.memory.lock().used.get_mut(id) {
            used.position = Some(at);
        }
    }
}

impl KeyMemory {
    fn forget_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.used.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { partition: 3, offset: 7 };
    const A: Fingerprint = Fingerprint::from_bits(1);
    const B: Fingerprint = Fingerprint::from_bits(2);

    fn ids<const N: usize>() -> [NotificationId; N] {
        std::array::from_fn(|_| NotificationId::generate())
    }

    #[test]
    fn a_key_is_known_with_its_place_once_that_is_known() {
        let (keys, ids) = (IdempotencyKeys::default(), ids::<2>());
        let none: SmallVec<[_; 1]> = SmallVec::from_elem(None, 2);
        assert_eq!(keys.claim_ids(ids.iter(), A), Ok(none.clone()), "new");
        assert_eq!(keys.claim_ids(ids.iter(), A), Ok(none.clone()), "in flight");
        keys.record_position(&ids[1], AT);
        assert_eq!(keys.claim_ids(ids.iter(), A), Ok(SmallVec::from_vec(vec![None, Some(AT)])));
    }

    #[test]
    fn a_key_that_was_used_for_something_else_is_refused_and_nothing_is_noted() {
        let (keys, ids) = (IdempotencyKeys::default(), ids::<3>());
        assert!(keys.claim_ids(ids[1..2].iter(), A).is_ok());
        assert_eq!(keys.claim_ids(ids.iter(), B), Err(KeyReused));
        assert!(keys.claim_ids(ids[..1].iter(), A).is_ok(), "the others are free");
        assert!(keys.claim_ids(ids[2..].iter(), A).is_ok());
        keys.record_position(&ids[0], AT);
        assert_eq!(keys.claim_ids(ids[..1].iter(), B), Err(KeyReused));
    }

    #[test]
    fn the_memory_is_bounded_in_number_and_in_time() {
        let keys = IdempotencyKeys::new(100, Duration::from_secs(60));
        for _ in 0..5000 {
            assert!(keys.claim_ids(ids::<1>().iter(), A).is_ok());
        }
        let memory = keys.0.memory.lock();
        assert_eq!((memory.used.len(), memory.order.len()), (100, 100));
        drop(memory);

        let (keys, ids) = (IdempotencyKeys::new(100, Duration::from_millis(20)), ids::<1>());
        assert!(keys.claim_ids(ids.iter(), A).is_ok());
        std::thread::sleep(Duration::from_millis(50));
        assert!(keys.claim_ids(ids.iter(), B).is_ok());
    }
}
