//! Alternates subject and limits round by round, so that the machine's other load meets all alike.
//! Request handlers are measured in three parts: a closed loop for throughput, an open loop for
//! latency, and short closed loops with more and more connections.

use std::{fmt::Display, time::Duration};

use crate::{
    Result,
    chart::{Axis, Chart, Scale, Series},
    figures::{Party, Sample, median},
    load::LoadProfile,
    options::{LoopArgs, Options},
    percentiles::{OpenLoop, Percentiles},
    print_status,
    report::Section,
};

/// A note for every section with an open loop.
pub(crate) const OPEN_LOOP_NOTE: &str = "In the open loop a request is due at its time, however long the ones before it take, and its \
    latency runs from then: what waited because all connections were busy counts.";
const CONNECTION_COUNTS: [u16; 5] = [1, 4, 16, 64, 256];

/// A subject and its limits.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    /// The subcommand.
    pub(crate) name: &'static str,
    /// The request, for titles of charts.
    pub(crate) request: &'a str,
    /// Unit of throughput.
    pub(crate) unit: &'static str,
    /// The subject first, then its limits.
    pub(crate) parties: &'a [&'a str],
}

impl Comparison<'_> {
    /// Measures all three parts; `measure` runs one round of one party. The section still lacks its
    /// title, ratios and notes.
    pub(crate) async fn measure(
        &self,
        options: &Options,
        args: &LoopArgs,
        mut measure: impl AsyncFnMut(usize, &LoadProfile) -> Result<Sample>,
    ) -> Result<Section> {
        let Self { name, request, unit, parties } = *self;
        let show = |sample: &Sample| format!("{:.0} {unit}", sample.value);
        let profile = args.load.closed_loop(options.quick);
        let rounds = options.rounds();
        let closed =
            alternate(name, rounds, parties, show, async |party| measure(party, &profile).await)
                .await?;

        let rate = args.rate.map_or_else(|| half_of_the_slowest(&closed), Ok)?;
        print_status(format_args!("{name}: from here on {rate} a second, open loop"));
        let profile = LoadProfile { rate: Some(rate), ..profile };
        let rounds = options.open_loop_rounds();
        let open = alternate(name, rounds, parties, show_latency, async |party| {
            measure(party, &profile).await
        })
        .await?;
        let role = |party| if party == 0 { "subject" } else { "limit" };
        let percentiles = (0..parties.len())
            .map(|party| Percentiles::new(parties[party], role(party), &open[party]));
        let open_loop = OpenLoop { rate, parties: percentiles.collect::<Result<_>>()? };

        let new_series = |name: &&str| Series { name: (*name).to_owned(), points: Vec::new() };
        let mut series: Vec<_> = parties.iter().map(new_series).collect();
        let round = Duration::from_millis(if options.quick { 500 } else { 2000 });
        for connections in CONNECTION_COUNTS {
            let profile = LoadProfile::closed(connections.into(), round);
            let title = format!("{name}, {connections} connections");
            let rounds = options.rounds_per_size();
            let samples = alternate(&title, rounds, parties, show, async |party| {
                measure(party, &profile).await
            });
            for (series, samples) in series.iter_mut().zip(samples.await?) {
                let value =
                    median(&samples, |one| Some(one.value)).ok_or("no round was measured")?;
                series.points.push((f64::from(connections), value));
            }
        }
        let concurrency = Chart {
            name: format!("{name}-concurrency"),
            title: format!("{request}: throughput by connections"),
            x: Axis { title: "connections".into(), scale: Scale::Sizes },
            // Logarithmic: a limit may reach ten times the throughput of the other parties.
            y: Axis { title: unit.to_owned(), scale: Scale::Logarithmic },
            series,
        };
        let party = |party: usize| Party::new(parties[party], role(party), &closed[party]);
        Ok(Section {
            name,
            unit,
            parties: (0..parties.len()).map(party).collect::<Result<_>>()?,
            tables: vec![concurrency.to_table()],
            charts: vec![open_loop.chart(name, request), concurrency],
            open_loop: Some(open_loop),
            ..Section::default()
        })
    }
}

/// Measures every party in `rounds` rounds after one warm-up round. Every other round runs in
/// reverse order, so that no party always follows the same neighbour. Returns each party's samples.
pub(crate) async fn alternate<T>(
    title: &str,
    rounds: u32,
    parties: &[&str],
    show: impl Fn(&T) -> String,
    mut measure: impl AsyncFnMut(usize) -> Result<T>,
) -> Result<Vec<Vec<T>>> {
    let mut samples: Vec<Vec<T>> = parties.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..parties.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for party in order {
            let name = parties[party];
            let with_name = |error: &dyn Display| format!("{title}, {name}: {error}");
            let sample = measure(party).await.map_err(|error| with_name(&error))?;
            let figures = show(&sample);
            if round == 0 {
                print_status(format_args!("{title}: warm-up, {name}: {figures}"));
            } else {
                print_status(format_args!("{title}: round {round} of {rounds}, {name}: {figures}"));
                samples[party].push(sample);
            }
        }
    }
    Ok(samples)
}

/// A line about the latencies of a round.
pub(crate) fn show_latency(sample: &Sample) -> String {
    let ms = |figure: Option<f64>| figure.unwrap_or(f64::NAN);
    format!("p50 {:.2} ms, p99 {:.2} ms", ms(sample.p50_ms), ms(sample.p99_ms))
}

/// Half of the slowest party's throughput in the closed loop, to two digits: every party should
/// keep up with that rate.
fn half_of_the_slowest(closed: &[Vec<Sample>]) -> Result<u32> {
    let throughputs = closed.iter().filter_map(|samples| median(samples, |one| Some(one.value)));
    let slowest = throughputs.reduce(f64::min);
    let half = slowest.ok_or("no round was measured")? / 2.0;
    let digit = 10f64.powf((half.max(1.0).log10().floor() - 1.0).max(0.0));
    Ok(((half / digit).floor() * digit).max(1.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_open_loop_has_half_of_what_the_slowest_did() {
        let party = |values: &[f64]| values.iter().map(|value| Sample::new(*value, 1)).collect();
        let closed =
            [party(&[41_000.0, 40_000.0, 50_000.0]), party(&[24_900.0]), party(&[60_000.0])];
        assert_eq!(half_of_the_slowest(&closed).ok(), Some(12_000));
        assert_eq!(half_of_the_slowest(&[party(&[0.4])]).ok(), Some(1));
        assert!(half_of_the_slowest(&[]).is_err());
    }
}
