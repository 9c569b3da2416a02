//! The settings of the bare clients: the same as those of the services' clients, without the group
//! settings, because a bare client joins no group. `event-log` gives the reasons.

/// Every client.
pub(super) const BASE: &[(&str, &str)] = &[
    ("socket.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// Producers.
pub(super) const PRODUCER: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("max.in.flight.requests.per.connection", "5"),
    ("linger.ms", "1"),
    ("compression.type", "lz4"),
    ("message.timeout.ms", "30000"),
    ("request.timeout.ms", "8000"),
    ("retry.backoff.ms", "50"),
    ("queue.buffering.max.messages", "100000"),
    ("queue.buffering.max.kbytes", "131072"),
];

/// Consumers.
pub(super) const CONSUMER: &[(&str, &str)] = &[
    ("enable.auto.commit", "false"),
    ("auto.offset.reset", "earliest"),
    ("enable.partition.eof", "true"),
    ("fetch.min.bytes", "1"),
    ("fetch.wait.max.ms", "100"),
    ("fetch.queue.backoff.ms", "10"),
    ("queued.min.messages", "100000"),
    ("queued.max.messages.kbytes", "65536"),
    ("check.crcs", "true"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_have_the_same_settings_as_the_services() {
        let theirs = include_str!("../../../event-log/src/kafka/config.rs");
        let flags = include_str!("../../../event-log/src/settings/batch.rs");
        for (name, value) in BASE.iter().chain(PRODUCER).chain(CONSUMER) {
            // The services set these two by flags, and are measured with the defaults.
            let default = match *name {
                "linger.ms" => Some(format!("default_value = \"{value}ms\"")),
                "compression.type" => Some(format!("Self::Lz4 => \"{value}\"")),
                _ => None,
            };
            if let Some(default) = default {
                assert!(flags.contains(&default), "{name} is not {value} by default");
                assert!(flags.contains("default_value_t = Compression::Lz4"));
                continue;
            }
            let set = format!(".set(\"{name}\", \"{value}\")");
            assert!(theirs.contains(&set), "the services' clients do not have {name} = {value}");
        }
    }
}
