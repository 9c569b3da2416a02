//! What PostgreSQL says of changed users, so that the cache forgets them. The cache is trusted only
//! while this is certain to hear: the trigger is there, and the connection has carried a
//! notification of our own there and back within the last [`LEASE`].

use std::{
    convert::Infallible,
    io::ErrorKind,
    time::{Duration, Instant},
};

use model::UserId;
use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::time::{sleep, timeout_at};
use uuid::Uuid;

use super::{ANSWER_TIMEOUT, cache::NameCache, with_timeout};

/// Where migration 0002 says who was changed.
const CHANNEL: &str = "users_changed";
/// How often the connection is tried, and how long that may take.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_DEADLINE: Duration = Duration::from_secs(2);
/// How long the cache is trusted after a try began: how old a name can become at the most, when
/// the connection is lost without a sign.
const TRUST_TTL: Duration = Duration::from_secs(5);
/// How long to wait before a lost connection is made again.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Sends ourselves a notification, as whoever changes a user would, and says whether there is
/// somebody to do so for others: both triggers, and not turned off. A pooler that shares one
/// connection among many clients loses notifications, and so never gets our trust.
const PING: &str = "SELECT (SELECT count(*) = 2 FROM pg_trigger \
     WHERE tgrelid = to_regclass('users') AND tgname IN ('users_changed', 'users_truncated') \
     AND tgenabled IN ('O', 'A')) FROM pg_notify($1, $2)";

/// Keeps the cache in step, for as long as it is polled.
pub(super) async fn watch_changes(cache: &NameCache, pool: &PgPool) {
    let mut said = false;
    loop {
        let distrust = RevokeOnDrop(cache);
        let Err(error) = listen_for_changes(&distrust, pool, &mut said).await;
        drop(distrust);
        if !said {
            tracing::warn!(%error, "cannot hear of changed users; each is looked up until we can");
            said = true;
        }
        sleep(RECONNECT_DELAY).await;
    }
}

/// However listening ends, the cache is not trusted after it.
struct RevokeOnDrop<'c>(&'c NameCache);

impl Drop for RevokeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.revoke_trust();
    }
}

/// Listens until the connection fails. `said` is whether a person knows that we do not hear.
async fn listen_for_changes(
    distrust: &RevokeOnDrop<'_>,
    pool: &PgPool,
    said: &mut bool,
) -> Result<Infallible, sqlx::Error> {
    let cache = distrust.0;
    // A connection of its own: one that hangs must not take a place among those that look up.
    let own = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ANSWER_TIMEOUT)
        .connect_lazy_with(pool.connect_options().as_ref().clone());
    let mut listener = with_timeout(PgListener::connect_with(&own)).await?;
    // A connection that was lost has lost notifications: we begin anew instead.
    listener.eager_reconnect(false);
    with_timeout(listener.listen(CHANNEL)).await?;
    let ours = format!("?{}", Uuid::now_v7());
    let mut trusted = false;
    loop {
        let asked = Instant::now();
        let ping = sqlx::query_scalar(PING).bind(CHANNEL).bind(&ours).fetch_one(&mut listener);
        let triggers: bool = await_until(asked + PING_DEADLINE, ping).await?;
        loop {
            let payload =
                next_payload(&mut listener, asked + PING_DEADLINE).await?.ok_or_else(timed_out)?;
            if payload == ours {
                break;
            }
            apply_payload(cache, &payload);
        }
        if triggers && !trusted {
            // What changed until now was not heard.
            cache.invalidate_all();
            tracing::debug!("changed users are heard of; their names are cached");
            *said = false;
        }
        if triggers {
            cache.trust_until(asked + TRUST_TTL);
        } else {
            cache.revoke_trust();
            if !*said {
                tracing::warn!(
                    "the users' table does not say who is changed, so each is looked up: \
                     run `producer migrate`"
                );
                *said = true;
            }
        }
        trusted = triggers;
        while let Some(payload) = next_payload(&mut listener, asked + PING_INTERVAL).await? {
            apply_payload(cache, &payload);
        }
    }
}

/// The next notification; none until then.
async fn next_payload(
    listener: &mut PgListener,
    until: Instant,
) -> Result<Option<String>, sqlx::Error> {
    match timeout_at(until.into(), listener.try_recv()).await {
        Err(_) => Ok(None),
        Ok(Ok(Some(notification))) => Ok(Some(notification.payload().to_owned())),
        Ok(Ok(None)) => Err(sqlx::Error::Io(ErrorKind::ConnectionReset.into())),
        Ok(Err(error)) => Err(error),
    }
}

async fn await_until<T>(
    until: Instant,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout_at(until.into(), answer).await.unwrap_or_else(|_| Err(timed_out()))
}

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(ErrorKind::TimedOut.into())
}

fn apply_payload(cache: &NameCache, payload: &str) {
    match payload.parse::<UserId>() {
        Ok(id) => cache.invalidate_user(id),
        // Another producer tries its connection.
        Err(_) if payload.starts_with('?') => {}
        // All of them, or something that we do not know.
        Err(_) => cache.invalidate_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notification_makes_one_name_be_forgotten_or_all_and_a_ping_none() {
        let cache = NameCache::new(10);
        cache.trust_always();
        let fill = || {
            for n in [1, 2] {
                let id = UserId::new(n).expect("positive");
                cache.insert_found(&cache.change_counts(), [(id, &"x".into())]);
            }
        };
        let known = || [1, 2].map(|n| cache.get(UserId::new(n).expect("positive")).is_some());
        for (payload, expected) in [
            ("1", [false, true]),
            ("?0190", [true, true]),
            ("*", [false, false]),
            ("what?", [false, false]),
        ] {
            fill();
            apply_payload(&cache, payload);
            assert_eq!(known(), expected, "{payload}");
        }
    }
}
