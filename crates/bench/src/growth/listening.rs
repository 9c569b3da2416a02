//! What more and more open streams cost.

use crate::{Result, fanout::all_at_once, report::Section, site::Site};

use super::costs::{Cost, Costs, Work};

/// How many are open at a time.
const STREAMS: [u16; 4] = [10, 100, 1000, 10_000];

/// Measures and reports.
pub(super) async fn run(site: &mut Site) -> Result<Section> {
    let streams = &STREAMS[..if site.options.quick { 3 } else { 4 }];
    let (mut memory, mut late, mut each) = (Vec::new(), Vec::new(), Vec::new());
    for &count in streams {
        crate::say(format_args!("growth-subscribers: {count}"));
        let topic = site.topic("listening").await?;
        let mut consumer = site.consumer(&topic)?;
        consumer.live(0).await?;
        // Memory of the first, before which the process had no stream; lateness of the second, when
        // all paths are warm.
        let first = all_at_once(&site.kafka, &topic, &consumer, count.into()).await?;
        let second = all_at_once(&site.kafka, &topic, &consumer, count.into()).await?;
        site.remove(&topic).await?;
        memory.push(Some(first.stream_bytes.value));
        late.push(Some(second.lateness.value));
        each.push(Some(second.lateness.value * 1000.0 / f64::from(count)));
    }
    let cost = |name: &str, each| Cost { name: name.to_owned(), each };
    Ok(Costs {
        name: "growth-subscribers",
        title: "more and more open streams, one notification each in one burst".into(),
        of: "subscribers",
        work: Work::Grows,
        sizes: streams.iter().map(|count| f64::from(*count)).collect(),
        costs: vec![
            cost("memory of an idle stream, bytes", memory),
            cost("lateness of the last event, µs a stream", each),
        ],
        beside: vec![cost("the last event is late by, ms", late)],
        notes: vec![
            "The memory of few streams is lost in what a process's memory varies by.".into(),
        ],
    }
    .section())
}
