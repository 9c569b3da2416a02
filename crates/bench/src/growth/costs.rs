//! Costs by size: as a table, as a chart that shows each beside what it was at first, and in words
//! for whoever wants to know whether it stays so.

use crate::{
    chart::{Axis, Chart, Row, Scale, Series, Table, thousands},
    report::Section,
};

/// How many times as much one may cost at the largest size as at the smallest.
const FLAT: f64 = 1.5;

/// What becomes of the work as the size grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// It is as many times as large: where the cost of one stays, all of it is linear.
    Grows,
    /// There is no more to do than before.
    Stays,
}

/// What one of something costs, at each size; none where that could not be told.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) name: String,
    pub(super) each: Vec<Option<f64>>,
}

/// One dimension, measured.
#[derive(Debug)]
pub(super) struct Costs {
    /// Of the section and its chart.
    pub(super) name: &'static str,
    pub(super) title: String,
    /// What the sizes are numbers of.
    pub(super) of: &'static str,
    pub(super) work: Work,
    pub(super) sizes: Vec<f64>,
    pub(super) costs: Vec<Cost>,
    /// What is shown beside them, and judged by nobody.
    pub(super) beside: Vec<Cost>,
    pub(super) notes: Vec<String>,
}

impl Costs {
    /// All that for the report.
    pub(super) fn section(self) -> Section {
        let verdicts = self.costs.iter().filter_map(|cost| self.verdict(cost));
        Section {
            name: self.name,
            title: self.title.clone(),
            tables: vec![self.table()],
            charts: self.chart().into_iter().collect(),
            notes: verdicts.chain(self.notes.iter().cloned()).collect(),
            ..Section::default()
        }
    }

    fn table(&self) -> Table {
        let all = || self.costs.iter().chain(&self.beside);
        let rows = self.sizes.iter().enumerate().map(|(index, size)| Row {
            name: thousands(*size),
            figures: all().map(|cost| cost.each.get(index).copied().flatten()).collect(),
        });
        Table {
            title: format!("What one costs, by {}", self.of),
            columns: [self.of.to_owned()]
                .into_iter()
                .chain(all().map(|c| c.name.clone()))
                .collect(),
            rows: rows.collect(),
        }
    }

    /// None where nothing could be told.
    fn chart(&self) -> Option<Chart> {
        let series = self.costs.iter().filter_map(|cost| {
            let (_, first) = self.told(cost).next()?;
            let points = self.told(cost).map(|(size, each)| (size, each / first)).collect();
            Some(Series { name: cost.name.clone(), points })
        });
        let series: Vec<_> = series.collect();
        (!series.is_empty()).then(|| Chart {
            name: self.name.to_owned(),
            title: format!("What one costs, by {}", self.of),
            x: Axis { title: self.of.to_owned(), scale: Scale::Sizes },
            y: Axis { title: "times the cost at the smallest".into(), scale: Scale::Linear },
            series,
        })
    }

    /// The sizes at which this could be told.
    fn told(&self, cost: &Cost) -> impl Iterator<Item = (f64, f64)> {
        let both = self.sizes.iter().zip(&cost.each);
        both.filter_map(|(size, each)| each.filter(|each| *each > 0.0).map(|each| (*size, each)))
    }

    /// Whether it stays as it is at first. None where it could be told at one size alone.
    fn verdict(&self, cost: &Cost) -> Option<String> {
        let ((from, first), (to, last)) = (self.told(cost).next()?, self.told(cost).last()?);
        if from >= to {
            return None;
        }
        let (times, of, name) = (last / first, self.of, &cost.name);
        let said = if times <= FLAT {
            "does not grow"
        } else if self.work == Work::Grows {
            "**worse than linear**"
        } else {
            "**grows**"
        };
        let (from, to) = (thousands(from), thousands(to));
        Some(format!("{name}: {said}. At {to} {of} it is {times:.2} times what it is at {from}."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(work: Work, each: &[Option<f64>]) -> Option<String> {
        let cost = || Cost { name: "a read".into(), each: each.to_vec() };
        let costs = Costs {
            name: "growth-users",
            title: String::new(),
            of: "users",
            work,
            sizes: vec![100.0, 1000.0, 10_000.0],
            costs: vec![cost()],
            beside: Vec::new(),
            notes: Vec::new(),
        };
        costs.section().notes.pop()
    }

    #[test]
    fn what_costs_more_than_half_again_as_much_at_the_end_is_named() {
        let said = |work, each: &[f64]| {
            verdict(work, &each.iter().copied().map(Some).collect::<Vec<_>>()).expect("a verdict")
        };
        let worse = said(Work::Grows, &[2.0, 2.1, 3.1]);
        assert_eq!(
            worse,
            "a read: **worse than linear**. At 10,000 users it is 1.55 times what it is at 100."
        );
        assert!(said(Work::Stays, &[2.0, 2.1, 3.1]).contains("**grows**"));
        assert!(said(Work::Grows, &[2.0, 9.0, 3.0]).contains("does not grow"), "the ends decide");
        assert!(said(Work::Grows, &[2.0, 1.0, 0.5]).contains("does not grow"));
    }

    #[test]
    fn what_could_not_be_told_is_left_out() {
        let some = verdict(Work::Grows, &[None, Some(1.0), Some(4.0)]).expect("a verdict");
        assert!(some.ends_with("4.00 times what it is at 1,000."), "{some}");
        assert_eq!(verdict(Work::Grows, &[None, None, Some(4.0)]), None);
    }
}
