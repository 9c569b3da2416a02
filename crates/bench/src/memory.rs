//! `bench memory`: what a stored notification costs a consumer, beside its JSON.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    Result,
    connection::{Connection, get},
    figures::{Aim, Party, Ratio, Sample},
    fill::Filled,
    read::Inbox,
    records,
    report::Section,
    rounds::alternate,
    site::Site,
};

/// How long a consumer that has just become live may take to give back what the rebuild needed.
pub(crate) const SETTLE: Duration = Duration::from_secs(3);
/// What a notification may cost beside its JSON, in bytes.
const BESIDE: f64 = 64.0;

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, filled: &Filled) -> Result<Section> {
    let mut json = 0.0;
    let parties = ["consumer on the full topic", "consumer on the empty topic"];
    let show = |bytes: &u64| format!("{} KiB", bytes / 1024);
    let rounds = site.options.rounds();
    let memory = alternate("memory", rounds, &parties, show, async |party| {
        let (topic, records) = [(&filled.full, filled.records), (&filled.empty, 0)][party];
        let mut consumer = site.consumer(topic)?;
        consumer.live(records).await?;
        sleep(SETTLE).await;
        let memory = consumer.memory()?;
        if records > 0 {
            let mut connection = Connection::open(consumer.address).await?;
            json = entry_bytes(&mut connection).await?;
        }
        Ok(memory)
    });
    let memory = memory.await?;

    #[allow(clippy::cast_precision_loss)] // far below 2⁵²
    let each = |bytes: f64| bytes / filled.records as f64;
    let pairs = memory[0].iter().zip(&memory[1]);
    #[allow(clippy::cast_precision_loss)] // as above
    let growth: Vec<f64> = pairs.map(|(full, empty)| each(*full as f64 - *empty as f64)).collect();
    let party = |name: &str, role, figure: &dyn Fn(f64) -> f64| {
        let samples: Vec<_> =
            growth.iter().map(|&growth| Sample::of(figure(growth), filled.records)).collect();
        Party::new(name, role, &samples).ok_or("no round was measured")
    };
    let subject = party("memory that the consumer grows by", "subject", &|growth| growth)?;
    let beyond = party("the same less 64 bytes", "subject", &|growth| growth - BESIDE)?;
    let limit = party("its JSON, as an inbox shows it", "limit", &|_| json)?;
    let limit_and = party("its JSON and 64 bytes", "limit", &|_| json + BESIDE)?;
    let value = party("its JSON, as the record's value", "limit", &|_| f64::from(filled.bytes))?;
    let ratios = [
        Ratio::new("memory / (JSON as shown + 64 B)", &subject, &limit_and, None),
        Ratio::new("(memory − 64 B) / JSON as shown", &beyond, &limit, Some(Aim::AtMost(1.6))),
        Ratio::new("(memory − 64 B) / the record's value", &beyond, &value, None),
    ];
    Ok(Section {
        name: "memory",
        title: format!(
            "a stored notification, of {} with values of {} bytes for {} users",
            filled.records, filled.bytes, filled.users
        ),
        unit: "bytes",
        parties: vec![subject, limit, value],
        ratios: ratios.into_iter().flatten().collect(),
        notes: vec![format!(
            "Anonymous memory of the process {} s after it became live, less that of one on an empty topic. What \
             the users' inboxes and the Kafka client's freed buffers keep is in it, so more --records show less.",
            SETTLE.as_secs()
        )],
        ..Section::default()
    })
}

/// The mean length of the entries of one inbox.
async fn entry_bytes(connection: &mut Connection) -> Result<f64> {
    let path = format!("/notifications/{}", records::somebody(0)?.id);
    let request = get(&path);
    let (_, body) = connection.exchange(&request).await?;
    let entries = serde_json::from_slice::<Inbox<'_>>(body)?.notifications;
    let bytes: usize = entries.iter().map(|entry| entry.get().len()).sum();
    #[allow(clippy::cast_precision_loss)] // far below 2⁵²
    Ok(bytes as f64 / entries.len().max(1) as f64)
}
