//! Looks up user names for sends: in the cache while it is trusted, otherwise with as few queries as
//! possible. Look-ups that arrive while all queries are busy share the next one.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use model::{User, UserId};
use parking_lot::Mutex;
use service::ops::metrics::Scrape;
use smallvec::SmallVec;
use tokio::sync::oneshot;

#[cfg(feature = "postgres")]
use super::listener;
use super::{cache::NameCache, table::Directory};
use crate::metrics::{DIRECTORY_CACHED, DIRECTORY_TRUSTED, LookupCounters};

/// Maximum number of concurrent queries.
const MAX_QUERIES: usize = 4;
/// A query takes no further look-ups once it has this many ids, as many as one send may have.
const MAX_QUERY_IDS: usize = 10_000;

/// Looks up user names. Cheap to clone.
#[derive(Clone)]
pub struct UserLookup(Arc<LookupState>);

struct LookupState {
    directory: Directory,
    /// `None` if caching is off.
    cache: Option<NameCache>,
    pending: Mutex<PendingLookups>,
    counters: LookupCounters,
}

/// Look-ups that are not part of a query yet.
#[derive(Default)]
struct PendingLookups {
    lookups: VecDeque<(Vec<UserId>, oneshot::Sender<QueryResult>)>,
    running_queries: usize,
}

type QueryResult = Result<Arc<HashMap<UserId, Arc<str>>>, LookupFailed>;

/// The names of the users that were looked up, in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct UserNames {
    /// `None` if no such user was found.
    names: SmallVec<[(UserId, Option<Arc<str>>); 2]>,
    /// The reason why names of existing users may be missing.
    failed: Option<LookupFailed>,
}

impl UserNames {
    /// Returns the user with this id, or `None` if there is no such user.
    pub fn get(&self, id: UserId) -> Result<Option<User<'_>>, LookupFailed> {
        let found = self.names.iter().position(|(known, _)| *known == id);
        self.get_at(found.unwrap_or(self.names.len()))
    }

    /// Returns the user who was asked for at this place.
    pub(crate) fn get_at(&self, index: usize) -> Result<Option<User<'_>>, LookupFailed> {
        match (self.names.get(index), self.failed) {
            (Some((id, Some(name))), _) => Ok(Some(User { id: *id, name: Cow::Borrowed(name) })),
            (_, None) => Ok(None),
            (_, Some(failed)) => Err(failed),
        }
    }

    /// Splits them into the names of the first `count` users, of the next, and so on.
    pub(crate) fn split(self) -> impl FnMut(usize) -> UserNames {
        let (mut names, failed) = (self.names.into_iter(), self.failed);
        move |count| UserNames { names: names.by_ref().take(count).collect(), failed }
    }
}

/// The directory did not answer. The query's error is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the user directory does not answer")]
pub struct LookupFailed;

impl UserLookup {
    /// Looks up users in this directory and caches at most `max_cached` names; 0 turns the cache off.
    ///
    /// The cache of a PostgreSQL directory is trusted only while
    /// [`watch_changes`](Self::watch_changes) runs. That of an SQLite directory is always trusted,
    /// because only this process writes there.
    #[must_use]
    pub fn new(directory: Directory, max_cached: u64) -> Self {
        let cache = (max_cached > 0).then(|| NameCache::new(max_cached));
        #[cfg(feature = "sqlite")]
        if let (Some(cache), Directory::Sqlite(_)) = (&cache, &directory) {
            cache.trust_always();
        }
        let (pending, counters) = (Mutex::default(), LookupCounters::default());
        Self(Arc::new(LookupState { directory, cache, pending, counters }))
    }

    /// Keeps the cache consistent with PostgreSQL until it is dropped.
    pub async fn watch_changes(self) {
        #[cfg(feature = "postgres")]
        if let (Some(cache), Directory::Postgres(pool)) = (&self.0.cache, &self.0.directory) {
            listener::watch_changes(cache, pool).await;
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.0.directory
    }

    fn cached_name(&self, id: UserId) -> Option<Arc<str>> {
        self.0.cache.as_ref()?.get(id)
    }

    /// Looks these users up: in the cache, and all others with one query.
    pub async fn look_up(&self, ids: impl Iterator<Item = UserId>) -> UserNames {
        let mut found = UserNames::default();
        let mut missing = Vec::new();
        for id in ids {
            let name = self.cached_name(id);
            if name.is_none() {
                missing.push(id);
            }
            found.names.push((id, name));
        }
        let counters = &self.0.counters;
        counters.hit.increment((found.names.len() - missing.len()) as u64);
        if missing.is_empty() {
            return found;
        }
        let queried = missing.len() as u64;
        match self.query_names(missing).await {
            Ok(names) => {
                counters.miss.increment(queried);
                for (id, name) in found.names.iter_mut().filter(|(_, name)| name.is_none()) {
                    *name = names.get(id).cloned();
                }
            }
            Err(failed) => {
                counters.failed.increment(queried);
                found.failed = Some(failed);
            }
        }
        found
    }

    /// Queries the names of these users, as they are at the time of this call or later.
    async fn query_names(&self, ids: Vec<UserId>) -> QueryResult {
        let (result, received) = oneshot::channel();
        {
            let mut pending = self.0.pending.lock();
            pending.lookups.push_back((ids, result));
            if pending.running_queries < MAX_QUERIES {
                pending.running_queries += 1;
                tokio::spawn(self.clone().run_queries());
            }
        }
        received.await.unwrap_or(Err(LookupFailed))
    }

    /// Adds the cache's gauges to a scrape.
    pub(crate) fn report_cache(&self, scrape: &mut Scrape) {
        if let Some(cache) = &self.0.cache {
            scrape.add_sample(DIRECTORY_CACHED, &[], cache.len() as f64);
            scrape.add_sample(DIRECTORY_TRUSTED, &[], f64::from(u8::from(cache.is_trusted())));
        }
    }

    /// Removes a user that changed from the cache.
    pub fn invalidate_user(&self, id: UserId) {
        if let Some(cache) = &self.0.cache {
            cache.invalidate_user(id);
        }
    }

    /// Runs one query after the other while look-ups are pending.
    async fn run_queries(self) {
        while let Some((ids, waiting)) = self.next_query() {
            let result = self.query_directory(&ids).await;
            for caller in waiting {
                // Sending fails if the caller has given up.
                let _ = caller.send(result.clone());
            }
        }
    }

    /// Takes the ids and the callers of the next query. `None` if no look-up is pending; the calling
    /// task then ends.
    fn next_query(&self) -> Option<(Vec<UserId>, Vec<oneshot::Sender<QueryResult>>)> {
        let mut pending = self.0.pending.lock();
        let (mut all_ids, mut callers) = (Vec::new(), Vec::new());
        while all_ids.len() < MAX_QUERY_IDS
            && let Some((ids, caller)) = pending.lookups.pop_front()
        {
            if !caller.is_closed() {
                all_ids.extend(ids);
                callers.push(caller);
            }
        }
        if callers.is_empty() {
            pending.running_queries -= 1;
            return None;
        }
        all_ids.sort_unstable();
        all_ids.dedup();
        Some((all_ids, callers))
    }

    async fn query_directory(&self, ids: &[UserId]) -> QueryResult {
        let before = self.0.cache.as_ref().map(NameCache::change_counts);
        let users = self.0.directory.find_users(ids).await.map_err(|error| {
            tracing::warn!(%error, "user lookup failed; rejecting sends");
            LookupFailed
        })?;
        let found: HashMap<UserId, Arc<str>> =
            users.into_iter().map(|(id, user)| (id, Arc::from(&*user.name))).collect();
        if let (Some(cache), Some(before)) = (&self.0.cache, &before) {
            cache.insert_found(before, found.iter().map(|(id, name)| (*id, name)));
        }
        Ok(Arc::new(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::UserName;

    fn id(n: i64) -> UserId {
        UserId::new(n).expect("positive")
    }

    async fn names(folder: &tempfile::TempDir, entries: u64) -> (Directory, UserLookup) {
        let directory =
            Directory::open_sqlite(&folder.path().join("users.db")).await.expect("a directory");
        directory.migrate().await.expect("a table");
        (directory.clone(), UserLookup::new(directory, entries))
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_again_when_it_was_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (directory, names) = names(&folder, 10).await;
        assert_eq!(names.cached_name(id(1)), None);
        let found = names.query_names(vec![id(1), id(99)]).await.expect("an answer");
        assert_eq!(found.len(), 1, "nobody has the id 99");
        assert_eq!(names.cached_name(id(1)).as_deref(), Some("Emma"));
        assert_eq!(names.cached_name(id(99)), None);

        let name = UserName::new("Emma Stone").expect("a name");
        directory.put_user(id(1), &name).await.expect("written");
        names.invalidate_user(id(1));
        assert_eq!(names.cached_name(id(1)), None);
        let found = names.query_names(vec![id(1)]).await.expect("an answer");
        assert_eq!(found.get(&id(1)).map(|name| &**name), Some("Emma Stone"));
    }

    #[tokio::test]
    async fn without_a_cache_nothing_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, names) = names(&folder, 0).await;
        names.query_names(vec![id(1)]).await.expect("an answer");
        assert_eq!(names.cached_name(id(1)), None);
    }

    #[tokio::test]
    async fn many_look_ups_at_once_share_few_queries_and_each_is_answered() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, names) = names(&folder, 0).await;
        let lookups = (0..1000).map(|n| names.query_names(vec![id(1 + n % 4)]));
        let answers = futures_util::future::join_all(lookups).await;
        for (n, answer) in (0..).zip(answers) {
            let found = answer.expect("an answer");
            assert!(found.contains_key(&id(1 + n % 4)));
        }
        // The queries end a moment after their answers.
        while names.0.pending.lock().running_queries > 0 {
            tokio::task::yield_now().await;
        }
        assert!(names.0.pending.lock().lookups.is_empty());
    }

    #[tokio::test]
    async fn a_directory_that_is_away_is_an_error_for_all_who_wait_and_not_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let (directory, names) = names(&folder, 10).await;
        directory.close().await;
        let (one, two) =
            tokio::join!(names.query_names(vec![id(1)]), names.query_names(vec![id(2)]));
        assert_eq!((one.err(), two.err()), (Some(LookupFailed), Some(LookupFailed)));
    }
}
