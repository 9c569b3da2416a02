//! What longer and longer messages cost to send.

use std::time::Duration;

use crate::{
    Result,
    connection::post_form,
    effort::Effort,
    figures::{Sample, Spread},
    load::Load,
    report::Section,
    rounds::alternate,
    send::USERS,
    site::Site,
};

use super::costs::{Cost, Costs, Work};

/// Lengths of messages in bytes; the last is the longest that is allowed.
const LENGTHS: [u16; 4] = [120, 400, 1500, 4096];
const CONNECTIONS: usize = 64;

/// Measures and reports.
pub(super) async fn run(site: &mut Site) -> Result<Section> {
    let topic = site.topic("body").await?;
    let producer = site.producer(&topic).await?;
    let requests = LENGTHS.map(|length| {
        let message = "x".repeat(length.into());
        let send = |(id, _)| post_form("/send", &format!("from_id=2&to_id={id}&message={message}"));
        USERS.map(send).to_vec()
    });
    let round = Duration::from_secs(if site.options.quick { 1 } else { 4 });
    let effort = Effort { connections: CONNECTIONS, round, rate: None };
    let names = LENGTHS.map(|length| format!("{length} bytes"));
    let names = names.each_ref().map(String::as_str);
    let show = |sample: &Sample| format!("{:.0} sends/s", sample.value);
    let rounds = site.options.few_rounds();
    let samples = alternate("growth-body", rounds, &names, show, async |length| {
        Load::round(&producer, &requests[length], &effort).await
    });
    let samples = samples.await?;

    let medians = |figure: fn(&Sample) -> Option<f64>| -> Vec<Option<f64>> {
        let median =
            |samples: &Vec<Sample>| Some(Spread::of(samples.iter().filter_map(figure))?.median);
        samples.iter().map(median).collect()
    };
    let (rates, cpu) = (medians(|sample| Some(sample.value)), medians(|sample| sample.cpu_us));
    let by_length = |figures: &[Option<f64>], each: fn(f64, f64) -> f64| -> Vec<_> {
        let pairs = figures.iter().zip(LENGTHS);
        pairs.map(|(figure, length)| figure.map(|figure| each(figure, length.into()))).collect()
    };
    let cost = |name: &str, each| Cost { name: name.to_owned(), each };
    Ok(Costs {
        name: "growth-body",
        title: format!("POST /send of longer and longer messages, {CONNECTIONS} connections"),
        of: "bytes of a message",
        work: Work::Grows,
        sizes: LENGTHS.map(f64::from).to_vec(),
        costs: vec![
            cost("processor time, ns a byte", by_length(&cpu, |cpu, length| cpu * 1000.0 / length)),
            cost("time, ns a byte", by_length(&rates, |rate, length| 1e9 / (rate * length))),
        ],
        beside: vec![
            cost("processor time of a send, µs", cpu),
            cost("sends/s", rates),
            cost("p50, ms", medians(|sample| sample.p50_ms)),
        ],
        notes: Vec::new(),
    }
    .section())
}
