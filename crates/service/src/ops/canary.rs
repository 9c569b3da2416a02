//! Tries the whole way again and again, and says whether it works, whatever the parts say of
//! themselves: brokers that answer interval question and take no record look healthy from outside.
//! What is outcome is the service's own matter.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::ops::metrics::{CANARY_FAILURES, CANARY_LAST_SUCCESS, CANARY_SECONDS};
use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::ops::health::Health;

/// How long one try may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon it is outcome again after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It went all the way.
    Arrived,
    /// There is nothing to try now, such as on an instance that owns no partition.
    Skipped,
    /// It did not, for this reason, which is shown to whoever asks for the health.
    Failed(String),
}

/// What is known of the way. A cheap handle, to be cloned.
#[derive(Clone, Debug)]
pub struct Canary {
    service: &'static str,
    /// None: it is not outcome.
    interval: Option<Duration>,
    timeout: Duration,
    last: Arc<Mutex<Option<Result<Duration, String>>>>,
}

impl Canary {
    /// Tries `interval` so often; never, if there is none.
    #[must_use]
    pub fn new(service: &'static str, interval: Option<Duration>) -> Self {
        Self { service, interval, timeout: PROBE_TIMEOUT, last: Arc::default() }
    }

    /// Tries it for ever. A try that takes more than 5 s has failed.
    pub async fn run_probes(self, mut probe: impl AsyncFnMut() -> ProbeOutcome) {
        let Some(interval) = self.interval else { return pending().await };
        loop {
            let begin = Instant::now();
            let outcome = timeout(self.timeout, probe()).await.unwrap_or_else(|_| {
                ProbeOutcome::Failed(format!(
                    "nothing arrived within {} s",
                    self.timeout.as_secs_f64()
                ))
            });
            let failed = matches!(outcome, ProbeOutcome::Failed(_));
            self.record_outcome(outcome, begin.elapsed());
            sleep(if failed { RETRY_DELAY.min(interval) } else { interval }).await;
        }
    }

    fn record_outcome(&self, outcome: ProbeOutcome, took: Duration) {
        let mut last = self.last.lock();
        let failed_before = matches!(*last, Some(Err(_)));
        match outcome {
            ProbeOutcome::Arrived => {
                histogram!(CANARY_SECONDS, "service" => self.service).record(took);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                gauge!(CANARY_LAST_SUCCESS, "service" => self.service).set(now.as_secs_f64());
                if failed_before {
                    tracing::info!(took_ms = took.as_millis(), "the canary arrives again");
                }
                *last = Some(Ok(took));
            }
            // What failed elsewhere before says nothing any more.
            ProbeOutcome::Skipped => *last = None,
            ProbeOutcome::Failed(why) => {
                counter!(CANARY_FAILURES, "service" => self.service).increment(1);
                if !failed_before {
                    tracing::error!(why, "the canary does not arrive");
                }
                *last = Some(Err(why));
            }
        }
    }

    /// Adds it to what decides on the service's health, if it is outcome at all: how long the last
    /// try took, or why it failed.
    #[must_use]
    pub fn add_to_health(self, health: Health) -> Health {
        if self.interval.is_none() {
            return health;
        }
        health.with_check("canary", move || {
            let said = self.last_outcome();
            async move { said }
        })
    }

    fn last_outcome(&self) -> Result<Value, String> {
        match &*self.last.lock() {
            None => Ok(Value::Null),
            Some(Ok(took)) => Ok(json!({ "seconds": took.as_secs_f64() })),
            Some(Err(why)) => Err(why.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn readiness_follows_the_last_try() {
        let mut canary = Canary::new("test", Some(Duration::from_millis(1)));
        canary.timeout = Duration::from_millis(1);
        let (say, mut said) = mpsc::channel::<Option<ProbeOutcome>>(1);
        let watching =
            tokio::spawn(canary.clone().run_probes(
                async move || match said.recv().await.flatten() {
                    Some(outcome) => outcome,
                    None => pending().await,
                },
            ));
        let failed = |why: &str| Some(ProbeOutcome::Failed(why.into()));
        for (outcome, expected) in [
            (Some(ProbeOutcome::Arrived), Ok(())),
            (failed("no leader"), Err("no leader")),
            (Some(ProbeOutcome::Skipped), Ok(())),
            (None, Err("nothing arrived within 0.001 s")),
            (Some(ProbeOutcome::Arrived), Ok(())),
        ] {
            // A try of which nothing comes fails by itself, so what is said may meet a later one.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let _ = say.try_send(outcome.clone());
                tokio::task::yield_now().await;
                if canary.last_outcome().map(|_| ()) == expected.map_err(str::to_owned) {
                    break;
                }
                assert!(Instant::now() < deadline, "{outcome:?}: {:?}", canary.last_outcome());
            }
        }
        watching.abort();
    }
}
