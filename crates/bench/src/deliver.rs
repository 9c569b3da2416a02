//! `bench deliver`: how long until a notification that was sent is an event on its recipient's
//! stream, in an open loop at a fixed rate, beside rdkafka's own way from produce to consume.

mod round;

use crate::{
    Result,
    figures::{Aim, Party, Ratio, Sample},
    loops::latency,
    percentiles::{OpenLoop, Percentiles},
    report::Section,
    rounds::alternate,
    site::Site,
};

use round::{Round, Way};

const SENT: &str = "POST /send → event";
const APPENDED: &str = "rdkafka produce → event";
const BARE: &str = "rdkafka produce → consume";

/// How much is sent.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct DeliverArgs {
    /// Notifications a second
    #[arg(long, default_value_t = 500, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) deliver_rate: u32,

    /// Seconds that a round of deliveries takes [default: 6; quick: 3]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=300))]
    pub(crate) deliver_seconds: Option<u32>,
}

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, args: &DeliverArgs) -> Result<Section> {
    let topic = site.topic("deliver").await?;
    let producer = site.producer(&topic).await?;
    let mut consumer = site.consumer(&topic)?;
    consumer.live(0).await?;
    let seconds = args.deliver_seconds.unwrap_or(if site.options.quick { 3 } else { 6 });
    let round = Round {
        kafka: site.kafka.clone(),
        topic,
        producer: producer.address,
        consumer: consumer.address,
        rate: args.deliver_rate,
        count: usize::try_from(args.deliver_rate * seconds)?,
    };
    let parties = [SENT, APPENDED, BARE];
    let samples = alternate("deliver", site.options.rounds(), &parties, latency, async |party| {
        let round = round.clone();
        tokio::task::spawn_blocking(move || match party {
            0 => round.measured(Way::Send),
            1 => round.measured(Way::Append),
            _ => round.bare(),
        })
        .await?
    });
    let samples = samples.await?;

    let nothing = "no round was measured";
    let party =
        |index: usize, role| Party::new(parties[index], role, &samples[index]).ok_or(nothing);
    let quantile = |index: usize, figure: fn(&Sample) -> Option<f64>| {
        let values = samples[index].iter().filter_map(figure).map(|ms| Sample::of(ms, 1));
        Party::new(parties[index], "", &values.collect::<Vec<_>>()).ok_or(nothing)
    };
    let (p50, p99) = (|one: &Sample| one.p50_ms, |one: &Sample| one.p99_ms);
    let ratios = [
        Ratio::difference(
            &format!("p50 in ms: {SENT}, less {BARE}"),
            &quantile(0, p50)?,
            &quantile(2, p50)?,
            Some(Aim::AtMost(1.0)),
        ),
        Ratio::new(
            &format!("p99: {SENT} / {BARE}"),
            &quantile(0, p99)?,
            &quantile(2, p99)?,
            Some(Aim::AtMost(2.0)),
        ),
        Ratio::difference(
            &format!("p50 in ms: {APPENDED}, less {BARE}"),
            &quantile(1, p50)?,
            &quantile(2, p50)?,
            None,
        ),
    ];
    let role = |index| if index == 2 { "limit" } else { "subject" };
    let percentiles =
        (0..3).map(|index| Percentiles::of(parties[index], role(index), &samples[index]));
    let open = OpenLoop { rate: args.deliver_rate, parties: percentiles.collect::<Result<_>>()? };
    Ok(Section {
        name: "deliver",
        title: format!("from a send to its event, {} a second, open loop", args.deliver_rate),
        unit: "events/s",
        parties: vec![party(0, "subject")?, party(1, "subject")?, party(2, "limit")?],
        ratios: ratios.into_iter().flatten().collect(),
        charts: vec![open.chart("deliver", "From a send to its event")],
        open_loop: Some(open),
        notes: vec![
            "Each send begins when it is due, however long the ones before it take; its latency runs from then \
             until the event has been read from the stream. The producer knows the \
             users' names from its cache."
                .into(),
        ],
        ..Section::default()
    })
}
