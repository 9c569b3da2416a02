//! Live streams (SSE) that stay open through all faults: each resumes by its cursor wherever its
//! connection ends.

use std::time::Duration;

use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use model::Cursor;
use serde::Deserialize;
use serde_json::json;
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{client::RecordingClient, history::Shown, random::Random};

/// Timeout of the answer's headers.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is given up after this time without a byte. The consumers send a heartbeat every
/// two seconds.
const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// The longest wait before a stream is opened again.
const MAX_RETRY_DELAY: Duration = Duration::from_millis(1000);
/// How long streams may take to tell everything once all processes are ready.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(45);

/// The open streams of a round.
pub struct StreamFleet {
    client: RecordingClient,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl StreamFleet {
    /// Opens `count` streams, spread over these users and all instances.
    pub fn open(
        client: &RecordingClient,
        users: &[i64],
        count: usize,
        random: &mut Random,
    ) -> Self {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        for (number, user) in (0..).zip(users.iter().copied().cycle().take(count)) {
            client.history.lock().open_stream(number, user);
            let random = Random::new(random.next_number(), "stream");
            let stream =
                ResumingStream { client: client.clone(), number, user, cursor: None, random };
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = stream.follow() => {}
                }
            });
        }
        Self { client: client.clone(), stop, tasks }
    }

    /// Waits until each stream has told everything that was acknowledged until now, and ends them.
    /// Everything still missing then is lost. All processes must be ready.
    pub async fn close(mut self) {
        let before = self.client.journal.now();
        let deadline = tokio::time::Instant::now() + COMPLETE_TIMEOUT;
        while !self.client.history.lock().missing_on_streams(before).is_empty()
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.client.history.lock().close_streams(before);
    }
}

struct ResumingStream {
    client: RecordingClient,
    number: u64,
    user: i64,
    /// The last `id` of an event.
    cursor: Option<String>,
    random: Random,
}

#[derive(Deserialize)]
struct EntryBody {
    message: String,
    cursor: Cursor,
    read: bool,
}

impl ResumingStream {
    async fn follow(mut self) {
        loop {
            let up = self.client.cluster.running_consumers();
            if let Some(instance) = self.random.pick_one(&up).copied() {
                let ended = self.follow_once(instance).await;
                self.note("stream ended", instance, &ended);
            }
            let thousandths = u32::try_from(self.random.next_below(1000)).unwrap_or(0);
            tokio::time::sleep(MAX_RETRY_DELAY * thousandths / 1000).await;
        }
    }

    /// Follows over one connection; returns why it ended.
    async fn follow_once(&mut self, instance: usize) -> String {
        let base = &self.client.cluster.consumers[instance].url;
        let url = format!("{base}/notifications/{}/stream", self.user);
        let mut request = self.client.http.get(url).header("accept", "text/event-stream");
        if let Some(cursor) = &self.cursor {
            request = request.header("last-event-id", cursor);
        }
        let Ok(answer) = timeout(OPEN_TIMEOUT, request.send()).await else { return "late".into() };
        let response = match answer {
            Ok(response) if response.status().is_success() => response,
            Ok(response) => {
                let status = response.status().as_u16().to_string();
                let what = || format!("stream {} of user {}", self.number, self.user);
                self.client.history.lock().check_status(&status, what);
                return status;
            }
            Err(error) => return error.to_string(),
        };
        self.client.history.lock().record_stream_opened();
        self.note("stream opened", instance, "");
        // Ends where no byte comes for too long.
        let chunks = futures_util::stream::unfold(response.bytes_stream(), async |mut bytes| {
            let next = timeout(IDLE_TIMEOUT, bytes.next()).await.ok()??;
            Some((next, bytes))
        });
        let mut events = std::pin::pin!(chunks.eventsource());
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => return error.to_string(),
            };
            match event.event.as_str() {
                "notification" => self.record_entry(instance, &event.data),
                "gap" => {
                    let what = format!("{} by consumer {instance}", event.data);
                    self.client.history.lock().record_gap(self.number, &what);
                    self.note("gap", instance, &event.data);
                }
                "end" => return event.data,
                _ => {}
            }
            if !event.id.is_empty() {
                self.cursor = Some(event.id);
            }
        }
        "no byte for too long, or the end".into()
    }

    fn record_entry(&self, instance: usize, data: &str) {
        let now = self.client.journal.now();
        let mut history = self.client.history.lock();
        match serde_json::from_str::<EntryBody>(data) {
            Ok(EntryBody { message, cursor, read }) => {
                let shown = Shown { message, cursor, read };
                history.record_streamed(self.number, instance, now, &shown);
            }
            Err(error) => {
                let example = format!("stream {}: {error}: {data}", self.number);
                history.record_violation(super::history::Violation::Foreign, example);
            }
        }
    }

    fn note(&self, event: &str, instance: usize, why: &str) {
        let note = json!({
            "stream": self.number, "user": self.user, "instance": instance, "why": why,
            "cursor": self.cursor,
        });
        self.client.journal.write_event(event, note);
    }
}
