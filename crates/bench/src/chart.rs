//! Charts and tables as data: what a section shows beside its figures. [`plot`](crate::plot) draws
//! the charts, the report prints the tables, and both are in the JSON as they are here.

use serde::Serialize;

/// Named curves over a pair of axes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chart {
    /// Of its file, without `.svg`.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// What is along one side.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Axis {
    /// With its unit.
    pub(crate) title: String,
    pub(crate) scale: Scale,
}

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    Logarithmic,
    /// Logarithmic, with a mark at each point and nowhere else: sizes that somebody chose.
    Sizes,
    /// Quantiles from 0 to 1, as the logarithm of 1/(1 − q).
    Percentile,
}

/// One curve.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// x and y, in the units of their axes.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Figures in rows.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// The first is what tells the rows apart.
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// One of them: as many figures as there are columns after the first; null where nothing could be
/// measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figures: Vec<Option<f64>>,
}

impl Chart {
    /// The curves' points as a table, for charts whose curves share their few x.
    pub(crate) fn table(&self) -> Table {
        let sizes = self.series.first().map(|series| series.points.as_slice()).unwrap_or_default();
        let rows = sizes.iter().enumerate().map(|(index, (x, _))| Row {
            name: thousands(*x),
            figures: self.series.iter().map(|one| one.points.get(index).map(|p| p.1)).collect(),
        });
        let names = self.series.iter().map(|series| series.name.clone());
        Table {
            title: format!("{}, {}", self.title, self.y.title),
            columns: std::iter::once(self.x.title.clone()).chain(names).collect(),
            rows: rows.collect(),
        }
    }
}

/// A number as people write large ones: `1,000,000`. Below ten with what matters of its fraction.
pub(crate) fn thousands(value: f64) -> String {
    if value != 0.0 && value.abs() < 10.0 {
        let text = if value.abs() < 1.0 { format!("{value:.4}") } else { format!("{value:.2}") };
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "−" } else { "" });
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_have_commas_and_small_ones_a_fraction() {
        assert_eq!([0.0, 0.005, 0.5, 2.0, 10.0].map(thousands), ["0", "0.005", "0.5", "2", "10"]);
        assert_eq!([999.0, 1000.0, 1e6].map(thousands), ["999", "1,000", "1,000,000"]);
    }
}
