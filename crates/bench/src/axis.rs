//! Range, positions, marks and labels of a chart's axis.

use crate::{
    chart::{Scale, format_thousands},
    percentiles::LABELLED,
};

/// Approximate number of marks of a linear axis.
const LINEAR_MARKS: f64 = 6.0;

/// An axis. A position is a value on the axis's scale, such as its logarithm.
#[derive(Debug, Clone)]
pub(crate) struct AxisRange {
    scale: Scale,
    /// Position of its beginning.
    pub(crate) from: f64,
    /// Position of its end.
    pub(crate) to: f64,
    /// As values.
    marks: Vec<f64>,
}

impl AxisRange {
    /// An axis that shows all these values. `None` if no value has a finite position.
    pub(crate) fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> =
            values.filter(|value| position(scale, *value).is_finite()).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        let (&first, &last) = (values.first()?, values.last()?);
        let (from, to, marks) = match scale {
            Scale::Linear => linear_range(last),
            Scale::Logarithmic => logarithmic_range(first, last),
            Scale::Sizes => (position(scale, first) - 0.1, position(scale, last) + 0.1, values),
            Scale::Percentile => {
                let to = position(scale, last).max(position(scale, LABELLED[1].0));
                let marks = LABELLED.iter().map(|(quantile, _)| *quantile);
                (0.0, to, marks.filter(|mark| position(scale, *mark) <= to + 0.1).collect())
            }
        };
        // Extends the axis to a last mark that is a little beyond the last value.
        let to = marks.iter().map(|mark| position(scale, *mark)).fold(to, f64::max);
        Some(Self { scale, from, to, marks })
    }

    /// The position of a value.
    pub(crate) fn position_of(&self, value: f64) -> f64 {
        position(self.scale, value)
    }

    /// The positions of the marks.
    pub(crate) fn mark_positions(&self) -> Vec<f64> {
        self.marks.iter().map(|mark| self.position_of(*mark)).collect()
    }

    /// The label of the mark at this position.
    pub(crate) fn label_at(&self, position: f64) -> String {
        let here = |mark: &&f64| (self.position_of(**mark) - position).abs() < 1e-9;
        let Some(mark) = self.marks.iter().find(here) else { return String::new() };
        match self.scale {
            Scale::Percentile => LABELLED
                .iter()
                .find(|(quantile, _)| (quantile - mark).abs() < 1e-9)
                .map_or_else(String::new, |(_, name)| (*name).to_owned()),
            Scale::Linear | Scale::Logarithmic | Scale::Sizes => format_thousands(*mark),
        }
    }
}

fn position(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Logarithmic | Scale::Sizes => value.log10(),
        Scale::Percentile => -(1.0 - value).log10(),
    }
}

/// An axis from zero, with marks at multiples of 1, 2 or 5 times a power of ten.
fn linear_range(last: f64) -> (f64, f64, Vec<f64>) {
    let last = if last > 0.0 { last } else { 1.0 };
    let rough = last / LINEAR_MARKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter();
    let step = step.clone().find(|step| *step >= rough).unwrap_or(rough);
    let marks = (0..).map(|n| f64::from(n) * step).take_while(|mark| *mark <= last * 1.05);
    (0.0, last * 1.05, marks.collect())
}

/// An axis between powers of ten, or between 1, 2 or 5 times one if those are few.
fn logarithmic_range(first: f64, last: f64) -> (f64, f64, Vec<f64>) {
    let (low, high) = (first.log10().floor(), last.log10().ceil().max(first.log10().floor() + 1.0));
    let digits: &[f64] = if high - low > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let mut marks: Vec<f64> = Vec::new();
    let mut power = low;
    while power <= high {
        marks.extend(digits.iter().map(|digit| digit * 10f64.powf(power)));
        power += 1.0;
    }
    let below = marks.iter().copied().filter(|mark| *mark <= first).fold(marks[0], f64::max);
    let above = marks.iter().copied().find(|mark| *mark >= last).unwrap_or(last);
    marks.retain(|mark| (below..=above).contains(mark));
    (below.log10(), above.log10(), marks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: Scale, values: &[f64]) -> Vec<String> {
        let range = AxisRange::new(scale, values.iter().copied()).expect("a range");
        range.mark_positions().iter().map(|mark| range.label_at(*mark)).collect()
    }

    #[test]
    fn marks_are_numbers_that_people_would_choose() {
        assert_eq!(
            labels(Scale::Linear, &[3.0, 21_000.0]),
            ["0", "5,000", "10,000", "15,000", "20,000"]
        );
        assert_eq!(labels(Scale::Logarithmic, &[0.3, 7.0]), ["0.2", "0.5", "1", "2", "5", "10"]);
        assert_eq!(
            labels(Scale::Logarithmic, &[3.0, 90_000.0]),
            ["1", "10", "100", "1,000", "10,000", "100,000"]
        );
        assert_eq!(labels(Scale::Sizes, &[256.0, 1.0, 16.0]), ["1", "16", "256"]);
        assert_eq!(labels(Scale::Percentile, &[0.2, 0.9985]), ["50", "90", "99"]);
    }

    #[test]
    fn every_further_nine_has_as_much_room() {
        let places =
            [0.9, 0.99, 0.999, 0.9999].map(|quantile| position(Scale::Percentile, quantile));
        for (nines, place) in (1..).zip(places) {
            assert!((place - f64::from(nines)).abs() < 1e-9, "{places:?}");
        }
    }
}
