//! docs/reference/metrics.md; and the dashboard and the alerts name only described metrics.

use std::collections::HashSet;

use service::ops::metrics::{Catalogue, MetricDescription};

use super::{begin_page, check_generated_page, table_head, table_row};

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

#[test]
fn the_page_of_metrics_is_what_the_code_describes() {
    let mut page = begin_page("Metrics");
    page += "Durations are in seconds, sizes in bytes. Where one process runs both services, the label \
             `service` tells them apart.\n";
    for (title, metrics) in all_metrics() {
        page += &format!("\n## {title}\n\n");
        page += &table_head(&["metric", "kind", "labels", "meaning"]);
        for MetricDescription { name, kind, help } in metrics {
            let (meaning, labels) = help.split_once("; labels: ").unwrap_or((&help, ""));
            page += &table_row(&[&format!("`{name}`"), kind, labels, meaning]);
        }
    }
    check_generated_page("metrics.md", &page);
}

/// Suffixes of a histogram's series.
const ENDINGS: [&str; 3] = ["_bucket", "_sum", "_count"];

#[test]
fn dashboard_and_alerts_ask_for_nothing_that_is_not_counted() {
    let all: Vec<_> = all_metrics().into_iter().flat_map(|(_, metrics)| metrics).collect();
    let dashboard = include_str!("../../../../assets/grafana/notifications.json");
    let alerts = include_str!("../../../../assets/prometheus/alerts.yml");
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
