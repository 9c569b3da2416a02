//! `bench read`: GET of a 10-entry inbox in a closed and an open loop, beside axum returning the
//! same bytes from a constant.

use crate::{
    Result,
    figures::{Aim, Ratio},
    http::{HttpConnection, get_request},
    kafka::PARTITIONS,
    load::{run_on_thread, send_load},
    loops::{Comparison, OPEN_LOOP_NOTE},
    options::LoopArgs,
    records::{encode_with_size, generated_user},
    report::Section,
    testbed::Testbed,
};

/// Enough inboxes to lie in every partition.
const INBOXES: u64 = 64;
const ENTRIES: u64 = 10;
const VALUE_BYTES: usize = 200;

pub(crate) async fn measure(testbed: &mut Testbed, args: &LoopArgs) -> Result<Section> {
    let topic = testbed.create_topic("read", PARTITIONS).await?;
    let (kafka, full) = (testbed.kafka.clone(), topic.clone());
    let encode = |n| encode_with_size(&generated_user(n % INBOXES)?, VALUE_BYTES);
    run_on_thread(async move || kafka.fill_topic(&full, (0..INBOXES * ENTRIES).map(encode)).await)
        .await?;
    let (consumer, _) = testbed.start_consumer(&topic, INBOXES * ENTRIES).await?;

    let request = |index| Ok(get_request(&format!("/notifications/{}", generated_user(index)?.id)));
    let requests = (0..INBOXES).map(request).collect::<Result<Vec<_>>>()?;
    let mut connection = HttpConnection::connect(consumer.address).await?;
    let (status, body) = connection.send_request(&requests[0]).await?;
    let entries = serde_json::from_slice::<InboxBody<'_>>(body)?.notifications.len();
    if (status, entries) != (200, usize::try_from(ENTRIES)?) {
        let found = format!("{status} and {entries} entries");
        return Err(format!("an inbox of {ENTRIES} was answered with {found}").into());
    }
    let length = body.len();
    let file = testbed.folder().join("inbox.json");
    std::fs::write(&file, body)?;
    drop(connection);
    let arguments = ["constant", "--body", &file.to_string_lossy()];
    let constant = testbed.start_limit(&arguments, &[]).await?;

    let comparison = Comparison {
        name: "read",
        request: "GET of an inbox",
        unit: "reads/s",
        parties: &["consumer", "axum returning the same bytes from a constant"],
    };
    let measuring = comparison.measure(&testbed.options, args, async |party, profile| {
        send_load([&consumer, &constant][party], &requests, profile).await
    });
    let section = measuring.await?;
    let (subject, limit) = (&section.parties[0], &section.parties[1]);
    let ratio = Ratio::new("consumer / constant", subject, limit, Some(Aim::AtLeast(0.85)))?;
    Ok(Section {
        title: format!(
            "GET of a {ENTRIES}-entry inbox ({length} bytes), {} connections, closed loop",
            args.load.connections
        ),
        ratios: vec![ratio],
        notes: vec![
            OPEN_LOOP_NOTE.into(),
            "The load generator reads every byte. Where it is the bottleneck, the ratio flatters; the processor \
             time of each answer does not depend on it."
                .into(),
        ],
        ..section
    })
}

/// The measured part of a page.
#[derive(serde::Deserialize)]
pub(crate) struct InboxBody<'a> {
    /// The JSON of each entry.
    #[serde(borrow)]
    pub(crate) notifications: Vec<&'a serde_json::value::RawValue>,
}
