//! The report of a run: Markdown to standard output; Markdown, JSON and the plots into a folder.

use std::{
    fmt::Write as _,
    fs,
    io::{Write as _, stdout},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    figures::{QUANTILES, Sample, Spread, costs, rates, spread},
    plot, print_status, turns,
};

/// The bottleneck is named if the load generator's thread is busier than this.
const BUSY_SHARE: f64 = 0.9;

/// The whole report; report.json is this structure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BenchReport {
    /// RFC 3339.
    pub(crate) started: String,
    pub(crate) cores: usize,
    /// Of the minute before the start; `None` if the system has no `/proc/loadavg`.
    pub(crate) load_average: Option<f64>,
    /// True if the programs were built with optimisation.
    pub(crate) release: bool,
    pub(crate) quick: bool,
    /// About the time that the hypervisor took.
    pub(crate) steal: Option<String>,
    pub(crate) sections: Vec<Section>,
}

/// One subcommand's figures.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) charts: Vec<Chart>,
    pub(crate) notes: Vec<String>,
}

/// Figures in rows. The first column has the rows' names.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// A row: one figure for each column after the first; `None` if it could not be measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) figures: Vec<Option<Spread>>,
}

/// A figure that has an aim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) work: String,
    pub(crate) beside: String,
    pub(crate) value: Spread,
    pub(crate) unit: String,
    pub(crate) aim: Aim,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

/// Curves; `plot` draws them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chart {
    /// File name without `.svg`.
    pub(crate) name: String,
    pub(crate) title: String,
    /// With the unit.
    pub(crate) x: String,
    pub(crate) y: String,
    /// Axes are linear from 0, or logarithmic.
    pub(crate) logarithmic_x: bool,
    pub(crate) logarithmic_y: bool,
    pub(crate) series: Vec<Series>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Section {
    pub(crate) fn new(name: &str, title: impl Into<String>) -> Self {
        Self { name: name.into(), title: title.into(), ..Self::default() }
    }

    /// Adds a figure with an aim, if it was measured.
    pub(crate) fn judge(
        &mut self,
        work: &str,
        beside: &str,
        value: Option<Spread>,
        unit: &str,
        aim: Aim,
    ) {
        let (work, beside, unit) = (work.into(), beside.into(), unit.into());
        self.verdicts.extend(value.map(|value| Verdict { work, beside, value, unit, aim }));
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a table of every party's samples, and a note about each that the load generator held
    /// back.
    pub(crate) fn add_samples(&mut self, title: &str, parties: &[&str], samples: &[Vec<Sample>]) {
        let columns = [
            "",
            "a second",
            "CPU µs each",
            "broker's µs each",
            "p50 ms",
            "p99 ms",
            "load generator, cores",
            "broker, cores",
            "failed",
        ];
        let mut rows = Vec::new();
        for (name, samples) in parties.iter().zip(samples) {
            let generator = spread(samples, |one| Some(one.generator));
            if generator.as_ref().is_some_and(|share| share.median > BUSY_SHARE) {
                self.notes.push(format!("{title}, {name}: the load generator was the bottleneck."));
            }
            rows.push(Row {
                name: (*name).into(),
                figures: vec![
                    rates(samples),
                    costs(samples),
                    spread(samples, |one| one.broker_us),
                    spread(samples, Sample::p50_ms),
                    spread(samples, Sample::p99_ms),
                    generator,
                    spread(samples, |one| one.broker_us.map(|_| one.broker_cores)),
                    spread(samples, |one| Some(one.failed as f64)),
                ],
            });
        }
        let columns = columns.map(str::to_owned).into();
        self.tables.push(Table { title: title.into(), columns, rows });
    }

    /// Adds a chart of every party's latency by percentile.
    pub(crate) fn add_latencies(&mut self, title: &str, parties: &[&str], samples: &[Vec<Sample>]) {
        let series = parties.iter().zip(samples).map(|(name, samples)| {
            let at = |(index, quantile): (usize, &f64)| {
                let latency = spread(samples, |one| one.latencies_ms.get(index).copied())?;
                Some((1.0 / (1.0 - quantile), latency.median))
            };
            Series {
                name: (*name).into(),
                points: QUANTILES.iter().enumerate().filter_map(at).collect(),
            }
        });
        self.charts.push(Chart {
            name: format!("{}-latency", self.name),
            title: title.into(),
            x: "one in so many is slower".into(),
            y: "latency, ms".into(),
            logarithmic_x: true,
            logarithmic_y: true,
            series: series.collect(),
        });
    }
}

impl BenchReport {
    /// A report without sections.
    pub(crate) fn new(quick: bool) -> Self {
        let load = fs::read_to_string("/proc/loadavg").ok();
        Self {
            started: format!("{:.0}", jiff::Timestamp::now()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average: load.and_then(|text| text.split(' ').next()?.parse().ok()),
            release: !cfg!(debug_assertions),
            quick,
            steal: None,
            sections: Vec::new(),
        }
    }

    /// Prints the report, and writes report.md, report.json and the plots into the folder.
    pub(crate) fn publish(&mut self, folder: Option<&Path>) -> Result<()> {
        self.steal = turns::describe_steal();
        let markdown = self.to_markdown();
        stdout().write_all(markdown.as_bytes())?;
        let Some(folder) = folder else { return Ok(()) };
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.md"), &markdown)?;
        fs::write(folder.join("report.json"), serde_json::to_string_pretty(self)?)?;
        plot::draw_report(folder)?;
        print_status(format_args!("written to {}", folder.display()));
        Ok(())
    }

    fn to_markdown(&self) -> String {
        let mut text = String::from("# Measurements\n\n");
        let load = self.load_average.map_or("unknown".into(), |load| format!("{load:.2}"));
        let _ = writeln!(
            text,
            "{}, {} cores, load average at the start {load}{}{}. The load generator, the services, Kafka and \
             PostgreSQL share these cores. So cost counts, the processor time of a process for each operation; \
             rates and latencies stand beside it. Subject and limits took turns (ABBA) after a warm-up. Figures are \
             medians over rounds, with (least–greatest). {}",
            self.started,
            self.cores,
            if self.quick { ", quick run" } else { "" },
            if self.release { "" } else { ", **debug build: figures are worthless**" },
            self.steal.as_deref().unwrap_or_default(),
        );
        for section in &self.sections {
            section.write_markdown(&mut text);
        }
        let verdicts = self.sections.iter().flat_map(|section| &section.verdicts);
        let rows = verdicts.map(|Verdict { work, beside, value, unit, aim }| {
            let (sign, bound, met) = match *aim {
                Aim::AtLeast(bound) => ("≥", bound, value.median >= bound),
                Aim::AtMost(bound) => ("≤", bound, value.median <= bound),
            };
            let met = if met { "met" } else { "missed" };
            let aim = format!("{sign} {} {unit}", format_number(bound));
            vec![
                work.clone(),
                beside.clone(),
                format!("{} {unit}", format_spread(Some(value))),
                aim,
                met.into(),
            ]
        });
        let rows: Vec<_> = rows.collect();
        if !rows.is_empty() {
            text.push_str("\n## Aims\n\n");
            write_table(&mut text, &["work", "beside", "measured", "aim", ""], 2, rows.into_iter());
        }
        text
    }
}

impl Section {
    fn write_markdown(&self, text: &mut String) {
        let _ = writeln!(text, "\n## {}: {}\n", self.name, self.title);
        for Table { title, columns, rows } in &self.tables {
            let _ = writeln!(text, "{title}:\n");
            let head: Vec<_> = columns.iter().map(String::as_str).collect();
            let rows = rows.iter().map(|Row { name, figures }| {
                let figures = figures.iter().map(|figure| format_spread(figure.as_ref()));
                std::iter::once(name.clone()).chain(figures).collect()
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
    spread.map_or("–".into(), |Spread { median, min, max, rounds }| {
        let median = format_number(*median);
        match rounds.len() {
            1 => format!("**{median}**"),
            _ => format!("**{median}** ({}–{})", format_number(*min), format_number(*max)),
        }
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
