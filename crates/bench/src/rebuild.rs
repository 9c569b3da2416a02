//! `bench rebuild`: how fast a starting consumer applies a topic, beside rdkafka reading the same
//! topic and dropping it.

use std::time::Duration;

use crate::{
    Result,
    chart::{Axis, Chart, Scale, Series},
    figures::{Aim, Party, Ratio, Spread},
    fill::FilledTopic,
    load::run_on_thread,
    loops::alternate,
    meter::ReadCurve,
    report::Section,
    testbed::Testbed,
};

const CONSUMER: &str = "consumer";
const DROPPING: &str = "rdkafka reading and dropping";

pub(crate) async fn measure(testbed: &mut Testbed, filled: &FilledTopic) -> Result<Section> {
    let parties = ["consumer on the full topic", "consumer on the empty topic", DROPPING];
    let show = |curve: &ReadCurve| format!("{:.3} s", curve.duration().as_secs_f64());
    let (rounds, records) = (testbed.options.rounds(), filled.size.records);
    let curves = alternate("rebuild", rounds, &parties, show, async |party| {
        if party < 2 {
            let (topic, records) = filled.select(party == 0);
            return Ok(testbed.start_consumer(topic, records).await?.1);
        }
        let (kafka, topic) = (testbed.kafka.clone(), filled.full.clone());
        run_on_thread(async move || kafka.read_topic(&topic, records)).await
    });
    let curves = curves.await?;

    let start = Spread::new(curves[1].iter().map(|curve| curve.duration().as_secs_f64()))
        .ok_or("no round was measured")?;
    let start_spread = Duration::from_secs_f64(start.max - start.min);
    let rate = |took: Duration| records as f64 / took.as_secs_f64();
    let (mut rates, mut start_share) = (Vec::new(), 0.0f64);
    for curve in &curves[0] {
        // Less the median start: with the start of the same round, its spread would count twice.
        let applying = curve.duration().checked_sub(Duration::from_secs_f64(start.median));
        let applying = applying
            .filter(|applying| *applying > start_spread)
            .ok_or("the rebuild cannot be told from the start; try more --records")?;
        start_share = start_share.max(start_spread.as_secs_f64() / applying.as_secs_f64());
        rates.push(rate(applying));
    }
    let dropping = curves[2].iter().map(|curve| rate(curve.duration()));

    let subject = Party::from_values(CONSUMER, "subject", rates, records)?;
    let limit = Party::from_values(DROPPING, "limit", dropping, records)?;
    let name = format!("{CONSUMER} / {DROPPING}");
    let ratio = Ratio::new(&name, &subject, &limit, Some(Aim::AtLeast(0.60)))?;
    Ok(Section {
        name: "rebuild",
        title: format!(
            "a consumer's start on {records} records of {} bytes for {} users",
            filled.size.value_bytes, filled.size.users
        ),
        unit: "records/s",
        parties: vec![subject, limit],
        ratios: vec![ratio],
        notes: vec![
            format!(
                "The consumer's time runs from the start of its process until every partition is live, less the \
                 same on an empty topic: {:.2} s ({:.2}–{:.2}). That start's spread is at most {:.0} % of what is \
                 left; more --records make it less.",
                start.median,
                start.min,
                start.max,
                start_share * 100.0
            ),
            "The limit's time runs from the assignment to the last record, on a client that is already connected."
                .into(),
        ],
        charts: vec![Chart {
            name: "rebuild-over-time".into(),
            title: "Rebuild: records read over time".into(),
            x: Axis {
                title: "seconds from the start of the process, or of reading".into(),
                scale: Scale::Linear,
            },
            y: Axis { title: "records".into(), scale: Scale::Linear },
            series: vec![median_round(CONSUMER, &curves[0]), median_round(DROPPING, &curves[2])],
        }],
        ..Section::default()
    })
}

/// The curve of the round that took the median time.
fn median_round(name: &str, rounds: &[ReadCurve]) -> Series {
    let mut rounds: Vec<_> = rounds.iter().collect();
    rounds.sort_by_key(|curve| curve.duration());
    let points = rounds.get(rounds.len() / 2).map(|curve| curve.points()).unwrap_or_default();
    Series { name: name.to_owned(), points }
}
