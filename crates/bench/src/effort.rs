//! How hard a party is tried in one round, and the two loops that do it. In the closed one each
//! worker begins anew when it is done, so a slow server is asked less. In the open one requests are
//! due at times of their own, and a latency runs from when its request was due.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::timeout;

use crate::{Result, figures::Sample, meter::Meter, pace::Pace};

/// How long after its end a round may wait for the last answers.
const GRACE: Duration = Duration::from_secs(15);

/// How hard, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Effort {
    /// How many workers there are, each with one request at a time.
    pub(crate) connections: usize,
    /// How long a round lasts.
    pub(crate) round: Duration,
    /// Requests that are due a second, all workers together; none for a closed loop.
    pub(crate) rate: Option<u32>,
}

impl Effort {
    /// One round. A worker asks once each time it is called, and says whether that went well.
    ///
    /// # Errors
    /// What a worker failed with, or that nothing went well, or that it never came to an end.
    pub(crate) async fn run<W: AsyncFnMut() -> Result<bool>>(
        &self,
        workers: Vec<W>,
    ) -> Result<Sample> {
        match self.rate {
            None => self.closed(workers).await,
            Some(rate) => self.open(rate, workers).await,
        }
    }

    async fn closed<W: AsyncFnMut() -> Result<bool>>(&self, workers: Vec<W>) -> Result<Sample> {
        let meter = Meter::start(self.round)?;
        let repeat = async |mut worker: W| {
            while meter.goes_on() {
                let asked = Instant::now();
                let well = worker().await?;
                meter.note(asked, well);
            }
            Ok(())
        };
        let all = finish(workers.into_iter().map(repeat).collect());
        timeout(self.round + GRACE, all).await.map_err(|_| "a request was never answered")??;
        meter.finish()
    }

    async fn open<W: AsyncFnMut() -> Result<bool>>(
        &self,
        rate: u32,
        workers: Vec<W>,
    ) -> Result<Sample> {
        let meter = Meter::start(self.round)?;
        let pace = Pace::start(rate, self.count(rate)?, workers.len());
        let repeat = async |mut worker: W| {
            while let Some((_, due)) = pace.next().await {
                let well = worker().await?;
                meter.note(due, well);
            }
            Ok(())
        };
        let all = finish(workers.into_iter().map(repeat).collect());
        timeout(self.round + GRACE, all)
            .await
            .map_err(|_| format!("{rate} a second are more than it can do"))??;
        meter.finish()
    }

    /// How many are due in a round.
    fn count(&self, rate: u32) -> Result<u64> {
        Ok(u64::try_from(self.round.as_millis())? * u64::from(rate) / 1000)
    }
}

async fn finish<F: Future<Output = Result<()>>>(mut running: FuturesUnordered<F>) -> Result<()> {
    while let Some(outcome) = running.next().await {
        outcome?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers at once, but for one answer that takes 200 ms, asked over one connection.
    async fn stalling(rate: Option<u32>) -> Sample {
        let effort = Effort { connections: 1, round: Duration::from_millis(400), rate };
        let mut asked = 0;
        let worker = async || {
            asked += 1;
            if asked == 10 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(true)
        };
        effort.run(vec![worker]).await.expect("a sample")
    }

    #[tokio::test]
    async fn what_should_have_been_sent_during_a_stall_waited_for_it() {
        let sample = stalling(Some(1000)).await;
        let latencies = sample.latencies.expect("latencies");
        assert_eq!(sample.count, 400, "everything that was due was sent in the end");
        // The 200 that were due during the stall waited for its end, evenly from 200 ms down to 0.
        let waited = latencies.count_between(20_000, 60_000_000);
        assert!(waited >= 180, "only {waited} waited");
        assert!(latencies.value_at_quantile(0.75) > 80_000, "{:?}", sample.p50_ms);
    }

    #[tokio::test]
    async fn a_closed_loop_omits_them() {
        let sample = stalling(None).await;
        assert!(sample.p99_ms.is_some_and(|p99| p99 < 50.0), "{:?}", sample.p99_ms);
    }
}
