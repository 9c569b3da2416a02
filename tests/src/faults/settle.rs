//! Checks the final inboxes of every instance, after the load has stopped and all processes run.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    client::{InboxQuery, RecordingClient},
    history::Violation,
};

/// How long after the load an inbox may stay incomplete on an instance.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads every inbox of the history from every consumer, until each is complete or
/// `SETTLE_TIMEOUT` has passed.
pub async fn settle(client: &RecordingClient) {
    client.history.lock().forget_final_inboxes();
    let users = client.history.lock().users();
    let mut readers = tokio::task::JoinSet::new();
    for instance in client.cluster.running_consumers() {
        let (client, users) = (client.clone(), users.clone());
        readers.spawn(async move {
            let deadline = tokio::time::Instant::now() + SETTLE_TIMEOUT;
            for user in users {
                settle_one(&client, instance, user, deadline).await;
            }
        });
    }
    readers.join_all().await;
}

async fn settle_one(
    client: &RecordingClient,
    instance: usize,
    user: i64,
    deadline: tokio::time::Instant,
) {
    let question = InboxQuery { user, instance, at_least: None, timeout: Duration::from_secs(10) };
    loop {
        let reading = client.read_inbox(question).await;
        let late = tokio::time::Instant::now() >= deadline;
        if let Some(reading) = reading {
            let mut history = client.history.lock();
            if late || history.missing_messages(user, Duration::MAX, &reading.shown).is_empty() {
                return history.check_final_reading(&reading);
            }
        } else if late {
            let example =
                format!("consumer {instance} still does not answer for user {user} after the load");
            return client.history.lock().record_violation(Violation::Stuck, example);
        }
        sleep(Duration::from_millis(100)).await;
    }
}
