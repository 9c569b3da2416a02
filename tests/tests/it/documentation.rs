//! The documents, dashboard and alerts name the metrics that the code describes.

use std::collections::HashSet;

use service::ops::metrics::{Catalogue, MetricDescription};

const REFERENCE: &str = "../docs/metrics.md";

/// The metrics of a part, without those of the parts above it.
fn metrics_of(describe: fn(), before: &[MetricDescription]) -> Vec<MetricDescription> {
    let metrics = Catalogue::from_descriptions(describe).into_metrics();
    metrics.into_iter().filter(|metric| !before.contains(metric)).collect()
}

fn all_metrics() -> Vec<(&'static str, Vec<MetricDescription>)> {
    let common = || {
        service::ops::metrics::describe_service();
        event_log::metrics::describe_clients();
    };
    let both = metrics_of(common, &[]);
    let producer = metrics_of(producer::metrics::describe, &both);
    let consumer = metrics_of(consumer::metrics::describe, &both);
    vec![("Both services", both), ("The producer", producer), ("The consumer", consumer)]
}

#[test]
fn every_metric_is_named_as_prometheus_wants_it() {
    let all: Vec<_> = all_metrics().into_iter().flat_map(|(_, metrics)| metrics).collect();
    let names: HashSet<_> = all.iter().map(|metric| &metric.name).collect();
    assert_eq!(names.len(), all.len(), "a name is there twice");
    for MetricDescription { name, kind, help } in &all {
        assert!(name.starts_with("notifications_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
        assert!(*kind != "histogram" || name.ends_with("_seconds"), "{name}");
        assert!(!help.contains('\n') && !help.contains('\\'), "{name}");
    }
}

/// With `UPDATE_DOCUMENTS=1` in the environment the page is written instead of compared.
#[test]
fn the_reference_page_is_what_the_code_describes() {
    let mut page = String::from(
        "# Metrics\n\nGenerated from the code by `UPDATE_DOCUMENTS=1 cargo test -p e2e --test it \
         documentation`; do not edit.\n\nDurations are in seconds, sizes in bytes. Where one process \
         runs both services, the label `service` tells them apart.\n",
    );
    for (title, metrics) in all_metrics() {
        page +=
            &format!("\n## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
        for MetricDescription { name, kind, help } in metrics {
            let (meaning, labels) = help.split_once("; labels: ").unwrap_or((&help, ""));
            page += &format!("| `{name}` | {kind} | {labels} | {meaning} |\n");
        }
    }
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        std::fs::write(REFERENCE, &page).expect("a writable page");
    }
    let written = std::fs::read_to_string(REFERENCE).expect("the page");
    assert_eq!(written, page, "run it again with UPDATE_DOCUMENTS=1");
}

/// Suffixes of a histogram's series.
const ENDINGS: [&str; 3] = ["_bucket", "_sum", "_count"];

#[test]
fn dashboard_and_alerts_ask_for_nothing_that_is_not_counted() {
    let all: Vec<_> = all_metrics().into_iter().flat_map(|(_, metrics)| metrics).collect();
    let dashboard = include_str!("../../../assets/grafana/notifications.json");
    let alerts = include_str!("../../../assets/prometheus/alerts.yml");
    for (file, text) in [("dashboard", dashboard), ("alerts", alerts)] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        // `by (notifications_…)` and the like contain only names of metrics with this prefix.
        let asked: HashSet<_> = words.filter(|word| word.starts_with("notifications_")).collect();
        assert!(asked.len() > 10, "{file}");
        for name in asked {
            let whole = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
            let known = all.iter().any(|metric| metric.name == name || metric.name == whole);
            assert!(known, "{file}: {name}");
        }
    }
}

#[test]
fn the_operator_s_copy_of_the_alerts_is_one() {
    let alerts = include_str!("../../../assets/prometheus/alerts.yml");
    let copy = include_str!("../../../deploy/kubernetes/monitoring/alerts.yaml");
    let (_, groups) = alerts.split_once("\ngroups:\n").expect("groups");
    let (_, copied) = copy.split_once("\n  groups:\n").expect("groups");
    let moved: String = copied
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line)))
        .collect();
    assert_eq!(moved.trim_end(), groups.trim_end());
}
