//! Rates: a token bucket for each key (GCRA, by `governor`).

use std::{hash::Hash, num::NonZeroU32, sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

/// How often full buckets are removed.
const EVICT_INTERVAL: Duration = Duration::from_secs(10);

type Buckets<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock, StateInformationMiddleware>;

/// The buckets of all keys, or no limit. A cheap handle, to be cloned.
#[derive(Debug)]
pub struct RateLimits<K: Hash + Eq + Clone>(Option<Arc<Limiter<K>>>);

#[derive(Debug)]
struct Limiter<K: Hash + Eq + Clone> {
    buckets: Buckets<K>,
    rate: u32,
    burst: u32,
}

/// A bucket after tokens were taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketState {
    /// Tokens that are added each second.
    pub rate: u32,
    /// Tokens of a full bucket.
    pub burst: u32,
    /// Tokens in it.
    pub left: u32,
    /// Seconds until it is full.
    pub full_in_s: u32,
}

/// A bucket has fewer tokens than were asked for; none was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateExceeded {
    /// When the bucket will have them. `None` if they are more than it can hold.
    pub retry_after: Option<Duration>,
    /// Tokens that a bucket gets each second.
    pub rate: u32,
    /// Tokens of a full bucket.
    pub burst: u32,
}

impl<K: Hash + Eq + Clone> RateLimits<K> {
    /// Gives each key `rate` tokens a second and `burst` at once; no limit if `rate` is 0.
    #[must_use]
    pub fn new(rate: u32, burst: u32) -> Self {
        let Some(per_second) = NonZeroU32::new(rate) else { return Self(None) };
        let burst = NonZeroU32::new(burst).unwrap_or(per_second);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let buckets = RateLimiter::dashmap(quota).with_middleware();
        Self(Some(Arc::new(Limiter { buckets, rate, burst: burst.get() })))
    }

    /// Takes `count` tokens from the bucket of this key, all or none. Returns its state; `None`
    /// without a limit.
    pub fn take_tokens(&self, key: &K, count: u32) -> Result<Option<BucketState>, RateExceeded> {
        let (Some(limiter), Some(count)) = (&self.0, NonZeroU32::new(count)) else {
            return Ok(None);
        };
        let Limiter { buckets, rate, burst } = &**limiter;
        let exceeded = |retry_after| Err(RateExceeded { retry_after, rate: *rate, burst: *burst });
        match buckets.check_key_n(key, count) {
            Ok(Ok(state)) => {
                let left = state.remaining_burst_capacity();
                let full_in_s = burst.saturating_sub(left).div_ceil(*rate);
                Ok(Some(BucketState { rate: *rate, burst: *burst, left, full_in_s }))
            }
            Ok(Err(until)) => exceeded(Some(until.wait_time_from(DefaultClock::default().now()))),
            Err(_) => exceeded(None),
        }
    }

    /// Removes full buckets at an interval, for ever. They equal new ones.
    pub async fn evict_idle(self) {
        let Some(limiter) = self.0 else { return std::future::pending().await };
        loop {
            tokio::time::sleep(EVICT_INTERVAL).await;
            limiter.buckets.retain_recent();
            limiter.buckets.shrink_to_fit();
        }
    }
}

impl<K: Hash + Eq + Clone> Clone for RateLimits<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
