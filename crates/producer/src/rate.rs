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
    /// none. `None` without a limit.
    pub(crate) fn take_tokens(
        &self,
        from: UserId,
        count: usize,
        bytes: usize,
    ) -> Result<Option<RateState>, RateLimited> {
        let tokens = count.saturating_mul(bytes.div_ceil(BYTES_PER_TOKEN).max(1));
        let taken = self.0.take_tokens(&from, u32::try_from(tokens).unwrap_or(u32::MAX));
        let state = taken.map_err(|RateExceeded { retry_after, rate, burst }| {
            counter!(RATE_LIMITED, "service" => "producer").increment(1);
            RateLimited { retry_after, rate, burst }
        })?;
        Ok(state.map(|BucketState { rate, burst, left, full_in_s }| RateState {
            rate,
            burst,
            left,
            reset_seconds: full_in_s.into(),
        }))
    }

    /// See [`RateLimits::evict_idle`].
    pub(crate) async fn evict_idle(self) {
        self.0.evict_idle().await;
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
        let limits = SenderLimits::new(10, 25);
        let user = UserId::new(1).expect("positive");
        let state = limits.take_tokens(user, 5, 100).expect("within the burst").expect("a limit");
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
        let refused = limits.take_tokens(user, 25, 100).expect_err("beyond the rest");
        let response = axum::response::IntoResponse::into_response(Problem::from(refused));
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let told = response.headers()["ratelimit"].to_str().expect("text").to_owned();
        assert!(told.starts_with("\"sender\";r=0;t="), "{told}");
    }
}
