//! The load: HTTP/1.1 connections that each send their next request when the last one is answered.
//! It speaks as little HTTP as our servers need (a `Content-Length` in every answer), because it
//! runs on the same processors as they do and must cost far less. It never judges what it measures.

use std::{
    cell::RefCell,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{Result, figures::Sample};

/// How long after its end a round may wait for the last answers.
const GRACE: Duration = Duration::from_secs(15);
/// The most requests of a round, whatever its length.
const MAX_REQUESTS: u64 = 20_000_000;
/// A latency above this counts as this, in microseconds.
const MAX_LATENCY_US: u64 = 60_000_000;

/// What is asked, and of whom.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// The server.
    pub(crate) address: SocketAddr,
    /// Whole requests; connection `n` repeats number `n` modulo their count.
    pub(crate) requests: Vec<Vec<u8>>,
    /// How many connections there are, each with one request at a time.
    pub(crate) connections: usize,
    /// How long a round lasts.
    pub(crate) round: Duration,
}

impl Load {
    /// Runs one round on a thread of its own with a runtime of its own, so that nothing else that
    /// this process does is in its way.
    ///
    /// # Errors
    /// When the server cannot be reached, ends a connection, or answers nothing at all with 200.
    pub(crate) async fn round(&self) -> Result<Sample> {
        let load = self.clone();
        tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(load.run())
        })
        .await?
    }

    async fn run(self) -> Result<Sample> {
        let mut connections = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            connections.push(Connection::open(self.address).await?);
        }
        let meter = Meter::start(self.round)?;
        let mut running: FuturesUnordered<_> = connections
            .into_iter()
            .zip(self.requests.iter().cycle())
            .map(|(connection, request)| repeat(connection, request, &meter))
            .collect();
        let all = async {
            while let Some(outcome) = running.next().await {
                outcome?;
            }
            Ok::<_, io::Error>(())
        };
        timeout(self.round + GRACE, all).await.map_err(|_| "a request was never answered")??;
        drop(running);
        meter.finish()
    }
}

async fn repeat(mut connection: Connection, request: &[u8], meter: &Meter) -> io::Result<()> {
    while meter.goes_on() {
        let asked = Instant::now();
        let (status, _) = connection.exchange(request).await?;
        meter.note(asked, status == 200);
    }
    Ok(())
}

/// Counts and times what happens in one round. For one thread.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    round: Duration,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    latencies: Histogram<u64>,
    failed: u64,
    last: Instant,
}

impl Meter {
    /// Starts now.
    pub(crate) fn start(round: Duration) -> Result<Self> {
        let started = Instant::now();
        let latencies = Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?;
        let state = RefCell::new(State { latencies, failed: 0, last: started });
        Ok(Self { started, round, state })
    }

    /// Whether another request may be sent.
    pub(crate) fn goes_on(&self) -> bool {
        self.started.elapsed() < self.round && self.state.borrow().latencies.len() < MAX_REQUESTS
    }

    /// Notes an answer to what was asked at this time.
    pub(crate) fn note(&self, asked: Instant, well: bool) {
        if well {
            self.note_at(asked, Instant::now());
        } else {
            let mut state = self.state.borrow_mut();
            state.last = Instant::now();
            state.failed += 1;
        }
    }

    /// Notes something that was asked and answered at these times.
    pub(crate) fn note_at(&self, asked: Instant, answered: Instant) {
        let mut state = self.state.borrow_mut();
        state.last = Instant::now();
        let latency = answered.saturating_duration_since(asked).as_micros();
        state.latencies.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
    }

    /// What was measured, up to the last answer.
    pub(crate) fn finish(self) -> Result<Sample> {
        let State { latencies, failed, last } = self.state.into_inner();
        if latencies.is_empty() {
            return Err(format!("nothing went well, {failed} answers were not 200").into());
        }
        #[allow(clippy::cast_precision_loss)] // counts of a few seconds
        let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        #[allow(clippy::cast_precision_loss)] // as above
        let rate = latencies.len() as f64 / (last - self.started).as_secs_f64();
        let (p50_ms, p99_ms) = (Some(ms(0.50)), Some(ms(0.99)));
        Ok(Sample { value: rate, p50_ms, p99_ms, cpu_us: None, failed, count: latencies.len() })
    }
}

/// One kept-alive connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, answer: Vec::with_capacity(16 << 10) })
    }

    /// Sends a request and reads its answer: the status and the body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, &[u8])> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        let body = loop {
            self.read().await?;
            if let Some(end) = self.answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let (status, length) = head(&self.answer[..body]).ok_or(ErrorKind::InvalidData)?;
        while self.answer.len() < body + length {
            self.read().await?;
        }
        Ok((status, &self.answer[body..]))
    }

    async fn read(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.answer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// The status and the body's length that a head announces.
fn head(head: &[u8]) -> Option<(u16, usize)> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some((status, length?))
}

/// A GET of this path.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n")
        .into_bytes()
}

/// A POST of this form to this path.
pub(crate) fn post_form(path: &str, form: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{form}",
        form.len(),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_without_a_length_is_refused() {
        assert_eq!(head(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"), Some((200, 12)));
        assert_eq!(head(b"HTTP/1.1 503 Away\r\ncontent-length:0\r\n\r\n"), Some((503, 0)));
        assert_eq!(head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), None);
    }
}
