//! Where a report goes: to standard output, and with its charts into a folder, if one was named.

use std::{
    fs,
    io::{Write as _, stdout},
    path::Path,
};

use crate::{Result, plot, report::Report, say};

/// Prints the report, and writes report.md, report.json and one SVG a chart.
pub(crate) fn publish(report: &Report, folder: Option<&Path>) -> Result<()> {
    let markdown = report.markdown();
    stdout().write_all(markdown.as_bytes())?;
    let Some(folder) = folder else { return Ok(()) };
    fs::create_dir_all(folder)?;
    fs::write(folder.join("report.md"), &markdown)?;
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    for chart in report.sections.iter().flat_map(|section| &section.charts) {
        match plot::svg(chart) {
            Ok(svg) => fs::write(folder.join(format!("{}.svg", chart.name)), svg)?,
            // The figures are there, and the other charts are still to come.
            Err(error) => say(error),
        }
    }
    say(format_args!("written to {}", folder.display()));
    Ok(())
}
