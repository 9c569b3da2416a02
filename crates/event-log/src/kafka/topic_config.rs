//! The settings of the topics: those of new ones, and the check of existing ones.

use std::time::Duration;

use rdkafka::admin::{AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};

use super::admin::AdminHandle;
use crate::{Topic, TopicError, topic::Cleanup};

/// Larger than the record of any notification that the producer accepts.
const MIN_MESSAGE_BYTES: u64 = 128 * 1024;
/// Kafka removes whole segments, so records outlive their retention by up to this much.
const SEGMENT_TIME: Duration = Duration::from_secs(24 * 3600);

/// The settings of a topic that is created.
pub(super) fn new_topic_config(topic: &Topic) -> Vec<(&'static str, String)> {
    let mut config = match topic.cleanup {
        Cleanup::After(age) => vec![
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", age.as_millis().to_string()),
            ("segment.ms", SEGMENT_TIME.min(age).as_millis().to_string()),
        ],
        Cleanup::Compact => vec![("cleanup.policy", "compact".to_owned())],
    };
    if topic.replication >= 3 {
        // `acks=all` then means at least two copies, and an out-of-sync replica never leads.
        config.push(("min.insync.replicas", "2".to_owned()));
        config.push(("unclean.leader.election.enable", "false".to_owned()));
    }
    config
}

/// Refuses an existing topic from which Kafka would remove notifications by their key, and warns of
/// settings that lose them earlier than configured. Passes if the broker does not tell the settings:
/// that takes the right DESCRIBE_CONFIGS. The controller is not asked: a broker that lacks the
/// request fails it at once, and librdkafka waits for a controller in vain.
pub(super) async fn check_topic_configs(
    admin: &AdminHandle,
    broker_id: i32,
    topics: &[&Topic],
    request_timeout: Duration,
) -> Result<(), TopicError> {
    let resources: Vec<_> =
        topics.iter().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
    let options = AdminOptions::new().broker_id(broker_id).request_timeout(Some(request_timeout));
    let described = match admin.client().describe_configs(&resources, &options).await {
        Ok(described) => described,
        Err(error) => {
            tracing::info!(%error, "cannot check the settings of the topics");
            return Ok(());
        }
    };
    for config in described {
        let config = match config {
            Ok(config) => config,
            Err(code) => {
                tracing::info!(%code, "cannot check the settings of a topic");
                continue;
            }
        };
        let OwnedResourceSpecifier::Topic(name) = &config.specifier else { continue };
        let Some(topic) = topics.iter().find(|topic| topic.name == *name) else { continue };
        let (outcome, warnings) = compare_config(topic, &config);
        for warning in warnings {
            tracing::warn!(kafka.topic = topic.name, "{warning}");
        }
        outcome?;
    }
    Ok(())
}

fn compare_config(topic: &Topic, config: &ConfigResource) -> (Result<(), TopicError>, Vec<String>) {
    let text = |name: &str| config.get(name).and_then(|entry| entry.value.as_deref());
    let policy = text("cleanup.policy").unwrap_or_default();
    let is_compacted = policy.split(',').any(|policy| policy.trim() == "compact");
    let mut warnings = Vec::new();
    if let Some(bytes) = text("max.message.bytes").and_then(|text| text.parse::<u64>().ok())
        && bytes < MIN_MESSAGE_BYTES
    {
        warnings.push(format!(
            "the topic takes records of at most {bytes} bytes (max.message.bytes), less than the \
             largest notification: set it to {MIN_MESSAGE_BYTES} or more"
        ));
    }
    match topic.cleanup {
        Cleanup::After(_) if is_compacted => {
            return (Err(TopicError::Compacted { topic: topic.name.clone() }), warnings);
        }
        Cleanup::After(age) => {
            // -1: for ever.
            let kept = text("retention.ms").and_then(|text| text.parse::<u64>().ok());
            if let Some(kept) = kept.map(Duration::from_millis).filter(|kept| *kept < age) {
                let days = |time: Duration| time.as_secs_f64() / 86400.0;
                warnings.push(format!(
                    "the topic keeps records for {:.1} days (retention.ms), but {:.1} are \
                     configured (--retention-days): older notifications are missing after a \
                     restart",
                    days(kept),
                    days(age),
                ));
            }
        }
        Cleanup::Compact if !is_compacted => warnings.push(
            "the topic is not compacted (cleanup.policy): what it holds disappears with time"
                .to_owned(),
        ),
        Cleanup::Compact => {}
    }
    (Ok(()), warnings)
}

#[cfg(test)]
mod tests {
    use rdkafka::admin::{ConfigEntry, ConfigSource};

    use super::*;

    fn check(cleanup: Cleanup, settings: &[(&str, &str)]) -> (bool, usize) {
        let entries = settings.iter().map(|(name, value)| ConfigEntry {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            source: ConfigSource::DynamicTopic,
            is_read_only: false,
            is_default: false,
            is_sensitive: false,
        });
        let specifier = OwnedResourceSpecifier::Topic("t".into());
        let config = ConfigResource { specifier, entries: entries.collect() };
        let topic = Topic { name: "t".into(), partitions: 1, replication: 1, cleanup };
        let (found, warnings) = compare_config(&topic, &config);
        (found.is_ok(), warnings.len())
    }

    #[test]
    fn a_compacted_topic_of_notifications_is_refused() {
        let month = Cleanup::After(Duration::from_secs(30 * 86400));
        assert_eq!(check(month, &[("cleanup.policy", "compact")]), (false, 0));
        assert_eq!(check(month, &[("cleanup.policy", "compact,delete")]), (false, 0));
        assert_eq!(check(month, &[("cleanup.policy", "delete")]), (true, 0));
        assert_eq!(check(Cleanup::Compact, &[("cleanup.policy", "compact")]), (true, 0));
    }

    #[test]
    fn settings_that_lose_notifications_early_are_warned_of() {
        let month = Cleanup::After(Duration::from_secs(30 * 86400));
        let day = ("retention.ms", "86400000");
        assert_eq!(check(month, &[day]), (true, 1));
        assert_eq!(check(month, &[day, ("max.message.bytes", "1000")]), (true, 2));
        assert_eq!(check(month, &[("retention.ms", "-1")]), (true, 0));
        assert_eq!(check(month, &[("retention.ms", "2592000000")]), (true, 0));
        assert_eq!(check(Cleanup::Compact, &[("cleanup.policy", "delete")]), (true, 1));
    }
}
