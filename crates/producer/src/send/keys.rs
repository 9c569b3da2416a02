//! The keys that were used of late, and what for. Bounded, and gone with the process: what it does
//! not remember any more, the view finds out from the record's fingerprint.

use std::{sync::Arc, time::Duration};

use log::Position;
use model::{Fingerprint, NotificationId};
use parking_lot::Mutex;

/// How many keys are remembered, and for how long.
const MOST: u64 = 100_000;
const FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// The memory of keys, by the notification that each makes. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Keys(Arc<Shared>);

struct Shared {
    used: moka::sync::Cache<NotificationId, Used>,
    /// Held while the keys of one send are compared and noted, so that of two sends with one key
    /// and other contents only one can be the first.
    claiming: Mutex<()>,
}

#[derive(Clone, Copy)]
struct Used {
    fingerprint: Fingerprint,
    /// Where it is in the log; none until that is known.
    position: Option<Position>,
}

/// A key was used for something else before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reused;

impl Default for Keys {
    fn default() -> Self {
        Self::new(MOST, FOR)
    }
}

impl Keys {
    fn new(most: u64, age: Duration) -> Self {
        let used = moka::sync::Cache::builder()
            .max_capacity(most)
            .time_to_live(age)
            // A retry follows its first attempt soon: the newest keys are worth the most.
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        Self(Arc::new(Shared { used, claiming: Mutex::new(()) }))
    }

    /// Notes that these notifications, of one send, have this content; all of them or none. Returns
    /// the place of each that is in the log already, in the same order.
    ///
    /// # Errors
    /// [`Reused`], when one of them is known with other content.
    pub fn claim<'i>(
        &self,
        ids: impl Iterator<Item = &'i NotificationId> + Clone,
        fingerprint: Fingerprint,
    ) -> Result<Vec<Option<Position>>, Reused> {
        let _held = self.0.claiming.lock();
        let known: Vec<_> = ids.clone().map(|id| self.0.used.get(id)).collect();
        if known.iter().flatten().any(|used| used.fingerprint != fingerprint) {
            return Err(Reused);
        }
        for (id, _) in ids.zip(&known).filter(|(_, used)| used.is_none()) {
            self.0.used.insert(id.clone(), Used { fingerprint, position: None });
        }
        Ok(known.into_iter().map(|used| used?.position).collect())
    }

    /// The log has this notification, of this content, here.
    pub fn acknowledged(&self, id: &NotificationId, fingerprint: Fingerprint, at: Position) {
        self.0.used.insert(id.clone(), Used { fingerprint, position: Some(at) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position { partition: 3, offset: 7 };
    const A: Fingerprint = Fingerprint(1);
    const B: Fingerprint = Fingerprint(2);

    fn ids<const N: usize>() -> [NotificationId; N] {
        std::array::from_fn(|_| NotificationId::generate())
    }

    #[test]
    fn a_key_is_known_with_its_place_once_that_is_known() {
        let (keys, ids) = (Keys::default(), ids::<2>());
        assert_eq!(keys.claim(ids.iter(), A), Ok(vec![None, None]), "new");
        assert_eq!(keys.claim(ids.iter(), A), Ok(vec![None, None]), "in flight");
        keys.acknowledged(&ids[1], A, AT);
        assert_eq!(keys.claim(ids.iter(), A), Ok(vec![None, Some(AT)]));
    }

    #[test]
    fn a_key_that_was_used_for_something_else_is_refused_and_nothing_is_noted() {
        let (keys, ids) = (Keys::default(), ids::<3>());
        assert!(keys.claim(ids[1..2].iter(), A).is_ok());
        assert_eq!(keys.claim(ids.iter(), B), Err(Reused));
        assert!(keys.claim(ids[..1].iter(), A).is_ok(), "the others are free");
        assert!(keys.claim(ids[2..].iter(), A).is_ok());
        keys.acknowledged(&ids[0], A, AT);
        assert_eq!(keys.claim(ids[..1].iter(), B), Err(Reused));
    }

    #[test]
    fn the_memory_is_bounded_in_number_and_in_time() {
        let keys = Keys::new(100, Duration::from_secs(60));
        for _ in 0..5000 {
            assert!(keys.claim(ids::<1>().iter(), A).is_ok());
        }
        keys.0.used.run_pending_tasks();
        assert!(keys.0.used.entry_count() <= 100);

        let (keys, ids) = (Keys::new(100, Duration::from_millis(20)), ids::<1>());
        assert!(keys.claim(ids.iter(), A).is_ok());
        std::thread::sleep(Duration::from_millis(50));
        assert!(keys.claim(ids.iter(), B).is_ok());
    }
}
