//! `bench read`: GET of a 10-entry inbox in a closed and an open loop, beside axum returning the same bytes
//! from a constant.

use crate::{
    Result,
    connection::{Connection, get},
    figures::{Aim, Party, Ratio},
    load::Load,
    loops::{Loops, Measured},
    options::{LoadArgs, PaceArgs},
    records,
    report::Section,
    send::OPEN_LOOP,
    site::Site,
};

const CONSUMER: &str = "consumer";
const CONSTANT: &str = "axum returning the same bytes from a constant";
/// How many inboxes are read: enough to lie in every partition.
const INBOXES: u64 = 64;
const ENTRIES: u64 = 10;
/// The length of a record's value.
const BYTES: usize = 200;

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, load: &LoadArgs, pace: &PaceArgs) -> Result<Section> {
    let topic = site.topic("read").await?;
    let (kafka, filled) = (site.kafka.clone(), topic.clone());
    let notifications = (0..INBOXES * ENTRIES)
        .map(|n| records::of_size(&records::somebody(n % INBOXES)?, BYTES))
        .collect::<Result<Vec<_>>>()?;
    let records =
        tokio::task::spawn_blocking(move || kafka.fill(&filled, notifications.into_iter()))
            .await??;
    let mut consumer = site.consumer(&topic)?;
    consumer.live(records).await?;

    let mut requests = Vec::new();
    for index in 0..INBOXES {
        requests.push(get(&format!("/notifications/{}", records::somebody(index)?.id)));
    }
    let mut connection = Connection::open(consumer.address).await?;
    let (status, body) = connection.exchange(&requests[0]).await?;
    let entries = serde_json::from_slice::<Inbox<'_>>(body)?.notifications.len();
    if (status, entries) != (200, usize::try_from(ENTRIES)?) {
        return Err(format!(
            "an inbox of {ENTRIES} was answered with {status} and {entries} entries"
        )
        .into());
    }
    let length = body.len();
    let file = site.folder().join("inbox.json");
    std::fs::write(&file, body)?;
    drop(connection);
    let constant = site.limit(&["constant", "--body", &file.to_string_lossy()], &[]).await?;

    let measured = Measured {
        name: "read",
        what: "GET of an inbox",
        unit: "reads/s",
        parties: &[CONSUMER, CONSTANT],
    };
    let loops = measured.in_loops(&site.options, load, pace, async |party, effort| {
        let service = if party == 0 { &consumer } else { &constant };
        Load::round(service, &requests, effort).await
    });
    let Loops { closed: samples, open, concurrency } = loops.await?;

    let nothing = "no round was measured";
    let subject = Party::new(CONSUMER, "subject", &samples[0]).ok_or(nothing)?;
    let limit = Party::new(CONSTANT, "limit", &samples[1]).ok_or(nothing)?;
    let name = format!("{CONSUMER} / constant");
    let ratios =
        Ratio::new(&name, &subject, &limit, Some(Aim::AtLeast(0.85))).into_iter().collect();
    Ok(Section {
        name: "read",
        title: format!(
            "GET of a {ENTRIES}-entry inbox ({length} bytes), {} connections, closed loop",
            load.connections
        ),
        unit: "reads/s",
        parties: vec![subject, limit],
        ratios,
        tables: vec![concurrency.table()],
        charts: vec![open.chart("read", "GET of an inbox"), concurrency],
        open_loop: Some(open),
        notes: vec![
            OPEN_LOOP.into(),
            "The load generator reads every byte. Where it is the bottleneck, the ratio flatters; the processor \
             time of each answer does not depend on it."
                .into(),
        ],
    })
}

/// The part of an inbox's answer that is measured.
#[derive(serde::Deserialize)]
pub(crate) struct Inbox<'a> {
    /// Each entry's JSON as it came.
    #[serde(borrow)]
    pub(crate) notifications: Vec<&'a serde_json::value::RawValue>,
}
