//! The canary: probes the whole path of a notification at an interval. Brokers that answer metadata
//! requests but accept no records look healthy otherwise. Services supply the probe.

use std::{
    future::{pending, ready},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::ops::{
    health::Health,
    metrics::{CANARY_FAILURES, CANARY_LAST_SUCCESS, CANARY_SECONDS},
};

/// Bounds one probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay between a failed probe and the next.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The outcome of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The record arrived.
    Arrived,
    /// Nothing to probe, such as on an instance without partitions.
    Skipped,
    /// The probe failed, for this reason, which `/readyz` shows.
    Failed(String),
}

/// The canary's last outcome. A cheap handle, to be cloned.
#[derive(Clone, Debug)]
pub struct Canary {
    service: &'static str,
    /// `None` if the canary is off.
    interval: Option<Duration>,
    timeout: Duration,
    last: Arc<Mutex<Option<Result<Duration, String>>>>,
}

impl Canary {
    /// Probes every `interval`; never, if it is `None`.
    #[must_use]
    pub fn new(service: &'static str, interval: Option<Duration>) -> Self {
        Self { service, interval, timeout: PROBE_TIMEOUT, last: Arc::default() }
    }

    /// Runs `probe` for ever. A probe that takes longer than 5 s has failed.
    pub async fn run_probes(self, mut probe: impl AsyncFnMut() -> ProbeOutcome) {
        let Some(interval) = self.interval else { return pending().await };
        loop {
            let begin = Instant::now();
            let outcome = timeout(self.timeout, probe()).await.unwrap_or_else(|_| {
                let seconds = self.timeout.as_secs_f64();
                ProbeOutcome::Failed(format!("nothing arrived within {seconds} s"))
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
                    tracing::info!(took_ms = took.as_millis(), "the canary probe succeeds again");
                }
                *last = Some(Ok(took));
            }
            // A failure on partitions that have moved away says nothing about this instance.
            ProbeOutcome::Skipped => *last = None,
            ProbeOutcome::Failed(why) => {
                counter!(CANARY_FAILURES, "service" => self.service).increment(1);
                if !failed_before {
                    tracing::error!(why, "the canary probe failed");
                }
                *last = Some(Err(why));
            }
        }
    }

    /// Adds the canary to the health checks, if it is on: the last probe's duration or failure.
    #[must_use]
    pub fn add_to_health(self, health: Health) -> Health {
        if self.interval.is_none() {
            return health;
        }
        health.with_check("canary", move || ready(self.last_outcome()))
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
            // A probe without an outcome fails by its timeout, so this outcome may reach a later probe.
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
