//! Figures: samples become medians and spreads, and those of a subject and a limit become ratios.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// What one round of one party gave.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// In the section's unit.
    pub(crate) value: f64,
    /// Median latency in milliseconds.
    pub(crate) p50_ms: Option<f64>,
    /// The latency that one in a hundred exceeds, in milliseconds.
    pub(crate) p99_ms: Option<f64>,
    /// Processor time that the serving process took for each answer, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    /// Answers that were not 200; they are in no other figure.
    pub(crate) failed: u64,
    /// How many were measured.
    pub(crate) count: u64,
    /// All latencies, in microseconds.
    pub(crate) latencies: Option<Histogram<u64>>,
}

impl Sample {
    /// One figure and nothing else.
    pub(crate) fn of(value: f64, count: u64) -> Self {
        Self { value, p50_ms: None, p99_ms: None, cpu_us: None, failed: 0, count, latencies: None }
    }
}

/// Processor time for each answer in microseconds, of a process that had taken so much before and
/// so much after; none where the system does not tell.
pub(crate) fn cpu_each(
    before: Option<Duration>,
    after: Option<Duration>,
    answers: u64,
) -> Option<f64> {
    #[allow(clippy::cast_precision_loss)] // counts of a few seconds
    let answers = answers as f64;
    Some(after?.saturating_sub(before?).as_secs_f64() * 1e6 / answers)
}

/// A figure over all rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// In the order in which they were measured.
    pub(crate) rounds: Vec<f64>,
}

impl Spread {
    /// None of nothing.
    pub(crate) fn of(rounds: impl IntoIterator<Item = f64>) -> Option<Self> {
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

/// A subject or a limit, and what it did.
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
    /// None without samples.
    pub(crate) fn new(name: &str, role: &'static str, samples: &[Sample]) -> Option<Self> {
        let each =
            |figure: fn(&Sample) -> Option<f64>| Spread::of(samples.iter().filter_map(figure));
        Some(Self {
            name: name.to_owned(),
            role,
            value: Spread::of(samples.iter().map(|sample| sample.value))?,
            p50_ms: each(|sample| sample.p50_ms),
            p99_ms: each(|sample| sample.p99_ms),
            cpu_us: each(|sample| sample.cpu_us),
            failed: samples.iter().map(|sample| sample.failed).sum(),
            count: samples.iter().map(|sample| sample.count).sum(),
        })
    }
}

/// What a ratio should be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

/// The subject beside a limit.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ratio {
    /// What is divided by what.
    pub(crate) name: String,
    pub(crate) value: Spread,
    pub(crate) aim: Option<Aim>,
}

impl Ratio {
    /// Round by round: what was measured side by side is divided.
    pub(crate) fn new(name: &str, over: &Party, under: &Party, aim: Option<Aim>) -> Option<Self> {
        let pairs = over.value.rounds.iter().zip(&under.value.rounds);
        Some(Self {
            name: name.to_owned(),
            value: Spread::of(pairs.map(|(over, under)| over / under))?,
            aim,
        })
    }

    /// As [`new`](Self::new), but what is taken is the difference.
    pub(crate) fn difference(
        name: &str,
        of: &Party,
        less: &Party,
        aim: Option<Aim>,
    ) -> Option<Self> {
        let pairs = of.value.rounds.iter().zip(&less.value.rounds);
        let name = name.to_owned();
        Some(Self { name, value: Spread::of(pairs.map(|(of, less)| of - less))?, aim })
    }

    /// What its aim says of it: of the median, and of how many rounds where they do not agree.
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
            |rounds: &[f64]| Spread::of(rounds.iter().copied()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_ratio_is_taken_round_by_round_and_judged_by_its_median() {
        let party = |values: &[f64]| {
            let samples: Vec<_> = values.iter().map(|&value| Sample::of(value, 1)).collect();
            Party::new("x", "subject", &samples).expect("samples")
        };
        let (over, under) = (party(&[80.0, 40.0, 70.0]), party(&[100.0, 50.0, 100.0]));
        let ratio = Ratio::new("x", &over, &under, Some(Aim::AtLeast(0.75))).expect("rounds");
        assert_eq!(ratio.value.rounds, [0.8, 0.8, 0.7]);
        assert_eq!(ratio.verdict(), "≥ 0.75: met, in 2 of 3 rounds");
    }
}
