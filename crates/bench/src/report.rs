//! What a run says: figures become Markdown for people and JSON for machines. It never measures.

use std::fmt::Write as _;

use serde::Serialize;

use crate::figures::{Party, Ratio, Spread};

/// One subcommand's outcome.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    /// Of every party's value.
    pub(crate) unit: &'static str,
    pub(crate) parties: Vec<Party>,
    pub(crate) ratios: Vec<Ratio>,
    pub(crate) notes: Vec<String>,
}

/// Everything that a run says.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// RFC 3339.
    pub(crate) started: String,
    pub(crate) cores: usize,
    /// Over the minute before the start: what else ran on this machine. None where it is not told.
    pub(crate) load_average: Option<f64>,
    /// Whether the programs were built with optimisation.
    pub(crate) release: bool,
    pub(crate) quick: bool,
    pub(crate) sections: Vec<Section>,
}

impl Report {
    /// Nothing measured yet.
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

    /// For people.
    pub(crate) fn markdown(&self) -> String {
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
            section.write(&mut text);
        }
        text
    }
}

impl Section {
    fn write(&self, text: &mut String) {
        let _ = writeln!(text, "\n## {}: {}\n", self.name, self.title);
        let timed = self.parties.iter().any(|party| party.p50_ms.is_some());
        let columns = if timed { " p50 ms | p99 ms | CPU µs each | not 200 |" } else { "" };
        let _ = writeln!(text, "| | | {} |{columns}", self.unit);
        let _ = writeln!(text, "|---|---|---:|{}", if timed { "---:|---:|---:|---:|" } else { "" });
        for party in &self.parties {
            let _ = write!(
                text,
                "| {} | {} | {} |",
                party.role,
                party.name,
                figure(Some(&party.value))
            );
            if timed {
                let [p50, p99, cpu] = [&party.p50_ms, &party.p99_ms, &party.cpu_us]
                    .map(|spread| figure(spread.as_ref()));
                let _ = write!(text, " {p50} | {p99} | {cpu} | {} |", party.failed);
            }
            text.push('\n');
        }
        let _ = writeln!(text, "\n| ratio | | aim |\n|---|---:|---|");
        for ratio in &self.ratios {
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                ratio.name,
                figure(Some(&ratio.value)),
                ratio.verdict()
            );
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
    }
}

fn figure(spread: Option<&Spread>) -> String {
    spread.map_or("–".into(), |Spread { median, min, max, .. }| {
        format!("**{}** ({}–{})", number(*median), number(*min), number(*max))
    })
}

/// Three digits that mean something, and never fewer than the whole number has.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}
