//! Costs by size: a table, a chart relative to the smallest size, and a verdict on each.

use crate::{
    chart::{Axis, Chart, Row, Scale, Series, Table, format_thousands},
    report::Section,
};

/// Greatest ratio of a cost at the largest size to that at the smallest that counts as flat.
const MAX_FLAT_RATIO: f64 = 1.5;

/// How all the work together depends on the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TotalWork {
    /// It grows with the size: if the cost of one stays flat, all of it is linear.
    Grows,
    /// It is the same at every size.
    Constant,
}

/// The cost of one at each size; `None` where it could not be measured.
#[derive(Debug)]
pub(super) struct Cost {
    name: &'static str,
    by_size: Vec<Option<f64>>,
}

impl Cost {
    pub(super) fn new(name: &'static str, by_size: Vec<Option<f64>>) -> Self {
        Self { name, by_size }
    }
}

/// A quantity that grows step by step.
#[derive(Debug)]
pub(super) struct Dimension {
    /// Name of the section and its chart.
    pub(super) name: &'static str,
    pub(super) title: String,
    /// Unit of the sizes.
    pub(super) unit: &'static str,
    pub(super) work: TotalWork,
    pub(super) sizes: Vec<f64>,
}

impl Dimension {
    /// The section. Costs `beside` are in the table only, without a verdict.
    pub(super) fn into_section(
        self,
        judged: &[Cost],
        beside: &[Cost],
        note: Option<String>,
    ) -> Section {
        let title = format!("What one costs, by {}", self.unit);
        let costs = || judged.iter().chain(beside);
        let rows = self.sizes.iter().enumerate().map(|(index, size)| Row {
            name: format_thousands(*size),
            figures: costs().map(|cost| cost.by_size[index]).collect(),
        });
        let names = costs().map(|cost| cost.name);
        let table = Table {
            title: title.clone(),
            columns: [self.unit].into_iter().chain(names).map(str::to_owned).collect(),
            rows: rows.collect(),
        };
        let series = judged.iter().filter_map(|cost| {
            let measured = self.measured(cost);
            let (_, first) = *measured.first()?;
            let points = measured.iter().map(|(size, cost)| (*size, cost / first)).collect();
            Some(Series { name: cost.name.to_owned(), points })
        });
        let series: Vec<_> = series.collect();
        let chart = (!series.is_empty()).then(|| Chart {
            name: self.name.to_owned(),
            title,
            x: Axis { title: self.unit.to_owned(), scale: Scale::Sizes },
            y: Axis { title: "times the cost at the smallest".into(), scale: Scale::Linear },
            series,
        });
        let verdicts = judged.iter().filter_map(|cost| self.verdict(cost));
        Section {
            name: self.name,
            notes: verdicts.chain(note).collect(),
            title: self.title,
            tables: vec![table],
            charts: chart.into_iter().collect(),
            ..Section::default()
        }
    }

    /// Sizes and costs, without the sizes where the cost could not be measured.
    fn measured(&self, cost: &Cost) -> Vec<(f64, f64)> {
        let pairs = self.sizes.iter().zip(&cost.by_size);
        pairs
            .filter_map(|(size, cost)| Some((*size, (*cost)?)))
            .filter(|pair| pair.1 > 0.0)
            .collect()
    }

    /// Compares the cost at the largest size with that at the smallest. `None` if it was measured
    /// at fewer than two sizes.
    fn verdict(&self, cost: &Cost) -> Option<String> {
        let measured = self.measured(cost);
        let ((from, first), (to, last)) = (*measured.first()?, *measured.last()?);
        if from >= to {
            return None;
        }
        let (times, unit, name) = (last / first, self.unit, cost.name);
        let verdict = match self.work {
            _ if times <= MAX_FLAT_RATIO => "does not grow",
            TotalWork::Grows => "**worse than linear**",
            TotalWork::Constant => "**grows**",
        };
        let (from, to) = (format_thousands(from), format_thousands(to));
        Some(format!(
            "{name}: {verdict}. At {to} {unit} it is {times:.2} times what it is at {from}."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(work: TotalWork, by_size: &[Option<f64>]) -> Option<String> {
        let dimension = Dimension {
            name: "growth-users",
            title: String::new(),
            unit: "users",
            work,
            sizes: vec![100.0, 1000.0, 10_000.0],
        };
        dimension.into_section(&[Cost::new("a read", by_size.to_vec())], &[], None).notes.pop()
    }

    #[test]
    fn what_costs_more_than_half_again_as_much_at_the_end_is_named() {
        let said = |work, by_size: [f64; 3]| verdict(work, &by_size.map(Some)).expect("a verdict");
        let worse = said(TotalWork::Grows, [2.0, 2.1, 3.1]);
        assert_eq!(
            worse,
            "a read: **worse than linear**. At 10,000 users it is 1.55 times what it is at 100."
        );
        assert!(said(TotalWork::Constant, [2.0, 2.1, 3.1]).contains("**grows**"));
        let ends_alike = said(TotalWork::Grows, [2.0, 9.0, 3.0]);
        assert!(ends_alike.contains("does not grow"), "the ends decide");
        assert!(said(TotalWork::Grows, [2.0, 1.0, 0.5]).contains("does not grow"));
    }

    #[test]
    fn what_could_not_be_told_is_left_out() {
        let some = verdict(TotalWork::Grows, &[None, Some(1.0), Some(4.0)]).expect("a verdict");
        assert!(some.ends_with("4.00 times what it is at 1,000."), "{some}");
        assert_eq!(verdict(TotalWork::Grows, &[None, None, Some(4.0)]), None);
    }
}
