//! When the load is over and nothing is broken: what every instance shows in the end.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    client::{Client, Question},
    history::Wrong,
};

/// How long it may take, when the load is over, until every inbox is whole on every instance.
const SETTLE: Duration = Duration::from_secs(60);

/// Reads everybody in this history on every consumer, now that all is quiet, until each inbox is
/// whole or the time for that is over.
pub async fn settle(client: &Client) {
    client.history.lock().unsettle();
    let users = client.history.lock().users();
    let mut readers = tokio::task::JoinSet::new();
    for instance in client.cluster.up() {
        let (client, users) = (client.clone(), users.clone());
        readers.spawn(async move {
            let deadline = tokio::time::Instant::now() + SETTLE;
            for user in users {
                settle_one(&client, instance, user, deadline).await;
            }
        });
    }
    readers.join_all().await;
}

async fn settle_one(client: &Client, instance: usize, user: i64, deadline: tokio::time::Instant) {
    let question = Question { user, instance, at_least: None, patience: Duration::from_secs(10) };
    loop {
        let reading = client.read(question).await;
        let late = tokio::time::Instant::now() >= deadline;
        if let Some(reading) = reading {
            let mut history = client.history.lock();
            if late || history.missing(user, Duration::MAX, &reading.shown).is_empty() {
                return history.settled(&reading);
            }
        } else if late {
            let example = format!(
                "consumer {instance} still does not answer for user {user} when all is quiet"
            );
            return client.history.lock().found(Wrong::Stuck, example);
        }
        sleep(Duration::from_millis(100)).await;
    }
}
