//! Draws the charts of a report.json as SVG without a background, in colours that are readable on
//! light and dark pages.

use std::{fmt::Write as _, fs, path::Path};

use crate::{
    Result,
    report::{BenchReport, Chart},
};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 52.0;
const LINE_HEIGHT: f64 = 20.0;
/// Visible on white and on near-black.
const GREY: &str = "#7d8590";
/// Their lightness differs too, for colour-blind readers.
const COLOURS: [&str; 5] = ["#1f6feb", "#e87d0d", "#2da44e", "#a35be0", "#d6336c"];

/// Draws every chart of the folder's report.json into the same folder.
pub(crate) fn draw_report(folder: &Path) -> Result<()> {
    let report: BenchReport = serde_json::from_slice(&fs::read(folder.join("report.json"))?)?;
    for chart in report.sections.iter().flat_map(|section| &section.charts) {
        fs::write(folder.join(format!("{}.svg", chart.name)), draw(chart))?;
    }
    Ok(())
}

/// Values of an axis, and their places.
struct Scale {
    logarithmic: bool,
    low: f64,
    high: f64,
    /// Pixels of the low and the high end.
    from: f64,
    to: f64,
}

impl Scale {
    fn new(values: impl Iterator<Item = f64>, logarithmic: bool, from: f64, to: f64) -> Self {
        let values = values.filter(|value| value.is_finite() && (!logarithmic || *value > 0.0));
        let (low, high) = values
            .fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
        let high = if high > 0.0 { high } else { 1.0 };
        let low = if logarithmic { low.min(high / 2.0) } else { 0.0 };
        Self { logarithmic, low, high, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + (self.to - self.from) * share
    }

    /// Round values within the axis: 1, 2 and 5 times powers of ten.
    fn marks(&self) -> Vec<f64> {
        let powers = -6..12;
        let round: Vec<f64> = powers
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)))
            .collect();
        if self.logarithmic {
            let within = |value: &f64| (self.low..=self.high).contains(value);
            let marks: Vec<f64> = round.into_iter().filter(within).collect();
            let every = marks.len().div_ceil(8).max(1);
            return marks.into_iter().step_by(every).collect();
        }
        let step = round.into_iter().find(|step| self.high / step <= 6.0).unwrap_or(self.high);
        (0..=6).map(|number| f64::from(number) * step).filter(|value| *value <= self.high).collect()
    }
}

fn draw(chart: &Chart) -> String {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let top = 34.0 + LINE_HEIGHT * (chart.series.len() as f64 + 0.5);
    let x = Scale::new(points().map(|point| point.0), chart.logarithmic_x, LEFT, WIDTH - RIGHT);
    let y = Scale::new(points().map(|point| point.1), chart.logarithmic_y, HEIGHT - BOTTOM, top);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\" fill=\"{GREY}\">\n"
    );
    let mut text = |x: f64, y: f64, anchor: &str, more: &str, text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{more}>{text}</text>"
        );
    };
    text(14.0, 22.0, "start", " font-size=\"16\" font-weight=\"bold\"", &chart.title);
    text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, "middle", "", &chart.x);
    let middle = f64::midpoint(top, HEIGHT - BOTTOM);
    text(18.0, middle, "middle", &format!(" transform=\"rotate(-90 18 {middle})\""), &chart.y);
    for value in x.marks() {
        text(x.place(value), HEIGHT - BOTTOM + 18.0, "middle", "", &short(value));
    }
    for value in y.marks() {
        text(LEFT - 8.0, y.place(value) + 4.0, "end", "", &short(value));
    }
    for (index, series) in chart.series.iter().enumerate() {
        text(46.0, 38.0 + LINE_HEIGHT * (index as f64 + 0.5), "start", "", &series.name);
    }
    let mut line = |points: &str, colour: &str, width: f64, opacity: f64| {
        let _ = writeln!(
            svg,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" opacity=\"{opacity}\"/>"
        );
    };
    for place in y.marks().into_iter().map(|value| y.place(value)) {
        line(&format!("{LEFT},{place:.1} {:.1},{place:.1}", WIDTH - RIGHT), GREY, 1.0, 0.25);
    }
    let bottom = HEIGHT - BOTTOM;
    line(&format!("{LEFT},{top} {LEFT},{bottom} {},{bottom}", WIDTH - RIGHT), GREY, 1.0, 1.0);
    for (index, (series, colour)) in chart.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let place = 34.0 + LINE_HEIGHT * (index as f64 + 0.5);
        line(&format!("14,{place} 38,{place}"), colour, 3.0, 1.0);
        let places = series.points.iter().map(|(one, other)| (x.place(*one), y.place(*other)));
        let places = places.filter(|(x, y)| x.is_finite() && y.is_finite());
        let points: Vec<String> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        line(&points.join(" "), colour, 2.0, 1.0);
    }
    svg + "</svg>\n"
}

/// A mark's value: 0.5, 20, 5k, 2M.
fn short(value: f64) -> String {
    let (value, suffix) = match value {
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Series;

    #[test]
    fn a_drawn_chart_is_well_formed_and_shows_every_curve() {
        let series = |name: &str| Series {
            name: name.into(),
            points: vec![(1.0, 3.0), (9.0, 8.0), (100.0, 1e6)],
        };
        for logarithmic in [true, false] {
            let svg = draw(&Chart {
                name: "x".into(),
                title: "“a” < b".into(),
                x: "records".into(),
                y: "ms".into(),
                logarithmic_x: logarithmic,
                logarithmic_y: logarithmic,
                series: vec![series("producer & co"), series("a limit")],
            });
            let tree = roxmltree::Document::parse(&svg).expect("well-formed XML");
            let texts: Vec<_> = tree.descendants().filter_map(|node| node.text()).collect();
            for expected in ["“a” < b", "producer & co", "a limit", "records"] {
                assert!(texts.contains(&expected), "{texts:?} lacks {expected}");
            }
            for colour in ["#1f6feb", "#e87d0d"] {
                assert!(tree.descendants().any(|node| node.attribute("stroke") == Some(colour)));
            }
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn marks_are_round_and_within_the_axis() {
        let marks =
            |logarithmic| Scale::new([3.0, 90.0].into_iter(), logarithmic, 0.0, 1.0).marks();
        assert_eq!(marks(false), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(marks(true), [5.0, 10.0, 20.0, 50.0]);
    }
}
