//! `bench send`: POST /send in a closed and an open loop, beside the same handler without Kafka and beside a
//! bare rdkafka loop that writes the same records to the same topic.

use model::{User, UserId};

use crate::{
    Result,
    connection::post_form,
    figures::{Aim, Party, Ratio},
    load::Load,
    loops::{Loops, Measured},
    options::{LoadArgs, PaceArgs},
    records,
    report::Section,
    site::Site,
};

const PRODUCER: &str = "producer";
const NO_KAFKA: &str = "the same handler without Kafka";
const BARE: &str = "bare rdkafka loop";
pub(crate) const MESSAGE: &str = "Bruno commented on your photo: “What a view! Where did you take it, and may I come along next time?”";
/// What is to be known of every open loop.
pub(crate) const OPEN_LOOP: &str = "In the open loop a request is due at its time, however long the ones before it take, and its \
    latency runs from then: what waited because all connections were busy counts.";
/// Those whom the migration makes: the recipients.
pub(crate) const USERS: [(i64, &str); 4] = [(1, "Emma"), (2, "Bruno"), (3, "Rick"), (4, "Lena")];

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, load: &LoadArgs, pace: &PaceArgs) -> Result<Section> {
    let topic = site.topic("send").await?;
    let producer = site.producer(&topic).await?;
    let url = site.database_url()?;
    let no_kafka = site.limit(&["send"], &[("DATABASE_URL", &url)]).await?;

    let (mut requests, mut same) = (Vec::new(), Vec::new());
    for (id, name) in USERS {
        requests.push(post_form("/send", &format!("from_id=2&to_id={id}&message={MESSAGE}")));
        same.push(records::notification(
            &User { id: UserId::new(id)?, name: name.into() },
            MESSAGE,
        )?);
    }
    let measured = Measured {
        name: "send",
        what: "POST /send",
        unit: "sends/s",
        parties: &[PRODUCER, NO_KAFKA, BARE],
    };
    let loops = measured.in_loops(&site.options, load, pace, async |party, effort| match party {
        0 => Load::round(&producer, &requests, effort).await,
        1 => Load::round(&no_kafka, &requests, effort).await,
        _ => site.kafka.append_loop(&topic, &same, effort).await,
    });
    let Loops { closed: samples, open, concurrency } = loops.await?;

    let nothing = "no round was measured";
    let subject = Party::new(PRODUCER, "subject", &samples[0]).ok_or(nothing)?;
    let no_kafka = Party::new(NO_KAFKA, "limit", &samples[1]).ok_or(nothing)?;
    let bare = Party::new(BARE, "limit", &samples[2]).ok_or(nothing)?;
    let mut ratios = Vec::new();
    // The slower limit is the one that nobody can beat; the other is shown for what it teaches.
    let no_kafka_is_slower = no_kafka.value.median <= bare.value.median;
    for (limit, slower) in [(&no_kafka, no_kafka_is_slower), (&bare, !no_kafka_is_slower)] {
        let name = format!(
            "{PRODUCER} / {}{}",
            limit.name,
            if slower { " (the slower limit)" } else { "" }
        );
        ratios.extend(Ratio::new(&name, &subject, limit, slower.then_some(Aim::AtLeast(0.70))));
    }
    Ok(Section {
        name: "send",
        title: format!("POST /send, acks=all, {} connections, closed loop", load.connections),
        unit: "sends/s",
        parties: vec![subject, no_kafka, bare],
        ratios,
        tables: vec![concurrency.table()],
        charts: vec![open.chart("send", "POST /send"), concurrency],
        open_loop: Some(open),
        notes: vec![
            "Both servers are processes of their own; the load generator is a thread of another. The bare loop \
             needs neither server nor load generator, which leaves it and the broker more of the processors."
                .into(),
            OPEN_LOOP.into(),
            "Four recipients, so four of twelve partitions at most, for all parties alike.".into(),
        ],
    })
}
