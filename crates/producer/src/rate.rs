//! How much one sender may send: a bucket each that fills at a steady rate (GCRA, by `governor`).

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crate::metrics::RATE_LIMITED;
use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponseParts, ResponseParts},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};
use metrics::counter;
use model::UserId;
use service::problem::Problem;

/// How often senders whose bucket is full again are forgotten.
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

/// The senders' buckets. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct SenderLimits(Option<Arc<Limiter>>);

struct Limiter {
    buckets: Buckets,
    /// Notifications a second, and at once.
    rate: u32,
    burst: u32,
}

/// What a sender may still send, as headers of the answer; nothing, where there is no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance(Option<(u32, u32, u32)>);

/// A sender has sent too much.
#[derive(Debug)]
pub(crate) struct RateLimited {
    /// When what was asked for may be sent; never, where none is given.
    pub(crate) retry_after: Option<Duration>,
    shared: Arc<Limiter>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} a second, {} at once", self.rate, self.burst)
    }
}

impl SenderLimits {
    /// So many notifications a second, and so many at once after a pause; no limit, if `rate` is 0.
    #[must_use]
    pub fn new(rate: u32, burst: Option<u32>) -> Self {
        let Some(per_second) = NonZeroU32::new(rate) else { return Self(None) };
        let burst = burst.and_then(NonZeroU32::new).unwrap_or(per_second.saturating_mul(TEN));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let buckets = RateLimiter::dashmap(quota).with_middleware();
        Self(Some(Arc::new(Limiter { buckets, rate, burst: burst.get() })))
    }

    /// Takes so many out of the sender's bucket, or nothing.
    pub(crate) fn take_tokens(&self, from: UserId, count: usize) -> Result<Allowance, RateLimited> {
        let Some(shared) = &self.0 else { return Ok(Allowance(None)) };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let Some(count) = NonZeroU32::new(count) else { return Ok(Allowance(None)) };
        let refused = |retry_after| {
            counter!(RATE_LIMITED, "service" => "producer").increment(1);
            Err(RateLimited { retry_after, shared: Arc::clone(shared) })
        };
        match shared.buckets.check_key_n(&from, count) {
            Ok(Ok(state)) => {
                let left = state.remaining_burst_capacity();
                Ok(Allowance(Some((shared.burst, left, shared.seconds_until_full(left)))))
            }
            Ok(Err(until)) => refused(Some(until.wait_time_from(DefaultClock::default().now()))),
            Err(_) => refused(None),
        }
    }

    /// Forgets senders whose bucket is full again, for ever: they are as if they had never come.
    pub(crate) async fn evict_idle(self) {
        let Some(shared) = self.0 else { return std::future::pending().await };
        loop {
            tokio::time::sleep(EVICT_INTERVAL).await;
            shared.buckets.retain_recent();
            shared.buckets.shrink_to_fit();
        }
    }
}

const TEN: NonZeroU32 = NonZeroU32::new(10).expect("not zero");

impl Limiter {
    /// In how many seconds a bucket with so much left is full.
    fn seconds_until_full(&self, left: u32) -> u32 {
        self.burst.saturating_sub(left).div_ceil(self.rate)
    }
}

impl From<RateLimited> for Problem {
    fn from(RateLimited { retry_after, shared }: RateLimited) -> Self {
        let Limiter { rate, burst, .. } = *shared;
        let Some(wait) = retry_after else {
            let why = format!("are more than a sender may reach at once, which is {burst}");
            return Self::bad_request("to_id", why).with("limit", burst);
        };
        let message = format!(
            "This sender has sent too much: {rate} notifications a second may be sent, {burst} at once"
        );
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(wait);
        let seconds = wait.as_secs().saturating_add(1);
        let values = [u64::from(burst), 0, seconds];
        HEADERS
            .into_iter()
            .zip(values)
            .fold(problem, |problem, (name, value)| problem.header(name, HeaderValue::from(value)))
    }
}

impl IntoResponseParts for Allowance {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        if let Some((limit, left, reset)) = self.0 {
            for (name, value) in HEADERS.into_iter().zip([limit, left, reset]) {
                parts.headers_mut().insert(name, HeaderValue::from(value));
            }
        }
        Ok(parts)
    }
}
