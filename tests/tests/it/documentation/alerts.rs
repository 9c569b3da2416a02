//! Every alert has its paragraph in the runbook, and the operator's copy of the alerts is the same.

use std::collections::BTreeSet;

use super::markdown::Document;

const ALERTS: &str = include_str!("../../../../assets/prometheus/alerts.yml");
const RUNBOOK: &str = "docs/operate/runbook.md";

#[test]
fn every_alert_leads_to_its_paragraph_and_every_paragraph_is_an_alert_s() {
    let values = |key: &str| -> Vec<&str> {
        let lines = ALERTS.lines().filter_map(|line| line.trim().strip_prefix(key));
        lines.map(str::trim).collect()
    };
    let (names, urls) = (values("- alert:"), values("runbook_url:"));
    assert!(names.len() > 10 && names.len() == urls.len(), "{names:?} {urls:?}");

    let runbook = Document::read(RUNBOOK);
    let mut linked = BTreeSet::new();
    for (name, url) in names.iter().zip(urls) {
        let anchor = url.strip_prefix(RUNBOOK).and_then(|anchor| anchor.strip_prefix('#'));
        let anchor = anchor.unwrap_or_default();
        assert!(runbook.anchors.contains(anchor), "{name}: {url} is not in {RUNBOOK}");
        assert!(runbook.text.contains(name), "{RUNBOOK} does not name {name}");
        linked.insert(anchor);
    }
    let anchors = runbook.anchors.iter().map(String::as_str);
    let paragraphs: BTreeSet<_> = anchors.filter(|anchor| anchor.starts_with("alert-")).collect();
    assert_eq!(paragraphs, linked, "paragraphs of the runbook, and alerts");
}

#[test]
fn the_operator_s_copy_of_the_alerts_is_one() {
    let alerts = include_str!("../../../../assets/prometheus/alerts.yml");
    let copy = include_str!("../../../../deploy/kubernetes/monitoring/alerts.yaml");
    let (_, groups) = alerts.split_once("\ngroups:\n").expect("groups");
    let (_, copied) = copy.split_once("\n  groups:\n").expect("groups");
    let moved: String = copied
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line)))
        .collect();
    assert_eq!(moved.trim_end(), groups.trim_end());
}
