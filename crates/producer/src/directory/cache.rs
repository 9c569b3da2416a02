//! A bounded cache of user names. Ids without a user are not cached. The cache answers only while it
//! is trusted, that is while changes of users are certain to invalidate it; see
//! [`NameCache::trust_until`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use model::UserId;
use parking_lot::Mutex;
use quick_cache::sync::Cache;

/// Number of change counters; ids share them by their remainder. A change of one id keeps the results
/// of concurrent look-ups of the others out of the cache, which costs them another look-up.
const BUCKETS: usize = 256;

pub(super) struct NameCache {
    /// Each name with the generation in which it was inserted; names of earlier generations are stale.
    names: Cache<UserId, (u64, Arc<str>)>,
    generation: AtomicU64,
    /// Number of changes in each bucket of ids. The lock is held while names are inserted or
    /// invalidated, so that an invalidation always wins.
    changes: Mutex<[u64; BUCKETS]>,
    /// Since `start`.
    trusted_until_ms: AtomicU64,
    start: Instant,
}

/// The change counters at the start of a look-up.
pub(super) struct ChangeCounts {
    generation: u64,
    changes: [u64; BUCKETS],
}

impl NameCache {
    /// An empty cache for at most `entries` names, not trusted yet.
    pub(super) fn new(entries: u64) -> Self {
        Self {
            names: Cache::new(usize::try_from(entries).unwrap_or(usize::MAX)),
            generation: AtomicU64::new(0),
            changes: Mutex::new([0; BUCKETS]),
            trusted_until_ms: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// Returns the user's name if it is cached and the cache is trusted.
    pub(super) fn get(&self, id: UserId) -> Option<Arc<str>> {
        if !self.is_trusted() {
            return None;
        }
        let (generation, name) = self.names.get(&id)?;
        (generation == self.generation.load(Ordering::Acquire)).then_some(name)
    }

    /// True while changes of users are certain to invalidate the cache.
    pub(super) fn is_trusted(&self) -> bool {
        self.millis_since_start(Instant::now()) < self.trusted_until_ms.load(Ordering::Acquire)
    }

    pub(super) fn len(&self) -> u64 {
        self.names.len() as u64
    }

    /// Call before a look-up whose result goes to [`insert_found`](Self::insert_found).
    pub(super) fn change_counts(&self) -> ChangeCounts {
        let changes = *self.changes.lock();
        ChangeCounts { generation: self.generation.load(Ordering::Acquire), changes }
    }

    /// Inserts the result of a look-up, except users that changed since it began: it may have read
    /// their old names.
    pub(super) fn insert_found<'n>(
        &self,
        before: &ChangeCounts,
        found: impl IntoIterator<Item = (UserId, &'n Arc<str>)>,
    ) {
        let changes = self.changes.lock();
        let generation = self.generation.load(Ordering::Acquire);
        if generation != before.generation {
            return;
        }
        for (id, name) in found {
            if changes[bucket_index(id)] == before.changes[bucket_index(id)] {
                self.names.insert(id, (generation, Arc::clone(name)));
            }
        }
    }

    pub(super) fn invalidate_user(&self, id: UserId) {
        let mut changes = self.changes.lock();
        changes[bucket_index(id)] += 1;
        self.names.remove(&id);
    }

    /// Removes all users, because any may have changed.
    pub(super) fn invalidate_all(&self) {
        let _held = self.changes.lock();
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.names.clear();
    }

    /// Trusts the cache until then. The caller guarantees that until then every change reaches
    /// [`invalidate_user`](Self::invalidate_user), and extends the trust again and again. If the
    /// trust has lapsed, the caller first calls [`invalidate_all`](Self::invalidate_all).
    pub(super) fn trust_until(&self, until: Instant) {
        self.trusted_until_ms.store(self.millis_since_start(until), Ordering::Release);
    }

    /// Trusts the cache for ever: this process makes all changes and invalidates the users itself.
    pub(super) fn trust_always(&self) {
        self.trusted_until_ms.store(u64::MAX, Ordering::Release);
    }

    /// Stops answering, because changes may be missed from now on.
    pub(super) fn revoke_trust(&self) {
        self.trusted_until_ms.store(0, Ordering::Release);
    }

    fn millis_since_start(&self, until: Instant) -> u64 {
        let elapsed: Duration = until.saturating_duration_since(self.start);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }
}

fn bucket_index(id: UserId) -> usize {
    usize::try_from(id.get().unsigned_abs() % BUCKETS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: i64) -> UserId {
        UserId::new(n).expect("positive")
    }

    fn trusted() -> NameCache {
        let cache = NameCache::new(100);
        cache.trust_always();
        cache
    }

    fn look_up(cache: &NameCache, before: &ChangeCounts, n: i64, name: &str) {
        cache.insert_found(before, [(id(n), &name.into())]);
    }

    #[test]
    fn a_name_is_remembered_until_it_is_changed() {
        let cache = trusted();
        look_up(&cache, &cache.change_counts(), 1, "Emma");
        assert_eq!(cache.get(id(1)).as_deref(), Some("Emma"));
        assert_eq!(cache.get(id(2)), None);
        cache.invalidate_user(id(1));
        assert_eq!(cache.get(id(1)), None);
    }

    #[test]
    fn a_name_that_was_read_before_a_change_is_not_remembered_after_it() {
        let cache = trusted();
        let before = cache.change_counts();
        cache.invalidate_user(id(1));
        look_up(&cache, &before, 1, "Emma as she was");
        look_up(&cache, &before, 2, "Bruno");
        assert_eq!(cache.get(id(1)), None);
        assert_eq!(cache.get(id(2)).as_deref(), Some("Bruno"), "who was not changed");

        let before = cache.change_counts();
        cache.invalidate_all();
        look_up(&cache, &before, 2, "Bruno as he was");
        assert_eq!(cache.get(id(2)), None);
        look_up(&cache, &cache.change_counts(), 2, "Bruno");
        assert_eq!(cache.get(id(2)).as_deref(), Some("Bruno"));
    }

    #[test]
    fn a_cache_that_nobody_vouches_for_is_not_asked() {
        let cache = NameCache::new(100);
        look_up(&cache, &cache.change_counts(), 1, "Emma");
        assert_eq!(cache.get(id(1)), None, "at first");
        cache.trust_until(Instant::now() + Duration::from_secs(60));
        assert_eq!(cache.get(id(1)).as_deref(), Some("Emma"));
        cache.trust_until(Instant::now());
        assert_eq!(cache.get(id(1)), None, "when the time is over");
        cache.trust_always();
        cache.revoke_trust();
        assert_eq!(cache.get(id(1)), None, "when it is taken back");
    }

    #[test]
    fn it_stays_within_its_bound() {
        let cache = trusted();
        let names: Vec<(UserId, Arc<str>)> = (1..=5000).map(|n| (id(n), "x".into())).collect();
        cache.insert_found(&cache.change_counts(), names.iter().map(|(id, name)| (*id, name)));
        assert!(cache.len() <= 100, "{}", cache.len());
    }
}
