//! `bench send`: POST /send in a closed loop, beside the same handler without Kafka and beside a
//! bare rdkafka loop that writes the same records to the same topic.

use std::time::Instant;

use model::{User, UserId};

use crate::{
    Result,
    figures::{Aim, Party, Ratio, Sample},
    load::{Load, post_form},
    records,
    report::Section,
    rounds::alternate,
    site::{LoadArgs, Site},
    subjects::Service,
};

const PRODUCER: &str = "producer";
const NO_KAFKA: &str = "the same handler without Kafka";
const BARE: &str = "bare rdkafka loop";
pub(crate) const MESSAGE: &str = "Bruno commented on your photo: “What a view! Where did you take it, and may I come along next time?”";
/// Those whom the migration makes: the recipients.
pub(crate) const USERS: [(i64, &str); 4] = [(1, "Emma"), (2, "Bruno"), (3, "Rick"), (4, "Lena")];

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, args: &LoadArgs) -> Result<Section> {
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
    let connections = usize::from(args.connections);
    let round = args.round(site.options.quick);
    let load = |service: &Service| Load {
        address: service.address,
        requests: requests.clone(),
        connections,
        round,
    };
    let show = |sample: &Sample| format!("{:.0} sends/s", sample.value);
    let parties = [PRODUCER, NO_KAFKA, BARE];
    let samples =
        alternate("send", site.options.rounds(), &parties, show, async |party| match party {
            0 => served(&producer, &load(&producer)).await,
            1 => served(&no_kafka, &load(&no_kafka)).await,
            _ => site.kafka.append_loop(&topic, same.clone(), connections, round).await,
        });
    let samples = samples.await?;

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
        title: format!("POST /send, acks=all, {connections} connections, closed loop"),
        unit: "sends/s",
        parties: vec![subject, no_kafka, bare],
        ratios,
        notes: vec![
            "Both servers are processes of their own; the load generator is a thread of another. The bare loop \
             needs neither server nor load generator, which leaves it and the broker more of the processors."
                .into(),
            "Four recipients, so four of twelve partitions at most, for all parties alike.".into(),
        ],
    })
}

/// One round, with the processor time that the server took for each answer.
pub(crate) async fn served(service: &Service, load: &Load) -> Result<Sample> {
    let (before, started) = (service.cpu(), Instant::now());
    let mut sample = load.round().await?;
    debug_assert!(started.elapsed() >= load.round);
    #[allow(clippy::cast_precision_loss)] // counts of a few seconds
    let answers = (sample.count + sample.failed) as f64;
    let spent = service.cpu().zip(before).map(|(after, before)| after.saturating_sub(before));
    sample.cpu_us = spent.map(|spent| spent.as_secs_f64() * 1e6 / answers);
    Ok(sample)
}
