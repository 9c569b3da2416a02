//! The rate limit of each sender.

use std::time::Duration;

use crate::metrics::RATE_LIMITED;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use metrics::counter;
use model::UserId;
use service::{
    problem::Problem,
    server::rate::{BucketState, RateExceeded, RateLimits},
};

/// A larger notification counts as several: one for each of this many bytes, or part of them.
const BYTES_PER_TOKEN: usize = 4 << 10;

/// `RateLimit-Limit`, `-Remaining` and `-Reset`
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/07/>).
pub(crate) const HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
];

/// The buckets of all senders. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SenderLimits(RateLimits<UserId>);

#[derive(Debug)]
pub(crate) struct RateLimited {
    /// When to retry. `None` if the request exceeds the burst and can never be sent.
    pub(crate) retry_after: Option<Duration>,
    rate: u32,
    burst: u32,
}

impl SenderLimits {
    /// Limits each sender to `rate` notifications per second and `burst` at once; no limit if `rate`
    /// is 0.
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        Self(RateLimits::new(rate, burst))
    }

    /// Takes tokens for `count` notifications of this many bytes from the sender's bucket, all or
    /// none. Returns the values of [`HEADERS`]: limit, remaining, reset in seconds; `None` without a
    /// limit.
    pub(crate) fn take_tokens(
        &self,
        from: UserId,
        count: usize,
        bytes: usize,
    ) -> Result<Option<[u32; 3]>, RateLimited> {
        let tokens = count.saturating_mul(bytes.div_ceil(BYTES_PER_TOKEN).max(1));
        let taken = self.0.take_tokens(&from, u32::try_from(tokens).unwrap_or(u32::MAX));
        let state = taken.map_err(|RateExceeded { retry_after, rate, burst }| {
            counter!(RATE_LIMITED, "service" => "producer").increment(1);
            RateLimited { retry_after, rate, burst }
        })?;
        Ok(state.map(|BucketState { burst, left, full_in_s }| [burst, left, full_in_s]))
    }

    /// See [`RateLimits::evict_idle`].
    pub(crate) async fn evict_idle(self) {
        self.0.evict_idle().await;
    }
}

pub(crate) fn to_headers(values: [u32; 3]) -> HeaderMap {
    HEADERS.into_iter().zip(values.map(HeaderValue::from)).collect()
}

impl From<RateLimited> for Problem {
    fn from(RateLimited { retry_after, rate, burst }: RateLimited) -> Self {
        let Some(wait) = retry_after else {
            let why = format!(
                "must name fewer recipients: the sender may send {burst} notifications at once, and \
                 one larger than {BYTES_PER_TOKEN} bytes counts as several"
            );
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
