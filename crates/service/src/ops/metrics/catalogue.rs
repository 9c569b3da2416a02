//! The descriptions of a service's metrics: the source of `/metrics` and of the reference table in
//! the documents.

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use parking_lot::Mutex;

/// The description of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDescription {
    /// The name; of a histogram, without `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its meaning and its labels, on one line.
    pub help: String,
}

/// The metrics that one function describes, in that order.
#[derive(Debug, Default)]
pub struct Catalogue(Mutex<Vec<MetricDescription>>);

impl Catalogue {
    /// Records the descriptions that `describe` makes.
    #[must_use]
    pub fn from_descriptions(describe: fn()) -> Self {
        let catalogue = Self::default();
        with_local_recorder(&catalogue, describe);
        catalogue
    }

    /// The metric of this name.
    #[must_use]
    pub fn find_metric(&self, name: &str) -> Option<MetricDescription> {
        self.0.lock().iter().find(|metric| metric.name == name).cloned()
    }

    /// All of them.
    #[must_use]
    pub fn into_metrics(self) -> Vec<MetricDescription> {
        self.0.into_inner()
    }

    fn push_description(&self, name: &KeyName, kind: &'static str, help: &SharedString) {
        let (name, help) = (name.as_str().to_owned(), help.to_string());
        self.0.lock().push(MetricDescription { name, kind, help });
    }
}

impl Recorder for Catalogue {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.push_description(&name, "counter", &help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.push_description(&name, "gauge", &help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.push_description(&name, "histogram", &help);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
