//! Charts and tables of a section as data. [`plot`](crate::plot) draws the charts, the report
//! prints the tables, and the JSON has both as they are here.

use serde::Serialize;

/// Named curves over a pair of axes.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chart {
    /// File name without `.svg`.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Axis {
    /// Includes the unit.
    pub(crate) title: String,
    pub(crate) scale: Scale,
}

/// How an axis maps values to positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scale {
    /// Begins at zero.
    Linear,
    Logarithmic,
    /// Logarithmic, with a mark at each point only: chosen sizes.
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
    /// The first is the title of the row names.
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// A row: one figure for each column after the first; `None` if it could not be measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figures: Vec<Option<f64>>,
}

impl Chart {
    /// The curves' points as a table, for charts whose curves share a few x values.
    pub(crate) fn to_table(&self) -> Table {
        let sizes = self.series.first().map(|series| series.points.as_slice()).unwrap_or_default();
        let rows = sizes.iter().enumerate().map(|(index, (x, _))| Row {
            name: format_thousands(*x),
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

/// A number with thousands separators, `1,000,000`; below ten with its fraction.
pub(crate) fn format_thousands(value: f64) -> String {
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
        assert_eq!(
            [0.0, 0.005, 0.5, 2.0, 10.0].map(format_thousands),
            ["0", "0.005", "0.5", "2", "10"]
        );
        assert_eq!([999.0, 1000.0, 1e6].map(format_thousands), ["999", "1,000", "1,000,000"]);
    }
}
