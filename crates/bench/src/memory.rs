//! `bench memory`: the memory of a stored notification in a consumer, beside its JSON.

use crate::{
    Result,
    figures::{Aim, Party, Ratio},
    fill::FilledTopic,
    http::{HttpConnection, get_request},
    loops::alternate,
    process::{SETTLE_DELAY, ServerProcess, settled_memory_bytes},
    read::InboxBody,
    records::generated_user,
    report::Section,
    testbed::Testbed,
};

/// Bytes that a notification may cost beside its JSON.
const ALLOWANCE_BYTES: f64 = 64.0;

pub(crate) async fn measure(testbed: &mut Testbed, filled: &FilledTopic) -> Result<Section> {
    let mut json = 0.0;
    let parties = ["consumer on the full topic", "consumer on the empty topic"];
    let show = |bytes: &f64| format!("{:.0} KiB", bytes / 1024.0);
    let rounds = testbed.options.rounds();
    let memory = alternate("memory", rounds, &parties, show, async |party| {
        let (topic, records) = filled.select(party == 0);
        let (consumer, _) = testbed.start_consumer(topic, records).await?;
        let bytes = settled_memory_bytes(consumer.pid()).await?;
        if records > 0 {
            json = mean_entry_bytes(&consumer).await?;
        }
        Ok(bytes)
    });
    let memory = memory.await?;

    let size = filled.size;
    let pairs = memory[0].iter().zip(&memory[1]);
    let growth: Vec<f64> =
        pairs.map(|(full, empty)| (full - empty) / size.records as f64).collect();
    let party = |name: &str, role, figure: &dyn Fn(f64) -> f64| {
        Party::from_values(name, role, growth.iter().map(|bytes| figure(*bytes)), size.records)
    };
    let subject = party("memory that the consumer grows by", "subject", &|growth| growth)?;
    let beyond = party("the same less 64 bytes", "subject", &|growth| growth - ALLOWANCE_BYTES)?;
    let limit = party("its JSON, as an inbox shows it", "limit", &|_| json)?;
    let limit_and = party("its JSON and 64 bytes", "limit", &|_| json + ALLOWANCE_BYTES)?;
    let value =
        party("its JSON, as the record's value", "limit", &|_| f64::from(size.value_bytes))?;
    let ratios = vec![
        Ratio::new("memory / (JSON as shown + 64 B)", &subject, &limit_and, None)?,
        Ratio::new("(memory − 64 B) / JSON as shown", &beyond, &limit, Some(Aim::AtMost(1.6)))?,
        Ratio::new("(memory − 64 B) / the record's value", &beyond, &value, None)?,
    ];
    Ok(Section {
        name: "memory",
        title: format!(
            "a stored notification, of {} with values of {} bytes for {} users",
            size.records, size.value_bytes, size.users
        ),
        unit: "bytes",
        parties: vec![subject, limit, value],
        ratios,
        notes: vec![format!(
            "Anonymous memory of the process {} s after it became live, less that of one on an empty topic. What \
             the users' inboxes and the Kafka client's freed buffers keep is in it, so more --records show less.",
            SETTLE_DELAY.as_secs()
        )],
        ..Section::default()
    })
}

/// The mean length of the entries of one inbox.
async fn mean_entry_bytes(consumer: &ServerProcess) -> Result<f64> {
    let mut connection = HttpConnection::connect(consumer.address).await?;
    let request = get_request(&format!("/notifications/{}", generated_user(0)?.id));
    let (_, body) = connection.send_request(&request).await?;
    let entries = serde_json::from_slice::<InboxBody<'_>>(body)?.notifications;
    let bytes: usize = entries.iter().map(|entry| entry.get().len()).sum();
    Ok(bytes as f64 / entries.len().max(1) as f64)
}
