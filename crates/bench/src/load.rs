//! Generates load in a closed or an open loop, on a thread of its own.
//!
//! In the closed loop each worker sends its next request when the last one is answered, so a slow
//! server receives fewer. In the open loop requests are due at fixed times, and a latency runs from
//! the due time.

use std::time::{Duration, Instant};

use futures_util::{TryStreamExt as _, stream::FuturesUnordered};
use tokio::{runtime::Builder, time::timeout};

use crate::{
    Result, figures::Sample, http::HttpConnection, meter::Meter, process::ServerProcess,
    schedule::Schedule,
};

/// How long after a round's end its last answers may come.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections, length and rate of a round.
#[derive(Debug, Clone)]
pub(crate) struct LoadProfile {
    /// Workers, each with one request at a time.
    pub(crate) connections: usize,
    pub(crate) round: Duration,
    /// Requests due a second, of all workers together; `None` for a closed loop.
    pub(crate) rate: Option<u32>,
}

impl LoadProfile {
    pub(crate) fn closed(connections: usize, round: Duration) -> Self {
        Self { connections, round, rate: None }
    }

    /// Runs one round. A worker sends one request each time it is called, and returns true if the
    /// request succeeded.
    ///
    /// # Errors
    /// A worker's error; also if no request succeeded, or a worker did not end in time.
    pub(crate) async fn run_workers<W>(&self, workers: Vec<W>) -> Result<Sample>
    where
        W: AsyncFnMut() -> Result<bool>,
    {
        let meter = Meter::start()?;
        let schedule = match self.rate {
            Some(rate) => {
                let count = u64::try_from(self.round.as_millis())? * u64::from(rate) / 1000;
                Some(Schedule::start(rate, count, workers.len()))
            }
            None => None,
        };
        let next_start = async || match &schedule {
            Some(schedule) => schedule.next_due().await.map(|(_, due)| due),
            None => meter.is_open(self.round).then(Instant::now),
        };
        let repeat = async |mut worker: W| -> Result<()> {
            while let Some(start) = next_start().await {
                let succeeded = worker().await?;
                meter.record(start, succeeded);
            }
            Ok(())
        };
        let running: FuturesUnordered<_> = workers.into_iter().map(repeat).collect();
        let too_late = |_| match self.rate {
            Some(rate) => format!("{rate} a second are more than it can do"),
            None => "a request was never answered".into(),
        };
        let finished = timeout(self.round + ANSWER_TIMEOUT, running.try_collect::<()>()).await;
        finished.map_err(too_late)??;
        meter.finish()
    }
}

/// One round of HTTP load. Connection `n` repeats request number `n` modulo their count; each is a
/// whole HTTP request.
///
/// # Errors
/// If the server cannot be reached, closes a connection, or answers no request with 200.
pub(crate) async fn send_load(
    server: &ServerProcess,
    requests: &[Vec<u8>],
    profile: &LoadProfile,
) -> Result<Sample> {
    let (address, requests, profile) = (server.address, requests.to_vec(), profile.clone());
    measure_server(server, async move || {
        let mut connections = Vec::with_capacity(profile.connections);
        for _ in 0..profile.connections {
            connections.push(HttpConnection::connect(address).await?);
        }
        let worker = |(mut connection, request): (HttpConnection, &Vec<u8>)| {
            let request = request.clone();
            async move || Ok(connection.send_request(&request).await?.0 == 200)
        };
        let workers = connections.into_iter().zip(requests.iter().cycle()).map(worker);
        profile.run_workers(workers.collect()).await
    })
    .await
}

/// Runs a round against a server, and adds the server's processor time for each answer.
pub(crate) async fn measure_server(
    server: &ServerProcess,
    round: impl AsyncFnOnce() -> Result<Sample> + Send + 'static,
) -> Result<Sample> {
    let before = server.cpu_time();
    let mut sample = run_on_thread(round).await?;
    let answers = (sample.count + sample.failed) as f64;
    let used = server.cpu_time().zip(before).map(|(after, before)| after.saturating_sub(before));
    sample.cpu_us = used.map(|used| used.as_secs_f64() * 1e6 / answers);
    Ok(sample)
}

/// Runs `work` on a thread and a runtime of its own, so that this process's other tasks do not
/// delay it.
pub(crate) async fn run_on_thread<T: Send + 'static>(
    work: impl AsyncFnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let run = move || Builder::new_current_thread().enable_all().build()?.block_on(work());
    tokio::task::spawn_blocking(run).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every request at once, except one that takes 200 ms, over one connection.
    async fn measure_a_stall(rate: Option<u32>) -> Sample {
        let profile = LoadProfile { connections: 1, round: Duration::from_millis(400), rate };
        let mut asked = 0;
        let worker = async || {
            asked += 1;
            if asked == 10 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(true)
        };
        profile.run_workers(vec![worker]).await.expect("a sample")
    }

    #[tokio::test]
    async fn what_should_have_been_sent_during_a_stall_waited_for_it() {
        let sample = measure_a_stall(Some(1000)).await;
        let latencies = sample.latencies.expect("latencies");
        assert_eq!(sample.count, 400, "everything that was due was sent in the end");
        // The 200 that were due during the stall waited for its end, evenly from 200 ms down to 0.
        let waited = latencies.count_between(20_000, 60_000_000);
        assert!(waited >= 180, "only {waited} waited");
        assert!(latencies.value_at_quantile(0.75) > 80_000, "{:?}", sample.p50_ms);
    }

    #[tokio::test]
    async fn a_closed_loop_omits_them() {
        let sample = measure_a_stall(None).await;
        assert!(sample.p99_ms.is_some_and(|p99| p99 < 50.0), "{:?}", sample.p99_ms);
    }
}
