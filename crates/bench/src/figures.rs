//! Figures: rounds become medians with their spread, and those of a subject and its limits ratios.

use serde::{Deserialize, Serialize};

/// One round of one party. Costs are processor time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Operations a second that succeeded.
    pub(crate) rate: f64,
    /// Of the measured process, for each operation.
    pub(crate) cost_us: f64,
    /// Of the broker, for each operation.
    pub(crate) broker_us: Option<f64>,
    /// Share of a core that the load generator's thread used.
    pub(crate) generator: f64,
    /// Cores that the broker used.
    pub(crate) broker_cores: f64,
    /// Successful operations.
    pub(crate) count: u64,
    /// Other operations; they are in no other figure.
    pub(crate) failed: u64,
    /// Latencies at [`QUANTILES`], in milliseconds.
    pub(crate) latencies_ms: Vec<f64>,
}

/// The quantiles of [`Sample::latencies_ms`].
pub(crate) const QUANTILES: [f64; 7] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999];
const P50: usize = 0;
const P99: usize = 4;

impl Sample {
    pub(crate) fn p50_ms(&self) -> Option<f64> {
        self.latencies_ms.get(P50).copied()
    }

    pub(crate) fn p99_ms(&self) -> Option<f64> {
        self.latencies_ms.get(P99).copied()
    }
}

/// A figure over all rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// In the order of measurement.
    pub(crate) rounds: Vec<f64>,
}

impl Spread {
    /// `None` without rounds.
    pub(crate) fn new(rounds: impl IntoIterator<Item = f64>) -> Option<Self> {
        let rounds: Vec<_> = rounds.into_iter().collect();
        let mut sorted = rounds.clone();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        };
        Some(Self { median, min, max, rounds })
    }

    /// Joins the rounds of two figures, pair by pair.
    pub(crate) fn zip(&self, other: &Self, join: impl Fn(f64, f64) -> f64) -> Option<Self> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        Self::new(pairs.map(|(one, other)| join(*one, *other)))
    }

    pub(crate) fn divided_by(&self, other: &Self) -> Option<Self> {
        self.zip(other, |one, other| one / other)
    }

    pub(crate) fn plus(&self, other: &Self) -> Option<Self> {
        self.zip(other, |one, other| one + other)
    }

    pub(crate) fn minus(&self, other: &Self) -> Option<Self> {
        self.zip(other, |one, other| one - other)
    }
}

/// A figure of all samples; `None` if none has it.
pub(crate) fn spread(
    samples: &[Sample],
    figure: impl Fn(&Sample) -> Option<f64>,
) -> Option<Spread> {
    Spread::new(samples.iter().filter_map(figure))
}

pub(crate) fn costs(samples: &[Sample]) -> Option<Spread> {
    spread(samples, |sample| Some(sample.cost_us))
}

pub(crate) fn rates(samples: &[Sample]) -> Option<Spread> {
    spread(samples, |sample| Some(sample.rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rounds: &[f64]) -> Spread {
        Spread::new(rounds.iter().copied()).expect("rounds")
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert!(Spread::new([]).is_none());
        assert_eq!(of(&[3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }

    #[test]
    fn a_ratio_is_taken_round_by_round_and_limits_are_added_before() {
        let limit = of(&[60.0, 30.0, 50.0]).plus(&of(&[40.0, 20.0, 50.0])).expect("rounds");
        let ratio = of(&[80.0, 40.0, 70.0]).divided_by(&limit).expect("rounds");
        assert_eq!(ratio.rounds, [0.8, 0.8, 0.7]);
    }
}
