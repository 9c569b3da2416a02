//! `bench fanout`: many who listen, each to an inbox of their own: what an idle one costs, and how
//! late the last of them hears of a notification when all are sent one at once.

mod burst;

use crate::{
    Result,
    figures::{Aim, Party, Ratio, Sample},
    report::Section,
    rounds::alternate,
    site::Site,
};

pub(crate) use burst::all_at_once;

/// How many listen.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct FanoutArgs {
    /// Streams that are open at a time [default: 10000; quick: 2000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    subscribers: Option<u32>,
}

/// Measures and reports.
pub(crate) async fn run(site: &mut Site, args: &FanoutArgs) -> Result<Section> {
    let count = args.subscribers.unwrap_or(if site.options.quick { 2000 } else { 10_000 });
    let count = usize::try_from(count)?;
    let topic = site.topic("fanout").await?;
    let mut consumer = site.consumer(&topic)?;
    consumer.live(0).await?;
    let mut idle = Vec::new();
    let show = |sample: &Sample| format!("the last of {count} was {:.0} ms late", sample.value);
    let parties = ["all listen"];
    let rounds = site.options.rounds();
    let lateness = alternate("fanout", rounds, &parties, show, async |_| {
        let heard = all_at_once(&site.kafka, &topic, &consumer, count).await?;
        idle.push(heard.stream_bytes);
        Ok(heard.lateness)
    });
    let lateness = lateness.await?;

    let nothing = "no round was measured";
    // The first round warms up, and what it made the allocator keep would flatter the others.
    let idle =
        Party::new("memory of an idle stream, in bytes", "subject", &idle[..1]).ok_or(nothing)?;
    let one = |name: &str, value| Party::new(name, "limit", &[Sample::of(value, 1)]).ok_or(nothing);
    let (budget, second) = (one("8 KiB", 8192.0)?, vec![Sample::of(1000.0, 1); lateness[0].len()]);
    let second = Party::new("a second, in ms", "limit", &second).ok_or(nothing)?;
    let last =
        Party::new("the last event's lateness, in ms", "subject", &lateness[0]).ok_or(nothing)?;
    let ratios = [
        Ratio::new("an idle stream / 8 KiB", &idle, &budget, Some(Aim::AtMost(1.0))),
        Ratio::new("the last event / 1 s", &last, &second, Some(Aim::AtMost(1.0))),
    ];
    Ok(Section {
        name: "fanout",
        title: format!("{count} streams of as many inboxes, one notification each, all at once"),
        unit: "as named",
        parties: vec![idle, last, budget, second],
        ratios: ratios.into_iter().flatten().collect(),
        notes: vec![
            "An idle stream is measured in the first round, on a consumer that had none before: what the process \
             grows by, the connection's own buffers included, the kernel's not."
                .into(),
            "Late is from when the record was handed to rdkafka until its event was read; all records are \
             handed over in one burst, and whoever listens shares the processors."
                .into(),
        ],
        ..Section::default()
    })
}
