//! Percentiles of an open loop's latencies, merged over its rounds: as table rows, and as curves
//! over an axis that gives every further nine the same length.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    Result,
    chart::{Axis, Chart, Scale, Series},
    figures::Sample,
    meter::new_histogram,
};

/// The percentiles of a table, and their labels on an axis.
pub(crate) const LABELLED: [(f64, &str); 5] =
    [(0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")];
/// Points of a curve between 0.9 and 0.99, 0.99 and 0.999 and so on.
const POINTS_PER_NINE: u32 = 12;

/// All parties of an open loop.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OpenLoop {
    /// Requests due a second, for each party.
    pub(crate) rate: u32,
    pub(crate) parties: Vec<Percentiles>,
}

/// One party's latencies, from when a request was due.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) name: String,
    /// `subject` or `limit`.
    pub(crate) role: &'static str,
    pub(crate) count: u64,
    /// Answers that were not 200; they are in no other figure.
    pub(crate) failed: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    #[serde(skip)]
    latencies: Histogram<u64>,
}

impl Percentiles {
    /// Percentiles over all rounds together.
    ///
    /// # Errors
    /// If no sample has latencies.
    pub(crate) fn new(name: &str, role: &'static str, samples: &[Sample]) -> Result<Self> {
        let mut latencies = new_histogram()?;
        for sample in samples.iter().filter_map(|sample| sample.latencies.as_ref()) {
            latencies.add(sample)?;
        }
        if latencies.is_empty() {
            return Err(format!("{name}: no latency was measured").into());
        }
        let at = |quantile| to_ms(latencies.value_at_quantile(quantile));
        Ok(Self {
            name: name.to_owned(),
            role,
            count: latencies.len(),
            failed: samples.iter().map(|sample| sample.failed).sum(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: to_ms(latencies.max()),
            latencies,
        })
    }

    /// Quantiles and latencies in milliseconds, up to the last quantile that two requests exceed.
    fn to_series(&self) -> Series {
        let count = self.count as f64;
        let last = LABELLED[LABELLED.len() - 1].0;
        let quantile = |step: u32| 1.0 - 10f64.powf(-f64::from(step) / f64::from(POINTS_PER_NINE));
        let points = (1..)
            .map(quantile)
            .take_while(|quantile| *quantile < last && (1.0 - quantile) * count >= 2.0)
            .map(|quantile| (quantile, to_ms(self.latencies.value_at_quantile(quantile))));
        Series { name: self.name.clone(), points: points.collect() }
    }
}

impl OpenLoop {
    /// Latency by percentile, one curve a party.
    pub(crate) fn chart(&self, name: &str, subject: &str) -> Chart {
        Chart {
            name: format!("{name}-percentiles"),
            title: format!("{subject}: latency by percentile, {} a second", self.rate),
            x: Axis { title: "percentile".into(), scale: Scale::Percentile },
            y: Axis { title: "latency, ms".into(), scale: Scale::Logarithmic },
            series: self.parties.iter().map(Percentiles::to_series).collect(),
        }
    }
}

fn to_ms(microseconds: u64) -> f64 {
    microseconds as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(latencies_us: impl IntoIterator<Item = u64>) -> Sample {
        let mut histogram = new_histogram().expect("bounds");
        for latency in latencies_us {
            histogram.record(latency).expect("a latency within the bounds");
        }
        let mut sample = Sample::new(0.0, histogram.len());
        sample.latencies = Some(histogram);
        sample
    }

    #[test]
    fn percentiles_are_of_all_rounds_together_and_not_a_mean_of_theirs() {
        let rounds = [sample((1..=500).map(|n| n * 10)), sample((501..=1000).map(|n| n * 10))];
        let all = Percentiles::new("x", "subject", &rounds).expect("samples");
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert_eq!(all.count, 1000);
        assert!(near(all.p50_ms, 5.0) && near(all.p90_ms, 9.0), "{all:?}");
        assert!(near(all.p99_ms, 9.9) && near(all.p999_ms, 9.99) && near(all.max_ms, 10.0));
        assert!(Percentiles::new("x", "subject", &[]).is_err(), "of nothing there are none");
    }

    #[test]
    fn a_curve_rises_and_ends_where_one_request_would_decide() {
        let curve =
            Percentiles::new("x", "subject", &[sample(1..=1000)]).expect("samples").to_series();
        assert!(curve.points.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1));
        let last = curve.points.last().expect("points").0;
        assert!((0.997..0.9981).contains(&last), "{last}");
    }
}
