//! What is done to topics on purpose, and how their replicas stand.

use std::collections::HashMap;

use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminOptions, NewTopic, TopicReplication},
    consumer::Consumer as _,
    metadata::MetadataTopic,
};
use tokio::time::Instant;

use super::{CATCH_UP_TIMEOUT, KafkaCluster, QUERY_TIMEOUT};
use crate::world::PARTITIONS;

/// Interval between two attempts.
const RETRY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

impl KafkaCluster {
    /// Deletes a topic and makes it again with one replica.
    ///
    /// # Errors
    /// If the brokers refuse.
    pub async fn recreate_topic(&self, topic: &str) -> Result<(), String> {
        let admin = self.connect_admin()?;
        let options = AdminOptions::new().request_timeout(Some(QUERY_TIMEOUT));
        admin.delete_topics(&[topic], &options).await.map_err(|error| error.to_string())?;
        let partitions = i32::try_from(PARTITIONS).unwrap_or(i32::MAX);
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        loop {
            let outcome = admin.create_topics([&new], &options).await;
            match outcome.map_err(|error| error.to_string())?.pop() {
                Some(Ok(_)) => return Ok(()),
                // The old topic is still there, or the answer was lost.
                other if Instant::now() > deadline => {
                    return Err(format!("{topic} is not made again: {other:?}"));
                }
                _ => tokio::time::sleep(RETRY_INTERVAL).await,
            }
        }
    }

    /// The offset in the middle of each partition's records.
    ///
    /// # Errors
    /// If the brokers do not answer.
    pub async fn fetch_middle_offsets(&self, topic: &str) -> Result<HashMap<i32, i64>, String> {
        let topic = topic.to_owned();
        let middles = self.query(move |client| {
            let partitions = 0..i32::try_from(PARTITIONS).unwrap_or(i32::MAX);
            let middles = partitions.map(|partition| {
                let (low, high) = client.fetch_watermarks(&topic, partition, QUERY_TIMEOUT)?;
                Ok((partition, low.midpoint(high)))
            });
            middles.collect()
        });
        middles.await
    }

    /// Removes all records below these offsets, as retention does.
    ///
    /// # Errors
    /// If the brokers refuse.
    pub async fn delete_records(
        &self,
        topic: &str,
        low_offsets: &HashMap<i32, i64>,
    ) -> Result<(), String> {
        let mut below = TopicPartitionList::new();
        for (partition, low) in low_offsets {
            let place = below.add_partition_offset(topic, *partition, Offset::Offset(*low));
            place.map_err(|error| error.to_string())?;
        }
        let options = AdminOptions::new().request_timeout(Some(QUERY_TIMEOUT));
        let removed = self.connect_admin()?.delete_records(&below, &options).await;
        removed.map(drop).map_err(|error| error.to_string())
    }

    /// Waits until all replicas of a topic are in sync and each broker leads some partition.
    ///
    /// # Errors
    /// If that takes longer than `CATCH_UP_TIMEOUT`.
    pub async fn await_in_sync(&self, topic: &str) -> Result<(), String> {
        let deadline = Instant::now() + CATCH_UP_TIMEOUT;
        let count = self.count();
        loop {
            let name = topic.to_owned();
            let standing = self.query(move |client| {
                let metadata = client.fetch_metadata(Some(&name), QUERY_TIMEOUT)?;
                let all = metadata.topics().iter().flat_map(MetadataTopic::partitions);
                let standing = all.map(|found| (found.leader(), found.isr().len()));
                Ok(standing.collect::<Vec<_>>())
            });
            let standing = standing.await;
            if let Ok(standing) = &standing
                && standing.iter().all(|(_, in_sync)| *in_sync == count)
                && (1..=count).all(|node| {
                    standing.iter().any(|(leader, _)| usize::try_from(*leader) == Ok(node))
                })
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "the replicas are not in sync, as leader and count: {standing:?}"
                ));
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}
