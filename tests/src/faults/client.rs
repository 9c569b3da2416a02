//! Those who send and those who read, each request told to the history with its outcome.

use std::{sync::Arc, time::Duration};

use model::Cursor;
use parking_lot::Mutex;
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::{
    cluster::Cluster,
    history::{History, Reading, Shown, Value, Wrong},
    journal::{Journal, milliseconds},
};

/// Longer than the producer takes to say that it does not know (10 s).
const SEND: Duration = Duration::from_secs(15);

/// A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Client {
    /// Whom it speaks with.
    pub cluster: Arc<Cluster>,
    /// Who is told.
    pub history: Arc<Mutex<History>>,
    /// Who writes it down, and keeps the time.
    pub journal: Arc<Journal>,
    http: reqwest::Client,
}

/// What every inbox is answered with; whatever else it holds is not looked at.
#[derive(Deserialize)]
struct Page {
    notifications: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    message: String,
    cursor: Cursor,
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Whose inbox.
    pub user: i64,
    /// Which consumer.
    pub instance: usize,
    /// An acknowledged notification that the answer must contain.
    pub at_least: Option<(Value, Cursor)>,
    /// How long to wait for an answer.
    pub patience: Duration,
}

impl Client {
    /// With an empty history.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub fn new(cluster: Arc<Cluster>, journal: Arc<Journal>) -> Result<Self, String> {
        let http = reqwest::Client::builder().build().map_err(|error| error.to_string())?;
        Ok(Self { cluster, history: Arc::default(), journal, http })
    }

    /// The same history over connections of its own.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { http: reqwest::Client::new(), ..self.clone() }
    }

    /// The same people with another history.
    #[must_use]
    pub fn with(&self, history: Arc<Mutex<History>>) -> Self {
        Self { history, ..self.clone() }
    }

    /// Sends, once, and returns its place when it was acknowledged.
    pub async fn send(&self, value: Value) -> Option<Cursor> {
        self.history.lock().sending(value);
        self.journal.note("sending", json!({ "value": value.to_string() }));
        let outcome = tokio::time::timeout(SEND, self.post(value))
            .await
            .unwrap_or_else(|_| Err("late".into()));
        match outcome {
            Ok(cursor) => {
                self.history.lock().acknowledged(self.journal.now(), value, cursor);
                let note = json!({ "value": value.to_string(), "cursor": cursor.to_string() });
                self.journal.note("acknowledged", note);
                Some(cursor)
            }
            Err(why) => {
                self.history.lock().unknown(value);
                self.journal.note("unknown", json!({ "value": value.to_string(), "why": why }));
                None
            }
        }
    }

    async fn post(&self, value: Value) -> Result<Cursor, String> {
        let url = format!("{}/send", self.cluster.producer.url);
        let body = format!("from_id={}&to_id={}&message={value}", value.from, value.to);
        let request =
            self.http.post(url).header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(body).send().await.map_err(|error| kind(&error))?;
        let status = response.status();
        // From here on an error is one of an answer that was on its way: acknowledged or not, who knows.
        let body: Json = response.json().await.map_err(|error| kind(&error))?;
        if status != StatusCode::OK {
            return Err(status.as_u16().to_string());
        }
        let cursor = body["sent"][0]["cursor"].as_str().and_then(|text| text.parse().ok());
        cursor.ok_or_else(|| format!("200 without a cursor: {body}"))
    }

    /// Reads an inbox; none when it was not shown.
    pub async fn read(&self, question: Question) -> Option<Reading> {
        let Question { user, instance, at_least, patience } = question;
        let began = self.journal.now();
        let asked = tokio::time::timeout(patience, self.get(user, instance, at_least)).await;
        let answer = asked.unwrap_or_else(|_| Err("late".into()));
        let ended = self.journal.now();
        let wanted = at_least.map(|(_, cursor)| cursor.to_string());
        let mut note = json!({
            "user": user, "instance": instance, "began": milliseconds(began), "at_least": wanted,
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
                history.read(&reading);
                let after: u64 = history.findings().values().map(|finding| finding.count).sum();
                drop(history);
                if after > before {
                    // Whole, for whoever looks for the cause.
                    let all: Vec<_> = reading
                        .shown
                        .iter()
                        .map(|s| format!("{} at {}", s.message, s.cursor))
                        .collect();
                    note["wrong"] = json!(all);
                }
                self.journal.note("read", note);
                Some(reading)
            }
            Err(why) => {
                if why.starts_with("200") {
                    let example = format!("consumer {instance} to user {user}: {why}");
                    self.history.lock().found(Wrong::Foreign, example);
                } else {
                    self.history.lock().unavailable(began, user, &why);
                }
                note["why"] = json!(why);
                self.journal.note("unavailable", note);
                None
            }
        }
    }

    async fn get(
        &self,
        user: i64,
        instance: usize,
        at_least: Option<(Value, Cursor)>,
    ) -> Result<Vec<Shown>, String> {
        let query = at_least.map_or_else(String::new, |(_, cursor)| format!("?at_least={cursor}"));
        let url = format!("{}/notifications/{user}{query}", self.cluster.consumers[instance].url);
        let response = self.http.get(url).send().await.map_err(|error| kind(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| kind(&error))?;
        if status != StatusCode::OK {
            return Err(status.as_u16().to_string());
        }
        let page: Page = serde_json::from_slice(&body)
            .map_err(|error| format!("200 that is no inbox: {error}"))?;
        let shown = page
            .notifications
            .into_iter()
            .map(|Item { message, cursor }| Shown { message, cursor });
        Ok(shown.collect())
    }
}

/// One word for the report; the service's own log says more.
fn kind(error: &reqwest::Error) -> String {
    if error.is_connect() { "refused".into() } else { "broken".into() }
}
