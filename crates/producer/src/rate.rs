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

/// `RateLimit-Policy` and `RateLimit`
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/10/>), and the three fields
/// of its version 07, which more clients know.
pub(crate) const HEADERS: [HeaderName; 5] = [
    HeaderName::from_static("ratelimit-policy"),
    HeaderName::from_static("ratelimit"),
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

    /// Takes `count` tokens from the sender's bucket, all or none. `None` without a limit.
    pub(crate) fn take_tokens(
        &self,
        from: UserId,
        count: usize,
    ) -> Result<Option<RateState>, RateLimited> {
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
                let reset_seconds = limiter.burst.saturating_sub(left).div_ceil(limiter.rate);
                let (rate, burst) = (limiter.rate, limiter.burst);
                Ok(Some(RateState { rate, burst, left, reset_seconds: reset_seconds.into() }))
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

/// A sender's bucket, as the response tells it.
#[derive(Debug)]
pub(crate) struct RateState {
    rate: u32,
    burst: u32,
    /// Notifications that the sender may send at once.
    left: u32,
    /// Time until the bucket is full again.
    reset_seconds: u64,
}

impl RateState {
    /// The values of [`HEADERS`].
    fn to_values(&self) -> [HeaderValue; 5] {
        let Self { rate, burst, left, reset_seconds } = self;
        // An empty bucket is full again after this time: the draft's window.
        let window = burst.div_ceil(*rate);
        let text = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        [
            text(format!("\"sender\";q={burst};w={window}")),
            text(format!("\"sender\";r={left};t={reset_seconds}")),
            (*burst).into(),
            (*left).into(),
            (*reset_seconds).into(),
        ]
    }

    pub(crate) fn to_headers(&self) -> HeaderMap {
        HEADERS.into_iter().zip(self.to_values()).collect()
    }
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
        let reset_seconds = wait.as_secs().saturating_add(1);
        let state = RateState { rate, burst, left: 0, reset_seconds };
        HEADERS
            .into_iter()
            .zip(state.to_values())
            .fold(problem, |problem, (name, value)| problem.header(name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_told_of_its_limit_in_the_fields_of_both_drafts() {
        let limits = SenderLimits::new(10, Some(25));
        let user = UserId::new(1).expect("positive");
        let state = limits.take_tokens(user, 5).expect("within the burst").expect("a limit");
        let headers = state.to_headers();
        for (name, value) in [
            ("ratelimit-policy", "\"sender\";q=25;w=3"),
            ("ratelimit", "\"sender\";r=20;t=1"),
            ("ratelimit-limit", "25"),
            ("ratelimit-remaining", "20"),
            ("ratelimit-reset", "1"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        let refused = limits.take_tokens(user, 25).expect_err("beyond the rest");
        let response = axum::response::IntoResponse::into_response(Problem::from(refused));
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let told = response.headers()["ratelimit"].to_str().expect("text").to_owned();
        assert!(told.starts_with("\"sender\";r=0;t="), "{told}");
    }
}
