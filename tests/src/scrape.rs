//! Reads `GET /metrics` as strictly as Prometheus does.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use service::ops::metrics::{Catalogue, MetricDescription};

use crate::World;

/// One scrape.
#[derive(Debug)]
pub struct Scrape {
    /// The whole body.
    pub text: String,
    /// By name and labels.
    values: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Scrape {
    /// Scrapes the service at this URL.
    pub async fn fetch(world: &World, base: &str) -> Self {
        let response = world.http().get(format!("{base}/metrics")).send().await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        let media_type = response.headers()["content-type"].to_str().expect("text").to_owned();
        assert!(media_type.starts_with("text/plain; version=0.0.4"), "{media_type}");
        Self::parse_text(response.text().await.expect("text"))
    }

    fn parse_text(text: String) -> Self {
        let mut values = BTreeMap::new();
        let catalogues = [producer::metrics::describe, consumer::metrics::describe]
            .map(Catalogue::from_descriptions);
        let mut family: Option<MetricDescription> = None;
        let mut described = Vec::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (what, name, rest) = (words.next(), words.next(), words.next());
                let metric = catalogues.iter().find_map(|described| described.find_metric(name?));
                let metric = metric.unwrap_or_else(|| unreachable!("an unknown metric: {line}"));
                match what {
                    Some("HELP") => {
                        assert_eq!(rest, Some(metric.help.as_str()));
                        assert!(!described.contains(&metric.name), "two families: {line}");
                        described.push(metric.name.clone());
                    }
                    Some("TYPE") => assert_eq!(rest, Some(metric.kind)),
                    _ => unreachable!("neither help nor type: {line}"),
                }
                family = Some(metric);
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').expect("an end of the labels");
            let labels: BTreeMap<_, _> = labels
                .split_terminator("\",")
                .map(|label| label.split_once("=\"").expect("a label"))
                .map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()))
                .collect();
            let MetricDescription { name: family, help, .. } = family.as_ref().expect("a family");
            let described = help.split_once("; labels: ").map_or("", |(_, labels)| labels);
            let described: Vec<_> = described.split(", ").chain(["le"]).collect();
            assert!(
                labels.keys().all(|label| described.contains(&label.as_str())),
                "{line}: {help}"
            );
            assert!(name.starts_with(family.as_str()), "{line} in {family}");
            let value: f64 = value.parse().expect("a number");
            let before = values.insert((name.to_owned(), labels), value);
            assert_eq!(before, None, "twice: {line}");
        }
        Self { text, values }
    }

    /// The sum of the values of this name that have all of these labels; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching_values(name, labels).sum()
    }

    /// The number of series of this name that have all of these labels.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.matching_values(name, labels).count()
    }

    /// The number of observations of a histogram with all of these labels.
    pub fn histogram_count(&self, histogram: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(&format!("{histogram}_count"), labels)
    }

    fn matching_values(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        let matches = move |found: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| found.get(*name).is_some_and(|v| v == value))
        };
        let of_name = self.values.iter().filter(move |((found, _), _)| found == name);
        of_name.filter(move |((_, found), _)| matches(found)).map(|(_, value)| *value)
    }
}
