//! The recently used Idempotency-Keys and their content. Bounded and in memory only: the view detects
//! the reuse of older keys by the record's fingerprint.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use event_log::Position;
use model::{Fingerprint, NotificationId};
use parking_lot::Mutex;
use smallvec::SmallVec;

/// Bounds of the memory. Most retries come soon, so the oldest keys are dropped first.
const MAX_KEYS: usize = 100_000;
const KEY_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The recently used keys, by the notification ids that they make. Cheap to clone.
///
/// One lock for all, held while the ids of one send are compared and inserted: of two sends with the
/// same key and different content only one can be the first.
#[derive(Clone)]
pub(crate) struct IdempotencyKeys(Arc<Mutex<KeyMemory>>);

struct KeyMemory {
    max_keys: usize,
    ttl: Duration,
    used: HashMap<NotificationId, UsedKey>,
    /// The ids in `used` with the time of their insertion, oldest first.
    order: VecDeque<(Instant, NotificationId)>,
}

#[derive(Clone, Copy)]
struct UsedKey {
    fingerprint: Fingerprint,
    /// `None` until the log has acknowledged the record.
    position: Option<Position>,
}

/// The key was used for other content before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyReused;

impl Default for IdempotencyKeys {
    fn default() -> Self {
        Self::new(MAX_KEYS, KEY_TTL)
    }
}

impl IdempotencyKeys {
    fn new(max_keys: usize, ttl: Duration) -> Self {
        let (used, order) = Default::default();
        Self(Arc::new(Mutex::new(KeyMemory { max_keys, ttl, used, order })))
    }

    /// Inserts the ids of one send with the fingerprint of its content. Returns for each id its
    /// position if an earlier attempt has written it. Inserts none if one has another fingerprint.
    pub(crate) fn claim_ids<'i>(
        &self,
        ids: impl Iterator<Item = &'i NotificationId> + Clone,
        fingerprint: Fingerprint,
    ) -> Result<SmallVec<[Option<Position>; 1]>, KeyReused> {
        let mut memory = self.0.lock();
        let now = Instant::now();
        while memory.order.front().is_some_and(|(at, _)| now - *at >= memory.ttl) {
            memory.forget_oldest();
        }
        let known: SmallVec<[_; 1]> = ids.clone().map(|id| memory.used.get(id).copied()).collect();
        if known.iter().flatten().any(|used| used.fingerprint != fingerprint) {
            return Err(KeyReused);
        }
        for (id, _) in ids.zip(&known).filter(|(_, used)| used.is_none()) {
            if memory.order.len() >= memory.max_keys {
                memory.forget_oldest();
            }
            memory.used.insert(id.clone(), UsedKey { fingerprint, position: None });
            memory.order.push_back((now, id.clone()));
        }
        Ok(known.into_iter().map(|used| used?.position).collect())
    }

    /// Stores the position of an acknowledged record, unless its key is forgotten already.
    pub(crate) fn record_position(&self, id: &NotificationId, position: Position) {
        if let Some(used) = self.0.lock().used.get_mut(id) {
            used.position = Some(position);
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

    const AT: Position = Position { partition: 3, offset: 7, epoch: None };
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
        let memory = keys.0.lock();
        assert_eq!((memory.used.len(), memory.order.len()), (100, 100));
        drop(memory);

        let (keys, ids) = (IdempotencyKeys::new(100, Duration::from_millis(20)), ids::<1>());
        assert!(keys.claim_ids(ids.iter(), A).is_ok());
        std::thread::sleep(Duration::from_millis(50));
        assert!(keys.claim_ids(ids.iter(), B).is_ok());
    }
}
