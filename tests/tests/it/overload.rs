//! Overload: accepted requests are as fast as before, the rest gets 503 with Retry-After, and
//! memory stays bounded.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use e2e::{process::Standalone, until, world::page_messages};
use reqwest::{Client, StatusCode, header::RETRY_AFTER};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

/// The producer's limit of concurrent requests.
const PERMITS: usize = 2;
/// Recipients of each send, so that a send is some work.
const RECIPIENTS: i64 = 200;
/// Length of each part.
const CALM_DURATION: Duration = Duration::from_secs(3);
const STORM_DURATION: Duration = Duration::from_secs(10);
/// The offered rate, as a multiple of the measured capacity.
const OVERLOAD_FACTOR: f64 = 10.0;
/// Greatest growth of memory during the storm: the inboxes fill meanwhile.
const MAX_GROWTH_BYTES: u64 = 48 << 20;

#[derive(Debug, Default)]
struct Outcomes {
    statuses: BTreeMap<u16, u64>,
    /// Latencies of the accepted sends.
    latencies: Vec<Duration>,
    /// Messages of the accepted sends.
    messages: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the machine to itself: task test:overload"]
async fn ten_times_what_it_can_do_is_shed_and_the_rest_is_done_as_well_as_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let places = PERMITS.to_string();
    let flags = ["--max-requests", &places, "--inbox-entries", "100", "--rate-limit", "0"];
    let standalone = Arc::new(Standalone::start_with(folder.path(), &flags).await);
    let client = Client::new();
    for user in 5..=RECIPIENTS {
        let url = format!("{}/users/{user}", standalone.producer);
        let made = client.put(url).json(&json!({ "name": format!("User {user}") })).send().await;
        assert_eq!(made.expect("an answer").status(), StatusCode::CREATED);
    }
    // Measures the capacity: as many clients as permits, each with one request at a time.
    let calm = {
        let mut counted = Outcomes::default();
        let begin = Instant::now();
        let workers = (0..PERMITS).map(|worker| {
            let (client, standalone) = (client.clone(), Arc::clone(&standalone));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while begin.elapsed() < CALM_DURATION {
                    answers.push(send_to_all(&client, &standalone, format!("calm {worker}")).await);
                }
                answers
            })
        });
        for worker in workers.collect::<Vec<_>>() {
            worker
                .await
                .expect("no panic")
                .into_iter()
                .for_each(|answer| counted.add_outcome(answer));
        }
        counted
    };
    assert!(calm.statuses.keys().eq(&[200]), "{:?}", calm.statuses);
    let capacity = calm.latencies.len() as f64 / CALM_DURATION.as_secs_f64();

    // The storm: ten times that rate in an open loop.
    let resident = standalone.resident_bytes();
    let (answers, mut queue) = mpsc::unbounded_channel();
    let mut ticks = interval(Duration::from_secs_f64(1.0 / (capacity * OVERLOAD_FACTOR)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begin = Instant::now();
    let mut asked = 0;
    while begin.elapsed() < STORM_DURATION {
        ticks.tick().await;
        let (to, through, answers) = (Arc::clone(&standalone), client.clone(), answers.clone());
        tokio::spawn(async move {
            let _ = answers.send(send_to_all(&through, &to, format!("storm {asked}")).await);
        });
        asked += 1;
        if asked % 500 == 0 {
            // Health checks must stay green, or an orchestrator would restart it.
            let health = client.get(format!("{}/livez", standalone.producer));
            let health = health.timeout(Duration::from_secs(3)).send().await.expect("an answer");
            assert_eq!(health.status(), StatusCode::OK);
        }
    }
    let offered = f64::from(asked) / begin.elapsed().as_secs_f64();
    drop(answers);
    let mut storm = Outcomes::default();
    while let Some(answer) = queue.recv().await {
        storm.add_outcome(answer);
    }
    let growth = standalone.resident_bytes().saturating_sub(resident);
    let report = format!(
        "{capacity:.0} a second can be done, {offered:.0} were asked for: {:?}; accepted p99 {:?}, \
         {:?} in the calm; memory {} KiB more",
        storm.statuses,
        storm.p99(),
        calm.p99(),
        growth >> 10,
    );
    assert!(offered > capacity * OVERLOAD_FACTOR * 0.8, "{report}");
    assert!(storm.statuses.keys().all(|status| matches!(status, 200 | 503)), "{report}");
    // Accepted sends do not wait for refused ones.
    assert!(storm.p99() < calm.p99() * 10 + Duration::from_millis(500), "{report}");
    // Shedding costs processor time, but most of the capacity is still used.
    let done = storm.latencies.len() as f64 / STORM_DURATION.as_secs_f64();
    assert!(done > capacity * 0.2, "{report}");
    assert!(growth < MAX_GROWTH_BYTES, "{report}");

    // Afterwards every accepted send is in the inbox, once.
    let newest: Vec<_> = storm.messages.iter().rev().take(50).cloned().collect();
    until(|| async {
        let url = format!("{}/notifications/1", standalone.consumer);
        let page: Value =
            client.get(url).send().await.expect("an answer").json().await.expect("JSON");
        let shown = page_messages(&page);
        let times = |message: &String| shown.iter().filter(|one| *one == message).count();
        let wrong: Vec<_> = newest.iter().filter(|message| times(message) != 1).collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}")) }
    })
    .await;
}

/// Sends to all recipients; returns status, latency and message.
async fn send_to_all(
    client: &Client,
    standalone: &Standalone,
    message: String,
) -> (StatusCode, Duration, String) {
    let to: Vec<_> = (1..=RECIPIENTS).collect();
    let body = json!({ "from_id": 1, "to_id": to, "message": message });
    let begin = Instant::now();
    let answer = client.post(format!("{}/send", standalone.producer)).json(&body).send().await;
    let answer = answer.expect("an answer, whatever it is");
    let status = answer.status();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        assert!(answer.headers().contains_key(RETRY_AFTER), "when to come again");
    }
    let _ = answer.bytes().await;
    (status, begin.elapsed(), message)
}

impl Outcomes {
    fn add_outcome(&mut self, (status, latency, message): (StatusCode, Duration, String)) {
        *self.statuses.entry(status.as_u16()).or_default() += 1;
        if status == StatusCode::OK {
            self.latencies.push(latency);
            self.messages.push(message);
        }
    }

    fn p99(&self) -> Duration {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default()
    }
}
