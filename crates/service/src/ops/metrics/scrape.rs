//! The response to one scrape: states added now, and the recorder's metrics of this service.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use super::catalogue::{Catalogue, MetricDescription};

/// The response to one scrape, under construction.
#[derive(Debug)]
pub struct Scrape {
    service: &'static str,
    catalogue: Arc<Catalogue>,
    /// Each family's lines by name, `# HELP` and `# TYPE` included.
    families: BTreeMap<String, String>,
}

impl Scrape {
    pub(super) fn new(service: &'static str, catalogue: Arc<Catalogue>) -> Self {
        Self { service, catalogue, families: BTreeMap::new() }
    }

    /// Adds a sample with these labels. The metric must not be one that the recorder has too.
    pub fn add_sample(&mut self, metric: &str, labels: &[(&str, &str)], value: f64) {
        let family = self.families.entry(metric.to_owned()).or_insert_with(|| {
            let described = self.catalogue.find_metric(metric);
            described.map_or_else(String::new, |MetricDescription { name, kind, help }| {
                format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")
            })
        });
        family.push_str(metric);
        for (index, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(family, "{}{name}=\"{value}\"", if index == 0 { '{' } else { ',' });
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(family, "{end} {value}");
    }

    /// The text, with this service's part of `recorded`. Another service in the process serves its
    /// own part.
    pub(super) fn render_text(mut self, recorded: &str) -> String {
        let own = format!("service=\"{}\"", self.service);
        let mut head = String::new();
        let mut name = "";
        for line in recorded.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let of = comment.split(' ').nth(1).unwrap_or_default();
                if of != name {
                    (head, name) = (String::new(), of);
                }
                head.push_str(line);
                head.push('\n');
                continue;
            }
            let others = line.contains("service=\"") && !line.contains(&own);
            if line.is_empty() || others || self.catalogue.find_metric(name).is_none() {
                continue;
            }
            let family = self.families.entry(name.to_owned()).or_default();
            if family.is_empty() {
                family.push_str(&head);
            }
            family.push_str(line);
            family.push('\n');
        }
        self.families.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{describe_counter, describe_gauge, describe_histogram};

    fn describe() {
        describe_gauge!("partitions", "Some, by state");
        describe_counter!("x_total", "Some");
        describe_histogram!("y_seconds", "Some");
    }

    #[test]
    fn a_service_says_what_it_was_asked_and_what_was_recorded_of_it_alone() {
        let mut scrape = Scrape::new("consumer", Arc::new(Catalogue::from_descriptions(describe)));
        scrape.add_sample("partitions", &[("state", "live")], 12.0);
        scrape.add_sample("partitions", &[("state", "a \"quoted\\one\"")], 0.5);
        let recorded = "# HELP x_total Some.\n# TYPE x_total counter\n\
             x_total{service=\"producer\"} 1\nx_total{service=\"consumer\"} 2\n\n\
             # TYPE sent_total counter\nsent_total{outcome=\"acknowledged\"} 3\n\n\
             # TYPE y_seconds histogram\ny_seconds_bucket{le=\"+Inf\"} 4\ny_seconds_sum 5\n\n";
        let expected = "# HELP partitions Some, by state\n# TYPE partitions gauge\n\
             partitions{state=\"live\"} 12\n\
             partitions{state=\"a \\\"quoted\\\\one\\\"\"} 0.5\n\
             # HELP x_total Some.\n# TYPE x_total counter\nx_total{service=\"consumer\"} 2\n\
             # TYPE y_seconds histogram\ny_seconds_bucket{le=\"+Inf\"} 4\ny_seconds_sum 5\n";
        assert_eq!(scrape.render_text(recorded), expected);
    }
}
