//! Figures: samples become medians and spreads; those of a subject and a limit become ratios.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Result;

/// One round of one party.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// In the section's unit.
    pub(crate) value: f64,
    /// Median latency.
    pub(crate) p50_ms: Option<f64>,
    /// The latency that one in a hundred exceeds.
    pub(crate) p99_ms: Option<f64>,
    /// Processor time of the serving process for each answer.
    pub(crate) cpu_us: Option<f64>,
    /// Answers that were not 200; they are in no other figure.
    pub(crate) failed: u64,
    /// Successes.
    pub(crate) count: u64,
    /// All latencies, in microseconds.
    pub(crate) latencies: Option<Histogram<u64>>,
}

impl Sample {
    /// A sample of one figure.
    pub(crate) fn new(value: f64, count: u64) -> Self {
        Self { value, p50_ms: None, p99_ms: None, cpu_us: None, failed: 0, count, latencies: None }
    }
}

/// A figure over all rounds.
#[derive(Debug, Clone, Serialize)]
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
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max, rounds })
    }
}

/// The median of a figure; `None` if no sample has it.
pub(crate) fn median(samples: &[Sample], figure: fn(&Sample) -> Option<f64>) -> Option<f64> {
    Some(Spread::new(samples.iter().filter_map(figure))?.median)
}

/// A subject or a limit, and its figures.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Party {
    pub(crate) name: String,
    /// `subject` or `limit`.
    pub(crate) role: &'static str,
    pub(crate) value: Spread,
    pub(crate) p50_ms: Option<Spread>,
    pub(crate) p99_ms: Option<Spread>,
    pub(crate) cpu_us: Option<Spread>,
    pub(crate) failed: u64,
    pub(crate) count: u64,
}

impl Party {
    /// # Errors
    /// Without samples.
    pub(crate) fn new(name: &str, role: &'static str, samples: &[Sample]) -> Result<Self> {
        let spread =
            |figure: fn(&Sample) -> Option<f64>| Spread::new(samples.iter().filter_map(figure));
        Ok(Self {
            name: name.to_owned(),
            role,
            value: spread(|sample| Some(sample.value)).ok_or("no round was measured")?,
            p50_ms: spread(|sample| sample.p50_ms),
            p99_ms: spread(|sample| sample.p99_ms),
            cpu_us: spread(|sample| sample.cpu_us),
            failed: samples.iter().map(|sample| sample.failed).sum(),
            count: samples.iter().map(|sample| sample.count).sum(),
        })
    }

    /// A party with one figure a round.
    ///
    /// # Errors
    /// Without values.
    pub(crate) fn from_values(
        name: &str,
        role: &'static str,
        values: impl IntoIterator<Item = f64>,
        count: u64,
    ) -> Result<Self> {
        let samples: Vec<_> = values.into_iter().map(|value| Sample::new(value, count)).collect();
        Self::new(name, role, &samples)
    }
}

/// The bound that a ratio should keep.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

/// The subject beside a limit.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    /// Dividend and divisor.
    pub(crate) name: String,
    pub(crate) value: Spread,
    pub(crate) aim: Option<Aim>,
}

impl Ratio {
    /// Divides round by round, because a pair was measured side by side.
    pub(crate) fn new(name: &str, over: &Party, under: &Party, aim: Option<Aim>) -> Result<Self> {
        Self::from_pairs(name, over, under, aim, |over, under| over / under)
    }

    /// Like [`new`](Self::new), but subtracts.
    pub(crate) fn difference(
        name: &str,
        from: &Party,
        less: &Party,
        aim: Option<Aim>,
    ) -> Result<Self> {
        Self::from_pairs(name, from, less, aim, |from, less| from - less)
    }

    fn from_pairs(
        name: &str,
        subject: &Party,
        limit: &Party,
        aim: Option<Aim>,
        combine: fn(f64, f64) -> f64,
    ) -> Result<Self> {
        let pairs = subject.value.rounds.iter().zip(&limit.value.rounds);
        let value = Spread::new(pairs.map(|(subject, limit)| combine(*subject, *limit)));
        Ok(Self { name: name.to_owned(), value: value.ok_or("no round was measured")?, aim })
    }

    /// The aim, if the median meets it, and in how many rounds if they disagree.
    pub(crate) fn verdict(&self) -> String {
        let meets = |value: f64| match self.aim {
            Some(Aim::AtMost(aim)) => value <= aim,
            Some(Aim::AtLeast(aim)) => value >= aim,
            None => true,
        };
        let aim = match self.aim {
            None => return "–".into(),
            Some(Aim::AtLeast(aim)) => format!("≥ {aim:.2}"),
            Some(Aim::AtMost(aim)) => format!("≤ {aim:.2}"),
        };
        let met = meets(self.value.median);
        let (rounds, all) = (&self.value.rounds, self.value.rounds.len());
        let agreeing = rounds.iter().filter(|round| meets(**round) == met).count();
        let doubt =
            if agreeing < all { format!(", in {agreeing} of {all} rounds") } else { String::new() };
        format!("{aim}: {}{doubt}", if met { "met" } else { "missed" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let median =
            |rounds: &[f64]| Spread::new(rounds.iter().copied()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_taken_round_by_round_and_judged_by_its_median() {
        let party = |values: &[f64]| {
            let samples: Vec<_> = values.iter().map(|&value| Sample::new(value, 1)).collect();
            Party::new("x", "subject", &samples).expect("samples")
        };
        let (over, under) = (party(&[80.0, 40.0, 70.0]), party(&[100.0, 50.0, 100.0]));
        let ratio = Ratio::new("x", &over, &under, Some(Aim::AtLeast(0.75))).expect("rounds");
        assert_eq!(ratio.value.rounds, [0.8, 0.8, 0.7]);
        assert_eq!(ratio.verdict(), "≥ 0.75: met, in 2 of 3 rounds");
    }
}
