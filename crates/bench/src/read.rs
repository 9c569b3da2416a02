//! `bench read`: what a GET of an inbox costs, in steps from a constant to a consumer with tokens,
//! and for inboxes of different length.

use crate::{
    Result,
    figures::{Spread, costs},
    http::{HttpConnection, get_request, get_request_with},
    kafka::PARTITIONS,
    load::{LoadProfile, run_on_thread, send_load},
    process::{ServerProcess, free_address},
    records::{encode_with_size, generated_user},
    report::{Aim, Section},
    testbed::Testbed,
    turns::{half_of_the_slowest, show_sample, take_turns},
};

/// Enough inboxes to lie in every partition.
const INBOXES: u64 = 64;
const ENTRIES: u64 = 10;
pub(crate) const VALUE_BYTES: usize = 200;
const CONNECTIONS: usize = 64;
/// The steps; each does what the one before it does, and more.
const STEPS: [&str; 5] = [
    "a constant by axum, with time-outs",
    "a constant by our server",
    "… with our layers",
    "consumer",
    "consumer with a token",
];
/// Notifications of all inboxes together, where their length grows.
const TOTAL: u64 = 64_000;
const LENGTHS: [u64; 3] = [10, 100, 1000];

pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let mut section = Section::new("read", format!("GET of an inbox, {CONNECTIONS} connections"));
    measure_steps(testbed, &mut section).await?;
    measure_lengths(testbed, &mut section).await?;
    Ok(section)
}

async fn measure_steps(testbed: &mut Testbed, section: &mut Section) -> Result<()> {
    let records = INBOXES * ENTRIES;
    let topic = testbed.create_topic("read", PARTITIONS).await?;
    fill(testbed, &topic, records, INBOXES).await?;
    let (consumer, _) = testbed.start_consumer(&topic, records, &[]).await?;
    let group = testbed.unique_name("group");
    let mut guarded = testbed.spawn_consumer(free_address()?, &topic, &group, &[], true)?;
    guarded.await_ready().await?;
    let (mut open, mut with_token) = (Vec::new(), Vec::new());
    for index in 0..INBOXES {
        let id = generated_user(index)?.id;
        open.push(get_request(&format!("/notifications/{id}")));
        let header = testbed.token_header(id.get(), &[])?;
        with_token.push(get_request_with(&format!("/notifications/{id}"), &header));
    }
    let body = read_inbox(&guarded, &with_token[0]).await?;
    assert_entries(&body)?;
    let file = testbed.folder().join("inbox.json");
    std::fs::write(&file, read_inbox(&consumer, &open[0]).await?)?;
    let file = file.to_string_lossy();
    let mut servers = Vec::new();
    for server in ["axum", "ours", "layered"] {
        servers.push(
            testbed.start_limit(&["constant", "--body", &file, "--server", server], &[]).await?,
        );
    }
    servers.extend([consumer, guarded]);

    let run = async |step: usize, profile| {
        let requests = if step == STEPS.len() - 1 { &with_token } else { &open };
        send_load(&servers[step], None, requests, profile).await
    };
    let options = &testbed.options;
    let profile = LoadProfile::closed(CONNECTIONS, options.round());
    let title = "As much as can be, 10 entries";
    let closed = take_turns(title, options.few_rounds(), &STEPS, show_sample, async |step| {
        run(step, profile).await
    });
    let closed = closed.await?;
    section.add_samples(title, &STEPS, &closed);
    let rate = options.rate.map_or_else(|| half_of_the_slowest(&closed), Ok)?;
    let title = format!("{rate} a second, 10 entries of {} bytes", body.len());
    let profile = LoadProfile { rate: Some(rate), ..profile };
    let open = take_turns(&title, options.rounds(), &STEPS, show_sample, async |step| {
        run(step, profile).await
    });
    let open = open.await?;
    section.add_samples(&title, &STEPS, &open);
    section.add_latencies(&format!("GET of an inbox: latency, {rate} a second"), &STEPS, &open);
    let steps: Vec<Spread> = open.iter().filter_map(|samples| costs(samples)).collect();
    for (step, pair) in STEPS[1..].iter().zip(steps.windows(2)) {
        if let Some(Spread { median, min, max, .. }) = pair[1].minus(&pair[0]) {
            section.note(format!("{step}: {median:+.1} µs ({min:+.1} to {max:+.1})."));
        }
    }
    let [constant, .., consumer, token] = steps.as_slice() else { return Ok(()) };
    let work = "GET of a 10-entry inbox, processor time";
    section.judge(work, STEPS[0], consumer.divided_by(constant), "×", Aim::AtMost(1.3));
    section.judge(
        &format!("{work}, with a token"),
        STEPS[0],
        token.divided_by(constant),
        "×",
        Aim::AtMost(1.4),
    );
    Ok(())
}

async fn measure_lengths(testbed: &mut Testbed, section: &mut Section) -> Result<()> {
    let (mut consumers, mut requests) = (Vec::new(), Vec::new());
    for entries in LENGTHS {
        let topic = testbed.create_topic("length", PARTITIONS).await?;
        fill(testbed, &topic, TOTAL, TOTAL / entries).await?;
        consumers.push(testbed.start_consumer(&topic, TOTAL, &[]).await?.0);
        let of = |index| {
            Ok(get_request(&format!("/notifications/{}?limit=10", generated_user(index)?.id)))
        };
        // Many more inboxes than a cache of the processor holds.
        requests.push((0..TOTAL / entries).map(of).collect::<Result<Vec<_>>>()?);
    }
    let names = LENGTHS.map(|entries| format!("inboxes of {entries}"));
    let names = names.each_ref().map(String::as_str);
    let options = &testbed.options;
    let rate = options.rate.unwrap_or(8_000);
    let profile =
        LoadProfile { rate: Some(rate), ..LoadProfile::closed(CONNECTIONS, options.round()) };
    let title = format!("{rate} a second, limit=10, {TOTAL} notifications in all");
    let samples =
        take_turns(&title, options.rounds(), &names, show_sample, async |length: usize| {
            send_load(&consumers[length], None, &requests[length], profile).await
        });
    let samples = samples.await?;
    section.add_samples(&title, &names, &samples);
    let ratio = costs(&samples[2]).and_then(|long| long.divided_by(&costs(&samples[0])?));
    section.judge(
        "GET limit=10 of a 1,000-entry inbox",
        "of a 10-entry inbox",
        ratio,
        "×",
        Aim::AtMost(1.1),
    );
    Ok(())
}

/// Appends this many notifications for users in turns, as with real senders.
pub(crate) async fn fill(
    testbed: &Testbed,
    topic: &crate::kafka::BenchTopic,
    records: u64,
    users: u64,
) -> Result<()> {
    let (kafka, topic) = (testbed.kafka.clone(), topic.clone());
    run_on_thread(async move || {
        let users = (0..users).map(generated_user).collect::<Result<Vec<_>>>()?;
        let recipients = users.iter().cycle().zip(0..records);
        kafka
            .fill_topic(&topic, recipients.map(|(user, _)| encode_with_size(user, VALUE_BYTES)))
            .await
    })
    .await
}

async fn read_inbox(consumer: &ServerProcess, request: &[u8]) -> Result<Vec<u8>> {
    let mut connection = HttpConnection::connect(consumer.address).await?;
    match connection.send_request(request).await? {
        (200, body) => Ok(body.to_vec()),
        (status, _) => Err(format!("an inbox was answered {status}").into()),
    }
}

fn assert_entries(body: &[u8]) -> Result<()> {
    let page: serde_json::Value = serde_json::from_slice(body)?;
    let entries = page["notifications"].as_array().map_or(0, Vec::len);
    if u64::try_from(entries)? == ENTRIES {
        return Ok(());
    }
    Err(format!("an inbox of {ENTRIES} has {entries} entries").into())
}
