//! Draws a [`Chart`] as SVG without a background, with texts and lines in a middle grey, so that it
//! is readable on light and dark pages.

use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{
        Shift,
        cartesian::Cartesian2d,
        ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    },
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea as _},
    element::{Circle, PathElement, Text},
    prelude::SVGBackend,
    series::LineSeries,
    style::{
        Color as _, FontStyle, IntoFont as _, RGBAColor, RGBColor, ShapeStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use crate::{
    Result,
    axis::AxisRange,
    chart::{Chart, Scale},
};

const SIZE_PX: (u32, u32) = (760, 420);
/// Font sizes, in plotters' unit, which is a little more than a pixel.
const TEXT_SIZE: i32 = 15;
const TITLE_SIZE: i32 = 18;
/// Height of the title, and of each curve's name below it, in pixels.
const TITLE_HEIGHT: i32 = 34;
const NAME_HEIGHT: i32 = 20;
const MARGIN: i32 = 14;

/// Visible on white and on near-black.
const GREY: RGBColor = RGBColor(0x7d, 0x85, 0x90);
/// Their lightness differs too, for colour-blind readers.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x1f, 0x6f, 0xeb),
    RGBColor(0xe8, 0x7d, 0x0d),
    RGBColor(0x2d, 0xa4, 0x4e),
    RGBColor(0xa3, 0x5b, 0xe0),
    RGBColor(0xd6, 0x33, 0x6c),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<AxisRange, AxisRange>>;
type DrawResult = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Maps positions, not values.
impl Ranged for AxisRange {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, position: &f64, (begin, end): (i32, i32)) -> i32 {
        let share = (position - self.from) / (self.to - self.from);
        (f64::from(begin) + f64::from(end - begin) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.mark_positions() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.from..self.to
    }
}

/// The chart as the text of an SVG file.
///
/// # Errors
/// If the chart has no point that its axes can show.
pub(crate) fn draw_svg(chart: &Chart) -> Result<String> {
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let nothing = || format!("{}: nothing to draw", chart.name);
    let x = AxisRange::new(chart.x.scale, points().map(|point| point.0)).ok_or_else(nothing)?;
    let y = AxisRange::new(chart.y.scale, points().map(|point| point.1)).ok_or_else(nothing)?;
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE_PX).into_drawing_area();
        let below =
            TITLE_HEIGHT + NAME_HEIGHT * i32::try_from(chart.series.len())? + NAME_HEIGHT / 2;
        draw_names(&area, chart).map_err(|error| error.to_string())?;
        let mut plane = ChartBuilder::on(&area)
            .margin(MARGIN)
            .margin_top(below)
            .x_label_area_size(46)
            .y_label_area_size(84)
            .build_cartesian_2d(x.clone(), y.clone())
            .map_err(|error| error.to_string())?;
        draw_curves(&mut plane, chart, &x, &y).map_err(|error| error.to_string())?;
        area.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

/// Draws the title, and below it each curve's colour and name; on the plane they would hide curves.
fn draw_names(area: &Area<'_>, chart: &Chart) -> DrawResult {
    let title = ("sans-serif", TITLE_SIZE, FontStyle::Bold).into_font().color(&GREY);
    area.draw(&Text::new(chart.title.clone(), (MARGIN, 10), title))?;
    for (index, (series, colour)) in (0..).zip(chart.series.iter().zip(COLOURS.iter().cycle())) {
        let middle = TITLE_HEIGHT + NAME_HEIGHT * index + NAME_HEIGHT / 2;
        let line = vec![(MARGIN, middle), (MARGIN + 24, middle)];
        area.draw(&PathElement::new(line, colour.stroke_width(3)))?;
        let left = text_style(TEXT_SIZE).pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(series.name.clone(), (MARGIN + 32, middle), left))?;
    }
    Ok(())
}

fn draw_curves(
    plane: &mut Plane<'_, '_>,
    chart: &Chart,
    x: &AxisRange,
    y: &AxisRange,
) -> DrawResult {
    plane
        .configure_mesh()
        .axis_style(GREY)
        .bold_line_style(GREY.mix(0.25))
        .light_line_style(RGBAColor(0, 0, 0, 0.0))
        .label_style(text_style(TEXT_SIZE))
        .axis_desc_style(text_style(TEXT_SIZE))
        .x_desc(chart.x.title.clone())
        .y_desc(chart.y.title.clone())
        .x_label_formatter(&|position| x.label_at(*position))
        .y_label_formatter(&|position| y.label_at(*position))
        .draw()?;
    for (series, colour) in chart.series.iter().zip(COLOURS.iter().cycle()) {
        let positions: Vec<_> = series
            .points
            .iter()
            .map(|point| (x.position_of(point.0), y.position_of(point.1)))
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect();
        plane.draw_series(LineSeries::new(positions.iter().copied(), colour.stroke_width(2)))?;
        // Marks the measured sizes: a line between them is no measurement.
        if chart.x.scale == Scale::Sizes {
            let dot = |position: &(f64, f64)| {
                Circle::new(*position, 4, ShapeStyle::from(colour).filled())
            };
            plane.draw_series(positions.iter().map(dot))?;
        }
    }
    Ok(())
}

fn text_style(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&GREY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::{Axis, Series};

    fn chart(scale: Scale, points: &[(f64, f64)]) -> Chart {
        let axis = |scale| Axis { title: "records < all & more".into(), scale };
        let series = |name: &str| Series { name: name.into(), points: points.to_vec() };
        Chart {
            name: "x".into(),
            title: "“a” < b".into(),
            x: axis(scale),
            y: axis(Scale::Linear),
            series: vec![series("producer & co"), series("a limit")],
        }
    }

    #[test]
    fn a_drawn_chart_is_well_formed_and_shows_every_curve() {
        let points = [(0.1, 3.0), (0.9, 8.0), (0.99, 1e6)];
        for scale in [Scale::Linear, Scale::Logarithmic, Scale::Sizes, Scale::Percentile] {
            let svg = draw_svg(&chart(scale, &points)).expect("a chart");
            let tree = roxmltree::Document::parse(&svg).expect("well-formed XML");
            let texts: Vec<_> =
                tree.descendants().filter_map(|node| node.text()).map(str::trim).collect();
            for expected in ["“a” < b", "producer & co", "a limit", "records < all & more"] {
                assert!(texts.contains(&expected), "{scale:?}: {texts:?} lacks {expected}");
            }
            let curves = tree.descendants().filter(|node| node.has_tag_name("polyline"));
            let coloured =
                |colour: &str| curves.clone().any(|node| node.attribute("stroke") == Some(colour));
            assert!(coloured("#1F6FEB") && coloured("#E87D0D"), "{scale:?}: a curve is missing");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn nothing_is_not_drawn_and_one_point_is() {
        assert!(draw_svg(&chart(Scale::Linear, &[])).is_err());
        assert!(draw_svg(&chart(Scale::Sizes, &[(1.0, 0.0)])).is_ok());
        assert!(
            draw_svg(&chart(Scale::Logarithmic, &[(0.0, 1.0)])).is_err(),
            "zero has no logarithm"
        );
    }
}
