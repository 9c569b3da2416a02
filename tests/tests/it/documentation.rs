//! The documents say what the code says: reference pages are generated from it, links lead
//! somewhere, and the dashboard and the alerts ask for existing metrics.
//!
//! `task docs` writes the generated pages.

mod configuration;
mod alerts;
mod http;
mod links;
pub(crate) mod markdown;
mod metrics;

/// Fails if the generated page docs/reference/`name` is not `text`. With `UPDATE_DOCUMENTS=1` in the
/// environment, writes it instead.
fn check_generated_page(name: &str, text: &str) {
    let path = format!("../docs/reference/{name}");
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        // Other tests read the pages meanwhile, so it is replaced whole.
        let new = format!("{path}.new");
        std::fs::write(&new, text).expect("a writable page");
        std::fs::rename(new, &path).expect("a writable page");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/reference/{name} is stale: `task docs` writes it");
}

/// The beginning of a generated page.
fn begin_page(title: &str) -> String {
    format!("# {title}\n\nGenerated from the code by `task docs`; do not edit.\n\n")
}

/// A row of a table.
fn table_row(cells: &[&str]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The head of a table, with the line below it.
fn table_head(titles: &[&str]) -> String {
    table_row(titles) + &format!("|{}\n", "---|".repeat(titles.len()))
}
