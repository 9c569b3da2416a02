//! The report of a run: Markdown to standard output; Markdown, JSON and SVG into a folder.

use std::{
    fmt::Write as _,
    fs,
    io::{Write as _, stdout},
    path::Path,
};

use serde::Serialize;

use crate::{
    Result,
    chart::{Chart, Row, Table},
    figures::{Party, Ratio, Spread},
    percentiles::OpenLoop,
    plot::draw_svg,
    print_status,
};

/// One subcommand's figures. Fields that a subcommand does not measure are empty.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    /// The unit of the parties' values.
    pub(crate) unit: &'static str,
    pub(crate) parties: Vec<Party>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) open_loop: Option<OpenLoop>,
    pub(crate) tables: Vec<Table>,
    pub(crate) charts: Vec<Chart>,
    pub(crate) notes: Vec<String>,
}

/// The whole report. As JSON:
///
/// ```text
/// { "started", "cores", "load_average", "release", "quick",
///   "sections": [
///     { "name", "title", "unit",
///       "parties":   [{ "name", "role": "subject" | "limit", "value": SPREAD,
///                       "p50_ms": SPREAD?, "p99_ms": SPREAD?, "cpu_us": SPREAD?, "failed", "count" }],
///       "ratios":    [{ "name", "value": SPREAD, "aim": { "at_least" | "at_most": number }? }],
///       "open_loop": { "rate", "parties": [{ "name", "role", "count", "failed",
///                      "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms" }] }?,
///       "tables":    [{ "title", "columns": [name], "rows": [{ "name", "figures": [number?] }] }],
///       "charts":    [{ "name": its file without .svg, "title", "x": AXIS, "y": AXIS,
///                       "series": [{ "name", "points": [[x, y]] }] }],
///       "notes":     [text] }] }
/// SPREAD: { "median", "min", "max", "rounds": [number] }
/// AXIS:   { "title", "scale": "linear" | "logarithmic" | "sizes" | "percentile" }
/// ```
///
/// Fields with a `?` may be null. A table's first column is the rows' name; on a percentile axis
/// the points are quantiles from 0 to 1.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BenchReport {
    /// RFC 3339.
    pub(crate) started: String,
    pub(crate) cores: usize,
    /// Of the minute before the start; `None` if the system has no `/proc/loadavg`.
    pub(crate) load_average: Option<f64>,
    /// True if the programs were built with optimisation.
    pub(crate) release: bool,
    pub(crate) quick: bool,
    pub(crate) sections: Vec<Section>,
}

impl BenchReport {
    /// A report without sections.
    pub(crate) fn new(quick: bool) -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        Self {
            started: format!("{:.0}", jiff::Timestamp::now()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average: load.and_then(|text| text.split(' ').next()?.parse().ok()),
            release: !cfg!(debug_assertions),
            quick,
            sections: Vec::new(),
        }
    }

    fn to_markdown(&self) -> String {
        let mut text = String::from("# Measurements\n\n");
        let load = self.load_average.map_or("unknown".into(), |load| format!("{load:.2}"));
        let _ = writeln!(
            text,
            "{}, {} cores, load average at the start {load}{}{}. The load generator, the services, Kafka and \
             PostgreSQL share these cores, so only the ratios mean anything: subject and limit took turns in the \
             same run, after a warm-up. Figures are medians over rounds, with (least–greatest).",
            self.started,
            self.cores,
            if self.quick { ", quick run" } else { "" },
            if self.release { "" } else { ", **debug build: figures are worthless**" },
        );
        for section in &self.sections {
            section.write_markdown(&mut text);
        }
        text
    }

    /// Prints the report, and writes report.md, report.json and one SVG a chart into the folder.
    pub(crate) fn publish(&self, folder: Option<&Path>) -> Result<()> {
        let markdown = self.to_markdown();
        stdout().write_all(markdown.as_bytes())?;
        let Some(folder) = folder else { return Ok(()) };
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.md"), &markdown)?;
        fs::write(folder.join("report.json"), serde_json::to_string_pretty(self)?)?;
        for chart in self.sections.iter().flat_map(|section| &section.charts) {
            match draw_svg(chart) {
                Ok(svg) => fs::write(folder.join(format!("{}.svg", chart.name)), svg)?,
                // The JSON has the figures, and the other charts are still to be drawn.
                Err(error) => print_status(error),
            }
        }
        print_status(format_args!("written to {}", folder.display()));
        Ok(())
    }
}

impl Section {
    fn write_markdown(&self, text: &mut String) {
        let _ = writeln!(text, "\n## {}: {}\n", self.name, self.title);
        if !self.parties.is_empty() {
            self.write_parties(text);
        }
        if !self.ratios.is_empty() {
            let rows = self.ratios.iter().map(|ratio| {
                vec![ratio.name.clone(), format_spread(Some(&ratio.value)), ratio.verdict()]
            });
            write_table(text, &["ratio", "", "aim"], 1, rows);
        }
        if let Some(open) = &self.open_loop {
            let _ = writeln!(
                text,
                "{} a second, open loop: latency in ms, from when a request was due, all rounds together.\n",
                open.rate
            );
            let rows = open.parties.iter().map(|one| {
                let figures = [one.p50_ms, one.p90_ms, one.p99_ms, one.p999_ms, one.max_ms];
                let words = [one.role.to_owned(), one.name.clone()].into_iter();
                let counts = [one.failed.to_string(), one.count.to_string()];
                words.chain(figures.map(format_number)).chain(counts).collect()
            });
            let head = ["", "", "p50", "p90", "p99", "p99.9", "max", "not 200", "count"];
            write_table(text, &head, 2, rows);
        }
        for Table { title, columns, rows } in &self.tables {
            let _ = writeln!(text, "{title}.\n");
            let head: Vec<_> = columns.iter().map(String::as_str).collect();
            let rows = rows.iter().map(|Row { name, figures }| {
                let figure = |figure: &Option<f64>| figure.map_or("–".into(), format_number);
                std::iter::once(name.clone()).chain(figures.iter().map(figure)).collect()
            });
            write_table(text, &head, 1, rows);
        }
        for Chart { name, title, .. } in &self.charts {
            let _ = writeln!(text, "![{title}]({name}.svg)\n");
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
    }

    fn write_parties(&self, text: &mut String) {
        let timed = self.parties.iter().any(|party| party.p50_ms.is_some());
        let rows = self.parties.iter().map(|party| {
            let words =
                [party.role.to_owned(), party.name.clone(), format_spread(Some(&party.value))];
            let times = [&party.p50_ms, &party.p99_ms, &party.cpu_us];
            let times = times.map(|spread| format_spread(spread.as_ref())).into_iter();
            let more = times.chain([party.failed.to_string()]);
            words.into_iter().chain(more.take(if timed { 4 } else { 0 })).collect()
        });
        let head = ["", "", self.unit, "p50 ms", "p99 ms", "CPU µs each", "not 200"];
        write_table(text, &head[..if timed { 7 } else { 3 }], 2, rows);
    }
}

/// Writes a table whose first `words` columns are text; the others are aligned to the right.
fn write_table(
    text: &mut String,
    head: &[&str],
    words: usize,
    rows: impl Iterator<Item = Vec<String>>,
) {
    let _ = writeln!(text, "| {} |", head.join(" | "));
    let sides = (0..head.len()).map(|column| if column < words { "---" } else { "---:" });
    let _ = writeln!(text, "|{}|", sides.collect::<Vec<_>>().join("|"));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text.push('\n');
}

fn format_spread(spread: Option<&Spread>) -> String {
    spread.map_or("–".into(), |Spread { median, min, max, .. }| {
        format!("**{}** ({}–{})", format_number(*median), format_number(*min), format_number(*max))
    })
}

/// At least three significant digits.
fn format_number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}
