//! Sends and reads over HTTP, and records each request with its outcome in the history.

use std::{sync::Arc, time::Duration};

use model::Cursor;
use parking_lot::Mutex;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    cluster::ServiceCluster,
    history::{History, Reading, Shown, TestMessage, Violation},
    journal::{Journal, to_milliseconds},
};

/// Longer than the producer's own timeout for an acknowledgement (10 s).
const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// Cheap to clone.
#[derive(Clone)]
pub struct RecordingClient {
    /// The services.
    pub cluster: Arc<ServiceCluster>,
    /// Receives every outcome.
    pub history: Arc<Mutex<History>>,
    /// Writes every request to a file, and is the clock.
    pub journal: Arc<Journal>,
    /// Its connections.
    pub http: reqwest::Client,
}

/// The checked part of a page.
#[derive(Deserialize)]
struct PageBody {
    notifications: Vec<EntryBody>,
}

#[derive(Deserialize)]
struct EntryBody {
    message: String,
    cursor: Cursor,
    read: bool,
}

/// What an acknowledged send is answered.
struct Acknowledgement {
    cursor: Cursor,
    id: String,
}

/// A request for an inbox.
#[derive(Clone, Copy, Debug)]
pub struct InboxQuery {
    /// The inbox's user.
    pub user: i64,
    /// The number of the consumer to ask.
    pub instance: usize,
    /// An acknowledged notification that the answer must contain.
    pub at_least: Option<(TestMessage, Cursor)>,
    /// Timeout of the request.
    pub timeout: Duration,
}

impl RecordingClient {
    /// A client with an empty history.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(cluster: Arc<ServiceCluster>, journal: Arc<Journal>) -> Result<Self, String> {
        let http = reqwest::Client::builder().build().map_err(|error| error.to_string())?;
        Ok(Self { cluster, history: Arc::default(), journal, http })
    }

    /// A client with the same history and new connections.
    #[must_use]
    pub fn with_new_connections(&self) -> Self {
        Self { http: reqwest::Client::new(), ..self.clone() }
    }

    /// A client with the same connections and another history.
    #[must_use]
    pub fn with_history(&self, history: Arc<Mutex<History>>) -> Self {
        Self { history, ..self.clone() }
    }

    /// Sends once; returns the cursor if the send was acknowledged.
    pub async fn send(&self, value: TestMessage) -> Option<Cursor> {
        self.history.lock().record_sending(value);
        self.journal.write_event("sending", json!({ "value": value.to_string() }));
        let outcome = tokio::time::timeout(SEND_TIMEOUT, self.post_send(value))
            .await
            .unwrap_or_else(|_| Err("late".into()));
        match outcome {
            Ok(Acknowledgement { cursor, id }) => {
                let mut history = self.history.lock();
                history.record_acknowledged(self.journal.now(), value, cursor);
                history.record_id(value, &id);
                drop(history);
                let note = json!({ "value": value.to_string(), "cursor": cursor.to_string() });
                self.journal.write_event("acknowledged", note);
                Some(cursor)
            }
            Err(why) => {
                let mut history = self.history.lock();
                history.record_unknown(value);
                history.record_refused(value, &why);
                drop(history);
                self.journal
                    .write_event("unknown", json!({ "value": value.to_string(), "why": why }));
                None
            }
        }
    }

    async fn post_send(&self, value: TestMessage) -> Result<Acknowledgement, String> {
        let url = format!("{}/send", self.cluster.producer.url);
        let body = format!("from_id={}&to_id={}&message={value}", value.from, value.to);
        let request =
            self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(body).send().await.map_err(|error| error_kind(&error))?;
        let status = response.status();
        // An error from here on breaks off an answer: the send may have been acknowledged.
        let body: Json = response.json().await.map_err(|error| error_kind(&error))?;
        if status != StatusCode::OK {
            return Err(status.as_u16().to_string());
        }
        let cursor = body["sent"][0]["cursor"].as_str().and_then(|text| text.parse().ok());
        let id = body["sent"][0]["id"].as_str().map(str::to_owned);
        let found = cursor.zip(id).map(|(cursor, id)| Acknowledgement { cursor, id });
        found.ok_or_else(|| format!("200 without a cursor and an id: {body}"))
    }

    /// Marks a notification as read; an answer of 200 is a promise that later answers show it.
    pub async fn mark_read(&self, instance: usize, value: TestMessage, id: &str) {
        let url =
            format!("{}/notifications/{}/read", self.cluster.consumers[instance].url, value.to);
        let request = self.http.post(url).json(&json!({ "ids": [id] })).timeout(SEND_TIMEOUT);
        let outcome = match request.send().await {
            Ok(response) if response.status() == StatusCode::OK => {
                // Later than the receipt by the time that the rest of the answer takes.
                response.text().await.map_err(|error| error_kind(&error))
            }
            Ok(response) => Err(response.status().as_u16().to_string()),
            Err(error) => Err(error_kind(&error)),
        };
        let mut note = json!({ "value": value.to_string(), "instance": instance });
        let mut history = self.history.lock();
        match outcome {
            Ok(body) => {
                history.record_marked(self.journal.now(), value);
                note["answer"] = json!(body);
            }
            Err(why) => {
                history.check_status(&why, || format!("the receipt for {value}"));
                note["why"] = json!(why);
            }
        }
        drop(history);
        self.journal.write_event("mark", note);
    }

    /// Reads an inbox; `None` if the answer is not a page.
    pub async fn read_inbox(&self, question: InboxQuery) -> Option<Reading> {
        let InboxQuery { user, instance, at_least, timeout } = question;
        let began = self.journal.now();
        let asked = tokio::time::timeout(timeout, self.get_page(user, instance, at_least)).await;
        let answer = asked.unwrap_or_else(|_| Err("late".into()));
        let ended = self.journal.now();
        let wanted = at_least.map(|(_, cursor)| cursor.to_string());
        let mut note = json!({
            "user": user, "instance": instance, "began": to_milliseconds(began), "at_least": wanted,
        });
        match answer {
            Ok(shown) => {
                note["shown"] = json!(shown.len());
                note["last"] =
                    json!(shown.last().map(|last| format!("{} at {}", last.message, last.cursor)));
                let at_least = at_least.map(|(value, _)| value);
                let reading = Reading { user, instance, began, ended, at_least, shown };
                let mut history = self.history.lock();
                let before: u64 = history.findings().values().map(|finding| finding.count).sum();
                history.check_reading(&reading);
                let after: u64 = history.findings().values().map(|finding| finding.count).sum();
                drop(history);
                if after > before {
                    // The whole reading, for the search for a cause.
                    let all: Vec<_> = reading
                        .shown
                        .iter()
                        .map(|s| format!("{} at {}", s.message, s.cursor))
                        .collect();
                    note["wrong"] = json!(all);
                }
                self.journal.write_event("read", note);
                Some(reading)
            }
            Err(why) => {
                if why.starts_with("200") {
                    let example = format!("consumer {instance} to user {user}: {why}");
                    self.history.lock().record_violation(Violation::Foreign, example);
                } else {
                    self.history.lock().record_unavailable(began, user, &why);
                }
                note["why"] = json!(why);
                self.journal.write_event("unavailable", note);
                None
            }
        }
    }

    async fn get_page(
        &self,
        user: i64,
        instance: usize,
        at_least: Option<(TestMessage, Cursor)>,
    ) -> Result<Vec<Shown>, String> {
        let query = at_least.map_or_else(String::new, |(_, cursor)| format!("?at_least={cursor}"));
        let url = format!("{}/notifications/{user}{query}", self.cluster.consumers[instance].url);
        let response = self.http.get(url).send().await.map_err(|error| error_kind(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| error_kind(&error))?;
        if status != StatusCode::OK {
            return Err(status.as_u16().to_string());
        }
        let page: PageBody = serde_json::from_slice(&body)
            .map_err(|error| format!("200 without a page: {error}"))?;
        let shown = page
            .notifications
            .into_iter()
            .map(|EntryBody { message, cursor, read }| Shown { message, cursor, read });
        Ok(shown.collect())
    }
}

/// One word for the report; the service's log has the details.
fn error_kind(error: &reqwest::Error) -> String {
    if error.is_connect() { "refused".into() } else { "broken".into() }
}
