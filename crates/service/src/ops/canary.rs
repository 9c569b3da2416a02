//! Tries the whole way again and again, and says whether it works, whatever the parts say of
//! themselves: brokers that answer every question and take no record look healthy from outside.
//! What is tried is the service's own matter.

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
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon it is tried again after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried {
    /// It went all the way.
    Arrived,
    /// There is nothing to try now, such as on an instance that owns no partition.
    Nothing,
    /// It did not, for this reason, which is shown to whoever asks for the health.
    Failed(String),
}

/// What is known of the way. A cheap handle, to be cloned.
#[derive(Clone, Debug)]
pub struct Canary {
    service: &'static str,
    /// None: it is not tried.
    every: Option<Duration>,
    patience: Duration,
    last: Arc<Mutex<Option<Result<Duration, String>>>>,
}

impl Canary {
    /// Tries `every` so often; never, if there is none.
    #[must_use]
    pub fn new(service: &'static str, every: Option<Duration>) -> Self {
        Self { service, every, patience: PATIENCE, last: Arc::default() }
    }

    /// Tries it for ever. A try that takes more than 5 s has failed.
    pub async fn watch(self, mut try_it: impl AsyncFnMut() -> Tried) {
        let Some(every) = self.every else { return pending().await };
        loop {
            let begin = Instant::now();
            let tried = timeout(self.patience, try_it()).await.unwrap_or_else(|_| {
                Tried::Failed(format!("nothing arrived within {} s", self.patience.as_secs_f64()))
            });
            let failed = matches!(tried, Tried::Failed(_));
            self.note(tried, begin.elapsed());
            sleep(if failed { AGAIN.min(every) } else { every }).await;
        }
    }

    fn note(&self, tried: Tried, took: Duration) {
        let mut last = self.last.lock();
        let failed_before = matches!(*last, Some(Err(_)));
        match tried {
            Tried::Arrived => {
                histogram!(CANARY_SECONDS, "service" => self.service).record(took);
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                gauge!(CANARY_LAST_SUCCESS, "service" => self.service).set(now.as_secs_f64());
                if failed_before {
                    tracing::info!(took_ms = took.as_millis(), "the canary arrives again");
                }
                *last = Some(Ok(took));
            }
            // What failed elsewhere before says nothing any more.
            Tried::Nothing => *last = None,
            Tried::Failed(why) => {
                counter!(CANARY_FAILURES, "service" => self.service).increment(1);
                if !failed_before {
                    tracing::error!(why, "the canary does not arrive");
                }
                *last = Some(Err(why));
            }
        }
    }

    /// Adds it to what decides on the service's health, if it is tried at all: how long the last
    /// try took, or why it failed.
    #[must_use]
    pub fn into_check(self, health: Health) -> Health {
        if self.every.is_none() {
            return health;
        }
        health.check("canary", move || {
            let said = self.said();
            async move { said }
        })
    }

    fn said(&self) -> Result<Value, String> {
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
        canary.patience = Duration::from_millis(1);
        let (say, mut said) = mpsc::channel::<Option<Tried>>(1);
        let watching =
            tokio::spawn(canary.clone().watch(async move || match said.recv().await.flatten() {
                Some(tried) => tried,
                None => pending().await,
            }));
        let failed = |why: &str| Some(Tried::Failed(why.into()));
        for (tried, expected) in [
            (Some(Tried::Arrived), Ok(())),
            (failed("no leader"), Err("no leader")),
            (Some(Tried::Nothing), Ok(())),
            (None, Err("nothing arrived within 0.001 s")),
            (Some(Tried::Arrived), Ok(())),
        ] {
            // A try of which nothing comes fails by itself, so what is said may meet a later one.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let _ = say.try_send(tried.clone());
                tokio::task::yield_now().await;
                if canary.said().map(|_| ()) == expected.map_err(str::to_owned) {
                    break;
                }
                assert!(Instant::now() < deadline, "{tried:?}: {:?}", canary.said());
            }
        }
        watching.abort();
    }
}
