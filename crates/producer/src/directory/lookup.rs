//! Who is called what, for those who send: from the cache where that is trusted, and otherwise by
//! as few queries as possible. Look-ups that come while others run wait for one query of their own
//! all together.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use model::{User, UserId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Directory, cache::NameCache, listener};
use crate::metrics::LookupCounters;

/// How many queries may run at the same time.
const MAX_QUERIES: usize = 4;
/// How many ids are enough for one query: as many as a single send may have.
const MAX_QUERY_IDS: usize = 10_000;

/// The names of users. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct UserLookup(Arc<LookupState>);

struct LookupState {
    directory: Directory,
    /// None where it is turned off.
    cache: Option<NameCache>,
    waiting: Mutex<PendingLookups>,
    lookups: LookupCounters,
}

/// Look-ups that no query has begun for.
#[derive(Default)]
struct PendingLookups {
    lookups: VecDeque<(Vec<UserId>, oneshot::Sender<QueryResult>)>,
    queries: usize,
}

type QueryResult = Result<Arc<HashMap<UserId, Arc<str>>>, LookupFailed>;

/// Some users, by their ids.
#[derive(Debug, Default)]
pub struct UserNames {
    names: HashMap<UserId, Arc<str>>,
    /// Why somebody may be missing who exists.
    away: Option<LookupFailed>,
}

impl UserNames {
    /// This user; none where there is none with this id.
    ///
    /// # Errors
    /// [`Away`], when that could not be found out.
    pub fn get(&self, id: UserId) -> Result<Option<User<'_>>, LookupFailed> {
        match (self.names.get(&id), self.away) {
            (Some(name), _) => Ok(Some(User { id, name: Cow::Borrowed(name) })),
            (None, None) => Ok(None),
            (None, Some(away)) => Err(away),
        }
    }
}

/// The directory does not answer. Why, is logged where it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the user directory does not answer")]
pub struct LookupFailed;

impl UserLookup {
    /// Of the users in this directory, with at most `entries` in the cache; 0: no cache.
    ///
    /// Of PostgreSQL the cache is trusted only while [`watch`](Self::watch) runs; of SQLite always,
    /// because nobody else writes there.
    #[must_use]
    pub fn new(directory: Directory, entries: u64) -> Self {
        let cache = (entries > 0).then(|| NameCache::new(entries));
        if let (Some(cache), Directory::Sqlite(_)) = (&cache, &directory) {
            cache.trust_always();
        }
        let (waiting, lookups) = (Mutex::default(), LookupCounters::default());
        Self(Arc::new(LookupState { directory, cache, waiting, lookups }))
    }

    /// Keeps the cache in step with PostgreSQL, until it is dropped.
    pub async fn watch_changes(self) {
        if let (Some(cache), Directory::Postgres(pool)) = (&self.0.cache, &self.0.directory) {
            listener::watch_changes(cache, pool).await;
        }
    }

    /// This user's name, if it can be told at once.
    fn cached_name(&self, id: UserId) -> Option<Arc<str>> {
        self.0.cache.as_ref()?.get(id)
    }

    /// These users: from the cache, and those who are not in it by one query.
    pub async fn look_up(&self, ids: impl Iterator<Item = UserId>) -> UserNames {
        let mut people = UserNames::default();
        let mut missing = Vec::new();
        for id in ids {
            if people.names.contains_key(&id) {
                continue;
            }
            match self.cached_name(id) {
                Some(name) => {
                    people.names.insert(id, name);
                }
                None => missing.push(id),
            }
        }
        let lookups = &self.0.lookups;
        lookups.hit.increment(people.names.len() as u64);
        if !missing.is_empty() {
            let asked = missing.len() as u64;
            match self.query_names(missing.clone()).await {
                Ok(found) => {
                    lookups.miss.increment(asked);
                    people.names.extend(
                        missing.iter().filter_map(|id| Some((*id, Arc::clone(found.get(id)?)))),
                    );
                }
                Err(away) => {
                    lookups.failed.increment(asked);
                    people.away = Some(away);
                }
            }
        }
        people
    }

    /// The names of those of these users that exist, by one query. Never older than this call.
    ///
    /// # Errors
    /// [`Away`], when the directory does not answer in time.
    async fn query_names(
        &self,
        ids: Vec<UserId>,
    ) -> Result<Arc<HashMap<UserId, Arc<str>>>, LookupFailed> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.0.waiting.lock();
            waiting.lookups.push_back((ids, answer));
            if waiting.queries < MAX_QUERIES {
                waiting.queries += 1;
                tokio::spawn(self.clone().run_queries());
            }
        }
        answered.await.unwrap_or(Err(LookupFailed))
    }

    /// How many names the cache holds, and whether it is trusted now; none where there is no cache.
    pub(crate) fn cache_state(&self) -> Option<(u64, bool)> {
        self.0.cache.as_ref().map(|cache| (cache.len(), cache.is_trusted()))
    }

    /// This user was changed: nobody is to be told the name that they had.
    pub fn invalidate_user(&self, id: UserId) {
        if let Some(cache) = &self.0.cache {
            cache.invalidate_user(id);
        }
    }

    /// Asks the directory for as long as somebody waits.
    async fn run_queries(self) {
        while let Some((ids, waiting)) = self.next_query() {
            let found = self.query_directory(&ids).await;
            for answer in waiting {
                // Whoever is not there any more has given up.
                let _ = answer.send(found.clone());
            }
        }
    }

    /// What the next query is for; none, and this one has ended, when nobody waits.
    fn next_query(&self) -> Option<(Vec<UserId>, Vec<oneshot::Sender<QueryResult>>)> {
        let mut waiting = self.0.waiting.lock();
        let (mut all, mut answers) = (Vec::new(), Vec::new());
        while all.len() < MAX_QUERY_IDS
            && let Some((ids, answer)) = waiting.lookups.pop_front()
        {
            if !answer.is_closed() {
                all.extend(ids);
                answers.push(answer);
            }
        }
        if answers.is_empty() {
            waiting.queries -= 1;
            return None;
        }
        all.sort_unstable();
        all.dedup();
        Some((all, answers))
    }

    async fn query_directory(&self, ids: &[UserId]) -> QueryResult {
        let before = self.0.cache.as_ref().map(NameCache::change_counts);
        let users = self.0.directory.find_users(ids).await.map_err(|error| {
            tracing::warn!(%error, "sends are refused");
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
        while names.0.waiting.lock().queries > 0 {
            tokio::task::yield_now().await;
        }
        assert!(names.0.waiting.lock().lookups.is_empty());
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
