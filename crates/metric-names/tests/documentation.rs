//! What is written for people names the metrics that there are.

use std::collections::HashSet;

use metric_names::ALL;

const README: &str = include_str!("../../../README.md");
const README_RU: &str = include_str!("../../../README.ru.md");

#[test]
fn both_readmes_name_every_metric_and_no_other() {
    for text in [README, README_RU] {
        // The names, as they stand between backticks.
        let words: Vec<_> = text.split('`').collect();
        for metric in ALL {
            assert!(words.contains(&metric.name), "{} is not described", metric.name);
        }
        for word in words {
            let like_a_name = word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if like_a_name && (word.starts_with("notifications_") || word.starts_with("process_")) {
                assert!(ALL.iter().any(|metric| metric.name == word), "there is no {word}");
            }
        }
    }
}

/// What a histogram's name becomes where it is counted.
const ENDINGS: [&str; 3] = ["_bucket", "_sum", "_count"];

#[test]
fn dashboard_and_alerts_ask_for_nothing_that_is_not_counted() {
    let dashboard = include_str!("../../../assets/grafana/notifications.json");
    let alerts = include_str!("../../../assets/prometheus/alerts.yml");
    for (file, text) in [("dashboard", dashboard), ("alerts", alerts)] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        // In `by (notifications_…)` and the like nothing begins so that is no metric.
        let asked: HashSet<_> = words.filter(|word| word.starts_with("notifications_")).collect();
        assert!(asked.len() > 10, "{file}");
        for name in asked {
            let whole = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
            let known = ALL.iter().any(|metric| metric.name == name || metric.name == whole);
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
