//! Keeps the view in step with the log: makes sure of the topics, joins the group, and knows
//! whether that works.

use std::{sync::Arc, time::Duration};

use log::{Group, Log, Reader};
use model::TopicNames;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    RunError, Settings,
    view::{View, fold::Notifications, partition::Status},
};

/// How long to wait before a log that is away is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long the log may take to answer a probe.
const PING: Duration = Duration::from_millis(1500);

/// The view's connection to the log. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Following {
    view: Arc<View>,
    log: Log,
    names: Arc<TopicNames>,
    reader: Arc<Mutex<Option<Reader>>>,
}

impl Following {
    /// Not started yet.
    #[must_use]
    pub fn new(view: Arc<View>, log: Log, names: TopicNames) -> Self {
        Self { view, log, names: Arc::new(names), reader: Arc::default() }
    }

    /// Waits for the log, makes sure of the topics and joins the group.
    ///
    /// # Errors
    /// [`RunError`], when a topic is wrong.
    pub async fn start(&self, settings: &Settings) -> Result<(), RunError> {
        let topic = settings.topics.topic(&self.names.notifications);
        self.log.await_topics(&[topic], ASK_AGAIN).await?;
        let fold = Notifications::into(Arc::clone(&self.view), self.names.notifications.clone());
        let reader = self.log.join(&self.names.notifications, &Group::from(&settings.group), fold)?;
        *self.reader.lock() = Some(reader);
        Ok(())
    }

    /// Leaves the group and waits until that is done.
    pub async fn stop(&self) {
        let reader = self.reader.lock().take();
        if let Some(reader) = reader {
            reader.stop().await;
        }
    }

    /// For `/readyz`: whether the log answers.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn check_log(self) -> Result<Value, String> {
        self.log.ping(PING).await.map(|()| Value::Null).map_err(|error| error.to_string())
    }

    /// For `/readyz`: whether this instance answers for every partition that it owns.
    ///
    /// # Errors
    /// How far the rebuild is.
    pub async fn check_partitions(self) -> Result<Value, String> {
        if !self.reader.lock().as_ref().is_some_and(Reader::is_running) {
            return Err("waiting for the log and its topics".into());
        }
        let (mut live, mut rebuilding) = (0, Vec::new());
        for (number, partition) in self.view.partitions() {
            match partition.status() {
                Status::Live { .. } => live += 1,
                Status::Rebuilding(progress) => rebuilding.push((number, progress)),
                Status::Unowned => {}
            }
        }
        if live == 0 && rebuilding.is_empty() {
            return Err("waiting for the group to assign partitions".into());
        }
        if let Some((number, progress)) = rebuilding.first() {
            let all = live + rebuilding.len();
            let percent = progress.percent.map_or_else(|| "?".into(), |percent| format!("{percent:.0}"));
            return Err(format!("{live} of {all} partitions are live; partition {number} is at {percent} %"));
        }
        Ok(json!({ "live": live }))
    }
}
