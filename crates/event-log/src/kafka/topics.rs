//! Checks and creates topics, and asks brokers for end offsets and for a sign of life.

use std::time::{Duration, Instant};

use rdkafka::{
    admin::{AdminOptions, NewTopic, TopicReplication},
    client::Client,
    error::KafkaResult,
    types::RDKafkaErrorCode,
};

use super::{
    admin::AdminHandle,
    context::ClientLog,
    epochs::{TopicEpochs, find_broker},
    topic_config::{check_topic_configs, new_topic_config},
};
use crate::{LogUnreachable, Topic, TopicError};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time at the start for the brokers to return the topics' ids. Those of topics that were created a
/// moment ago may come late.
const EPOCHS_DEADLINE: Duration = Duration::from_secs(5);
const EPOCHS_TIMEOUT: Duration = Duration::from_secs(2);
const EPOCHS_RETRY_DELAY: Duration = Duration::from_millis(100);

/// See [`Log::ensure_topics`](crate::Log::ensure_topics).
pub(super) async fn ensure_topics(
    admin: &AdminHandle,
    brokers: &str,
    topics: &[Topic],
) -> Result<(), TopicError> {
    let (mut existing, mut missing) = (Vec::new(), Vec::new());
    for topic in topics {
        match fetch_partition_count(admin, brokers, &topic.name, REQUEST_TIMEOUT).await? {
            Some(found) => {
                topic.check_partition_count(found)?;
                existing.push(topic);
            }
            None => missing.push(topic),
        }
    }
    if let Some(first) = existing.first() {
        let name = first.name.clone();
        let broker_id = query_brokers(admin, brokers, move |client| {
            find_broker(client, Some(&name), REQUEST_TIMEOUT)
        });
        check_topic_configs(admin, broker_id.await?, &existing, REQUEST_TIMEOUT).await?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    let configs = missing.iter().map(|topic| new_topic_config(topic)).collect::<Vec<_>>();
    let new = missing.iter().zip(&configs).map(|(topic, config)| {
        let copies = i32::try_from(topic.replication).unwrap_or(i32::MAX);
        let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        let new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(copies));
        config.iter().fold(new, |new, (key, value)| new.set(key, value))
    });
    let new: Vec<_> = new.collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(REQUEST_TIMEOUT))
        .request_timeout(Some(REQUEST_TIMEOUT));
    let results = admin
        .client()
        .create_topics(&new, &options)
        .await
        .map_err(|error| unreachable_error(brokers, &error.to_string()))?;
    for (topic, result) in missing.iter().zip(results) {
        match result {
            Ok(_) => tracing::info!(
                kafka.topic = topic.name,
                kafka.partitions = topic.partitions,
                kafka.replication = topic.replication,
                "created a topic",
            ),
            // Another instance has created it.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {
                if let Some(found) =
                    fetch_partition_count(admin, brokers, &topic.name, REQUEST_TIMEOUT).await?
                {
                    topic.check_partition_count(found)?;
                }
            }
            Err((
                _,
                code @ (RDKafkaErrorCode::RequestTimedOut
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::NotController),
            )) => {
                return Err(unreachable_error(brokers, &code.to_string()).into());
            }
            Err((_, code)) => {
                return Err(TopicError::Refused {
                    topic: topic.name.clone(),
                    reason: code.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// See [`Log::check_topic`](crate::Log::check_topic).
pub(super) async fn check_topic(
    admin: &AdminHandle,
    brokers: &str,
    topic: &Topic,
    deadline: Duration,
) -> Result<(), TopicError> {
    match fetch_partition_count(admin, brokers, &topic.name, deadline).await? {
        Some(found) => topic.check_partition_count(found),
        None => Err(TopicError::Missing(topic.name.clone())),
    }
}

/// `None` if the topic does not exist.
async fn fetch_partition_count(
    admin: &AdminHandle,
    brokers: &str,
    topic: &str,
    timeout: Duration,
) -> Result<Option<u32>, LogUnreachable> {
    let name = topic.to_owned();
    let count = query_brokers(admin, brokers, move |client| {
        let metadata = client.fetch_metadata(Some(&name), timeout)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        Ok(topic.map_or(Ok(None), |topic| match topic.error().map(RDKafkaErrorCode::from) {
            None => Ok(Some(u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX))),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(None),
            Some(code) => Err(code),
        }))
    });
    count.await?.map_err(|code| unreachable_error(brokers, &code.to_string()))
}

/// Asks for the epochs of these topics until the brokers return them, for a limited time.
pub(super) async fn await_epochs(brokers: &str, epochs: &TopicEpochs, topics: Vec<String>) {
    let until = Instant::now() + EPOCHS_DEADLINE;
    while let Err(error) = fetch_epochs(brokers, epochs, topics.clone()).await {
        if Instant::now() >= until {
            tracing::warn!(%error, "the brokers do not return the topics' ids; cursors may have no epoch");
            return;
        }
        tokio::time::sleep(EPOCHS_RETRY_DELAY).await;
    }
}

/// Asks for the epochs of these topics, which `epochs` remembers.
pub(super) async fn fetch_epochs(
    brokers: &str,
    epochs: &TopicEpochs,
    topics: Vec<String>,
) -> Result<(), LogUnreachable> {
    let epochs = epochs.clone();
    let fetched = tokio::task::spawn_blocking(move || {
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        epochs.fetch(&topics, EPOCHS_TIMEOUT).map(drop)
    });
    match fetched.await {
        Ok(fetched) => fetched.map_err(|error| unreachable_error(brokers, &error.to_string())),
        Err(error) => Err(LogUnreachable(error.to_string())),
    }
}

/// See [`Log::ping`](crate::Log::ping).
pub(super) async fn ping_brokers(
    admin: &AdminHandle,
    brokers: &str,
    deadline: Duration,
) -> Result<(), LogUnreachable> {
    // One topic keeps the response small on a cluster with thousands of topics.
    query_brokers(admin, brokers, move |client| {
        client.fetch_metadata(Some("__consumer_offsets"), deadline).map(drop)
    })
    .await
}

/// See [`Log::fetch_end_offsets`](crate::Log::fetch_end_offsets).
pub(super) async fn fetch_end_offsets(
    admin: &AdminHandle,
    brokers: &str,
    topic: &str,
    partitions: &[i32],
    deadline: Duration,
) -> Result<Vec<i64>, LogUnreachable> {
    let (topic, partitions) = (topic.to_owned(), partitions.to_vec());
    let until = Instant::now() + deadline;
    query_brokers(admin, brokers, move |client| {
        let end = |partition: &i32| {
            let left = until.saturating_duration_since(Instant::now());
            Ok(client.fetch_watermarks(&topic, *partition, left)?.1)
        };
        partitions.iter().map(end).collect()
    })
    .await
}

/// librdkafka's requests block, so they have a thread of their own.
async fn query_brokers<T: Send + 'static>(
    admin: &AdminHandle,
    brokers: &str,
    query: impl FnOnce(&Client<ClientLog>) -> KafkaResult<T> + Send + 'static,
) -> Result<T, LogUnreachable> {
    let admin = admin.clone();
    match tokio::task::spawn_blocking(move || admin.query(query)).await {
        Ok(answer) => answer.map_err(|error| unreachable_error(brokers, &error.to_string())),
        Err(error) => Err(LogUnreachable(error.to_string())),
    }
}

fn unreachable_error(brokers: &str, reason: &str) -> LogUnreachable {
    LogUnreachable(format!("Kafka at {brokers} does not answer ({reason})"))
}
