//! Generates load in a closed or an open loop, on a thread of its own.
//!
//! In the closed loop each worker sends its next request when the last one is answered, so a slow
//! server receives fewer. In the open loop requests are due at fixed times, and a latency runs from
//! the due time.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use futures_util::{TryStreamExt as _, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use tokio::{runtime::Builder, time::timeout};

use crate::{
    Result,
    cpu::{CpuReading, own_thread_ns},
    figures::{QUANTILES, Sample},
    http::HttpConnection,
    process::ServerProcess,
    schedule::Schedule,
};

/// How long after a round's end its last answers may come.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A latency above this counts as this.
const MAX_LATENCY_US: u64 = 60_000_000;

/// Connections, length and rate of a round.
#[derive(Debug, Clone, Copy)]
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
            None => (meter.started.elapsed() < self.round).then(Instant::now),
        };
        let repeat = async |mut worker: W| -> Result<()> {
            while let Some(start) = next_start().await {
                let succeeded = worker().await?;
                meter.record(start, succeeded.then(Instant::now));
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

/// Counts and times the requests of one round, on one thread.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    last_answer: Cell<Instant>,
    failed: Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
}

impl Meter {
    /// Starts now.
    pub(crate) fn start() -> Result<Self> {
        let started = Instant::now();
        let latencies = RefCell::new(Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?);
        Ok(Self { started, last_answer: Cell::new(started), failed: Cell::new(0), latencies })
    }

    /// Counts a request by when it was due and when it was answered; `None` if it failed.
    pub(crate) fn record(&self, asked: Instant, answered: Option<Instant>) {
        let Some(answered) = answered else {
            return self.failed.set(self.failed.get() + 1);
        };
        self.last_answer.set(self.last_answer.get().max(answered));
        let latency = answered.saturating_duration_since(asked).as_micros();
        let latency = u64::try_from(latency).unwrap_or(u64::MAX);
        self.latencies.borrow_mut().saturating_record(latency);
    }

    /// The round's sample, with the rate from the start to the last answer.
    ///
    /// # Errors
    /// If no request succeeded.
    pub(crate) fn finish(self) -> Result<Sample> {
        let (latencies, failed) = (self.latencies.into_inner(), self.failed.get());
        let count = latencies.len();
        if count == 0 {
            return Err(format!("no request succeeded, {failed} answers were not 200").into());
        }
        let rate = count as f64 / (self.last_answer.get() - self.started).as_secs_f64();
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let latencies_ms = QUANTILES.map(at).into();
        Ok(Sample { rate, count, failed, latencies_ms, ..Sample::default() })
    }
}

/// One round of HTTP load. Connection `n` sends the requests `n`, `n` + connections and so on in
/// turns; each is a whole HTTP request.
///
/// # Errors
/// If the server cannot be reached, closes a connection, or answers no request with 200.
pub(crate) async fn send_load(
    server: &ServerProcess,
    broker: Option<u32>,
    requests: &[Vec<u8>],
    profile: LoadProfile,
) -> Result<Sample> {
    let (address, requests) = (server.address, requests.to_vec());
    measure_process(server.pid(), broker, async move |ready: Ready<'_>| {
        let mut workers = Vec::with_capacity(profile.connections);
        for first in 0..profile.connections {
            let mut connection = HttpConnection::connect(address).await?;
            let (requests, mut next) = (&requests, first);
            workers.push(async move || {
                let request = &requests[next % requests.len()];
                next += profile.connections;
                Ok(connection.send_request(request).await?.0 == 200)
            });
        }
        ready.begin()?;
        profile.run_workers(workers).await
    })
    .await
}

/// Given to a round, which calls it once it is connected: from then on processor time counts.
pub(crate) struct Ready<'a> {
    read: &'a dyn Fn() -> Result<()>,
}

impl Ready<'_> {
    pub(crate) fn begin(self) -> Result<()> {
        (self.read)()
    }
}

/// Runs a round on a thread of its own, and adds the processor time of a process and the broker for
/// each operation, and that of the thread.
pub(crate) async fn measure_process(
    pid: u32,
    broker: Option<u32>,
    round: impl AsyncFnOnce(Ready<'_>) -> Result<Sample> + Send + 'static,
) -> Result<Sample> {
    run_on_thread(async move || {
        let begun = RefCell::new(None);
        let read = || {
            let broker = broker.map(CpuReading::take).transpose()?;
            let reading = (CpuReading::take(pid)?, broker, own_thread_ns(), Instant::now());
            begun.replace(Some(reading));
            Ok(())
        };
        let mut sample = round(Ready { read: &read }).await?;
        let (server, broker, thread_ns, at) = begun.take().ok_or("the round never began")?;
        let (seconds, operations) =
            (at.elapsed().as_secs_f64(), (sample.count + sample.failed) as f64);
        sample.generator = (own_thread_ns() - thread_ns) as f64 / 1e9 / seconds;
        sample.cost_us = server.elapsed_ns()? as f64 / 1000.0 / operations;
        if let Some(broker) = broker {
            let ns = broker.elapsed_ns()? as f64;
            sample.broker_us = Some(ns / 1000.0 / operations);
            sample.broker_cores = ns / 1e9 / seconds;
        }
        Ok(sample)
    })
    .await
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
    async fn requests_that_were_due_during_a_stall_waited_for_its_end() {
        let sample = measure_a_stall(Some(1000)).await;
        assert_eq!(sample.count, 400, "everything that was due was sent in the end");
        // The 200 that were due during the stall waited for its end, evenly from 200 ms down to 0.
        assert!(sample.latencies_ms[1] > 80.0, "{sample:?}");
    }

    #[tokio::test]
    async fn a_closed_loop_omits_them() {
        let sample = measure_a_stall(None).await;
        assert!(sample.p99_ms().is_some_and(|p99| p99 < 50.0), "{sample:?}");
    }
}
