//! What is measured of everything that answers requests, in three parts: a closed loop, which says
//! how much goes through; an open one, which says how long a request takes that comes when it comes;
//! and short closed ones of more and more connections.

use std::time::Duration;

use crate::{
    Result,
    chart::{Axis, Chart, Scale, Series},
    effort::Effort,
    figures::{Sample, Spread},
    options::{LoadArgs, Options, PaceArgs},
    percentiles::{OpenLoop, Percentiles},
    rounds::alternate,
    say,
};

/// How many connections there are, one after the other.
const CONNECTIONS: [u16; 5] = [1, 4, 16, 64, 256];

/// Who is measured, and what of.
#[derive(Debug)]
pub(crate) struct Measured<'a> {
    /// The subcommand.
    pub(crate) name: &'a str,
    /// What the charts call it.
    pub(crate) what: &'a str,
    /// Of throughput.
    pub(crate) unit: &'a str,
    /// The subject first, then its limits.
    pub(crate) parties: &'a [&'a str],
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Loops {
    /// Each party's samples of the closed loop.
    pub(crate) closed: Vec<Vec<Sample>>,
    pub(crate) open: OpenLoop,
    /// Throughput by connections.
    pub(crate) concurrency: Chart,
}

impl Measured<'_> {
    /// Measures all three; `measure` is one round of one party.
    pub(crate) async fn in_loops(
        &self,
        options: &Options,
        load: &LoadArgs,
        pace: &PaceArgs,
        mut measure: impl AsyncFnMut(usize, &Effort) -> Result<Sample>,
    ) -> Result<Loops> {
        let Self { name, unit, parties, .. } = *self;
        let show = |sample: &Sample| format!("{:.0} {unit}", sample.value);
        let effort = load.closed(options.quick);
        let closed = alternate(name, options.rounds(), parties, show, async |party| {
            measure(party, &effort).await
        });
        let closed = closed.await?;

        let rate = pace.rate.map_or_else(|| half_of_the_slowest(&closed), Ok)?;
        say(format_args!("{name}: from here on {rate} a second, open loop"));
        let effort = Effort { rate: Some(rate), ..effort };
        let open = alternate(name, options.few_rounds(), parties, latency, async |party| {
            measure(party, &effort).await
        });
        let open = open.await?;
        let role = |party| if party == 0 { "subject" } else { "limit" };
        let percentiles = open
            .iter()
            .enumerate()
            .map(|(party, samples)| Percentiles::of(parties[party], role(party), samples));
        let open = OpenLoop { rate, parties: percentiles.collect::<Result<_>>()? };

        let mut series: Vec<_> = parties
            .iter()
            .map(|name| Series { name: (*name).to_owned(), points: Vec::new() })
            .collect();
        let round = Duration::from_millis(if options.quick { 500 } else { 2000 });
        for connections in CONNECTIONS {
            let effort = Effort { connections: connections.into(), round, rate: None };
            let title = format!("{name}, {connections} connections");
            let samples = alternate(&title, options.short_rounds(), parties, show, async |party| {
                measure(party, &effort).await
            });
            for (series, samples) in series.iter_mut().zip(samples.await?) {
                let values = samples.iter().map(|sample| sample.value);
                let value = Spread::of(values).ok_or("no round was measured")?.median;
                series.points.push((f64::from(connections), value));
            }
        }
        Ok(Loops { closed, open, concurrency: self.concurrency(series) })
    }

    fn concurrency(&self, series: Vec<Series>) -> Chart {
        Chart {
            name: format!("{}-concurrency", self.name),
            title: format!("{}: throughput by connections", self.what),
            x: Axis { title: "connections".into(), scale: Scale::Sizes },
            // A limit may do ten times what the others do, and these are still to be told apart.
            y: Axis { title: self.unit.to_owned(), scale: Scale::Logarithmic },
            series,
        }
    }
}

/// A line about the latencies of a round.
pub(crate) fn latency(sample: &Sample) -> String {
    let ms = |figure: Option<f64>| figure.unwrap_or(f64::NAN);
    format!("p50 {:.2} ms, p99 {:.2} ms", ms(sample.p50_ms), ms(sample.p99_ms))
}

/// Half of what the slowest party did in a closed loop, to two digits: a rate at which nobody should
/// fall behind.
fn half_of_the_slowest(closed: &[Vec<Sample>]) -> Result<u32> {
    let median = |samples: &Vec<Sample>| {
        Spread::of(samples.iter().map(|sample| sample.value)).map(|spread| spread.median)
    };
    let slowest = closed.iter().filter_map(median).reduce(f64::min);
    let half = slowest.ok_or("no round was measured")? / 2.0;
    let digit = 10f64.powf((half.max(1.0).log10().floor() - 1.0).max(0.0));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // positive, and far below 2³²
    Ok(((half / digit).floor() * digit).max(1.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_loop_has_half_of_what_the_slowest_did() {
        let party = |values: &[f64]| values.iter().map(|value| Sample::of(*value, 1)).collect();
        let closed =
            [party(&[41_000.0, 40_000.0, 50_000.0]), party(&[24_900.0]), party(&[60_000.0])];
        assert_eq!(half_of_the_slowest(&closed).ok(), Some(12_000));
        assert_eq!(half_of_the_slowest(&[party(&[0.4])]).ok(), Some(1));
        assert!(half_of_the_slowest(&[]).is_err());
    }
}
