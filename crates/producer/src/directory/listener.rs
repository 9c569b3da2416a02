//! Listens for PostgreSQL's notifications of changed users and invalidates them in the cache. Trusts
//! the cache only while notifications are certain to arrive: the triggers exist, and a notification
//! of this process has come back through the connection within the last [`TRUST_TTL`].

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

use super::{
    cache::NameCache,
    error::{ANSWER_TIMEOUT, with_timeout},
};

/// The channel to which the triggers of migration 0002 send ids of changed users.
const CHANNEL: &str = "users_changed";
/// Interval and timeout of the pings on the connection.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the cache is trusted after the start of a ping. If the connection is lost silently, a
/// cached name is stale for at most this time.
const TRUST_TTL: Duration = Duration::from_secs(5);
const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Sends a notification to this process, and returns true if both triggers exist and are enabled. A
/// pooler in transaction mode loses the notification, so the cache is never trusted behind one.
const PING: &str = "SELECT (SELECT count(*) = 2 FROM pg_trigger \
     WHERE tgrelid = to_regclass('users') AND tgname IN ('users_changed', 'users_truncated') \
     AND tgenabled IN ('O', 'A')) FROM pg_notify($1, $2)";

/// Invalidates changed users in the cache, and reconnects, until it is dropped.
pub(super) async fn watch_changes(cache: &NameCache, pool: &PgPool) {
    let mut warned = false;
    loop {
        let Err(error) = listen_for_changes(cache, pool, &mut warned).await;
        if !warned {
            tracing::warn!(%error, "cannot listen for changes of users; the name cache is off until reconnected");
            warned = true;
        }
        sleep(RECONNECT_DELAY).await;
    }
}

/// Revokes the cache's trust when the listener ends, for any reason.
struct RevokeOnDrop<'c>(&'c NameCache);

impl Drop for RevokeOnDrop<'_> {
    fn drop(&mut self) {
        self.0.revoke_trust();
    }
}

/// Listens until the connection fails. `warned` is true once the log has a warning that the cache is
/// off.
async fn listen_for_changes(
    cache: &NameCache,
    pool: &PgPool,
    warned: &mut bool,
) -> Result<Infallible, sqlx::Error> {
    let _revoke = RevokeOnDrop(cache);
    // A separate pool: a listener that hangs must not occupy a connection of the look-ups.
    let own = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(ANSWER_TIMEOUT)
        .connect_lazy_with(pool.connect_options().as_ref().clone());
    let mut listener = with_timeout(PgListener::connect_with(&own)).await?;
    // A lost connection has lost notifications, so reconnecting silently would hide changes.
    listener.eager_reconnect(false);
    with_timeout(listener.listen(CHANNEL)).await?;
    let ours = format!("?{}", Uuid::now_v7());
    let mut trusted = false;
    loop {
        let ping_start = Instant::now();
        let ping = sqlx::query_scalar(PING).bind(CHANNEL).bind(&ours).fetch_one(&mut listener);
        let deadline = ping_start + PING_TIMEOUT;
        let answer = timeout_at(deadline.into(), ping).await;
        let triggers: bool = answer.unwrap_or_else(|_| Err(timed_out()))?;
        loop {
            let payload = next_payload(&mut listener, deadline).await?.ok_or_else(timed_out)?;
            if payload == ours {
                break;
            }
            apply_payload(cache, &payload);
        }
        if triggers && !trusted {
            // Earlier changes were not notified.
            cache.invalidate_all();
            tracing::debug!("listening for changes of users; names are cached");
            *warned = false;
        }
        if triggers {
            cache.trust_until(ping_start + TRUST_TTL);
        } else {
            cache.revoke_trust();
            if !*warned {
                tracing::warn!(
                    "the users table has no triggers that notify of changes, so the name cache is off: \
                     run `producer migrate`"
                );
                *warned = true;
            }
        }
        trusted = triggers;
        while let Some(payload) = next_payload(&mut listener, ping_start + PING_INTERVAL).await? {
            apply_payload(cache, &payload);
        }
    }
}

/// Returns the payload of the next notification, or `None` if none arrives until `until`.
async fn next_payload(
    listener: &mut PgListener,
    until: Instant,
) -> Result<Option<String>, sqlx::Error> {
    let Ok(received) = timeout_at(until.into(), listener.try_recv()).await else { return Ok(None) };
    let lost = || sqlx::Error::Io(ErrorKind::ConnectionReset.into());
    received?.ok_or_else(lost).map(|notification| Some(notification.payload().to_owned()))
}

fn timed_out() -> sqlx::Error {
    sqlx::Error::Io(ErrorKind::TimedOut.into())
}

fn apply_payload(cache: &NameCache, payload: &str) {
    match payload.parse::<UserId>() {
        Ok(id) => cache.invalidate_user(id),
        // The ping of another producer.
        Err(_) if payload.starts_with('?') => {}
        // `*` (all users), or an unknown payload.
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
