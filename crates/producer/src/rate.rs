//! The rate limit of each sender: a token bucket (GCRA, by `governor`).

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crate::metrics::RATE_LIMITED;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use metrics::counter;
use model::UserId;
use service::problem::Problem;

/// How often full buckets are removed.
const EVICT_INTERVAL: Duration = Duration::from_secs(10);

/// `RateLimit-Limit`, `-Remaining` and `-Reset`
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/07/>).
pub(crate) const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
];

type Buckets =
    RateLimiter<UserId, DashMapStateStore<UserId>, DefaultClock, StateInformationMiddleware>;

/// The buckets of all senders; `None` if there is no limit. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SenderLimits(Option<Arc<Limiter>>);

struct Limiter {
    buckets: Buckets,
    /// Notifications per second.
    rate: u32,
    /// Notifications at once after a pause.
    burst: u32,
}

#[derive(Debug)]
pub(crate) struct RateLimited {
    /// When to retry. `None` if the request exceeds the burst and can never be sent.
    pub(crate) retry_after: Option<Duration>,
    rate: u32,
    burst: u32,
}

impl SenderLimits {
    /// Limits each sender to `rate` notifications per second and `burst` (default: ten seconds' worth)
    /// at once; no limit if `rate` is 0.
    pub(crate) fn new(rate: u32, burst: Option<u32>) -> Self {
        let Some(per_second) = NonZeroU32::new(rate) else { return Self(None) };
        let default_burst = NonZeroU32::new(rate.saturating_mul(10)).unwrap_or(per_second);
        let burst = burst.and_then(NonZeroU32::new).unwrap_or(default_burst);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let buckets = RateLimiter::dashmap(quota).with_middleware();
        Self(Some(Arc::new(Limiter { buckets, rate, burst: burst.get() })))
    }

    /// Takes `count` tokens from the sender's bucket, all or none. Returns the values of [`HEADERS`]:
    /// limit, remaining, reset in seconds; `None` without a limit.
    pub(crate) fn take_tokens(
        &self,
        from: UserId,
        count: usize,
    ) -> Result<Option<[u32; 3]>, RateLimited> {
        let Some(limiter) = &self.0 else { return Ok(None) };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let Some(count) = NonZeroU32::new(count) else { return Ok(None) };
        let limited = |retry_after| {
            counter!(RATE_LIMITED, "service" => "producer").increment(1);
            Err(RateLimited { retry_after, rate: limiter.rate, burst: limiter.burst })
        };
        match limiter.buckets.check_key_n(&from, count) {
            Ok(Ok(state)) => {
                let left = state.remaining_burst_capacity();
                let until_full = limiter.burst.saturating_sub(left).div_ceil(limiter.rate);
                Ok(Some([limiter.burst, left, until_full]))
            }
            Ok(Err(until)) => limited(Some(until.wait_time_from(DefaultClock::default().now()))),
            Err(_) => limited(None),
        }
    }

    /// Periodically removes full buckets, which equal new ones.
    pub(crate) async fn evict_idle(self) {
        let Some(limiter) = self.0 else { return std::future::pending().await };
        loop {
            tokio::time::sleep(EVICT_INTERVAL).await;
            limiter.buckets.retain_recent();
            limiter.buckets.shrink_to_fit();
        }
    }
}

pub(crate) fn to_headers(values: [u32; 3]) -> HeaderMap {
    HEADERS.into_iter().zip(values.map(HeaderValue::from)).collect()
}

impl From<RateLimited> for Problem {
    fn from(RateLimited { retry_after, rate, burst }: RateLimited) -> Self {
        let Some(wait) = retry_after else {
            let why = format!("must name at most {burst} recipients, the sender's limit at once");
            return Self::bad_request("to_id", why).with("limit", burst);
        };
        let message = format!(
            "Rate limit exceeded: this sender may send {rate} notifications per second, {burst} at once"
        );
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(wait);
        let values = [u64::from(burst), 0, wait.as_secs().saturating_add(1)];
        HEADERS
            .into_iter()
            .zip(values)
            .fold(problem, |problem, (name, value)| problem.header(name, value.into()))
    }
}
