//! Shows people how far a rebuild is, and says which partition is stuck, and why.

use std::{
    collections::{HashMap, HashSet},
    io::IsTerminal,
    sync::Arc,
    time::{Duration, Instant},
};

use event_log::Log;
use indicatif::{ProgressBar, ProgressStyle};

use crate::view::{PartitionStatus, View};

/// How often it is looked at. A rebuild that is shorter is not worth a word.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a log without a terminal is told.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// For how long no partition may get any further before those that are left count as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(10);
const PING: Duration = Duration::from_secs(2);

/// What all rebuilds together have done.
#[derive(Default)]
struct Sum {
    partitions: usize,
    records: u64,
    total: u64,
    rate: f64,
}

/// Watches until dropped. Never ends.
pub async fn watch(view: Arc<View>, log: Log) {
    let mut bar: Option<ProgressBar> = None;
    let mut said = Instant::now();
    let mut pace = Pace::default();
    // How much there was to read of each partition of this rebuild, live already or not.
    let mut totals = HashMap::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let sum = sum(&view, &mut totals);
        if sum.partitions == 0 {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            pace = Pace::default();
            totals.clear();
            continue;
        }
        if std::io::stderr().is_terminal() {
            show(bar.get_or_insert_with(new_bar), &sum);
        } else if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            tracing::info!(
                rebuild.partitions = sum.partitions,
                rebuild.records = sum.records,
                rebuild.total = sum.total,
                rebuild.records_per_second = sum.rate,
                rebuild.seconds_left = seconds_left(&sum),
                "rebuilding",
            );
        }
        pace.look(&view);
        pace.say_stuck(&view, &log).await;
    }
}

fn sum(view: &View, totals: &mut HashMap<i32, u64>) -> Sum {
    view.partitions().fold(Sum::default(), |mut sum, (number, partition)| {
        match partition.status() {
            PartitionStatus::Rebuilding(progress) => {
                let total = progress.total.unwrap_or(0);
                totals.insert(number, total);
                sum.partitions += 1;
                sum.records += progress.records;
                sum.total += total;
                sum.rate += progress.records_per_second;
            }
            // What is done stays in the sum, so that a bar never goes back.
            PartitionStatus::Live { .. } => {
                let total = totals.get(&number).copied().unwrap_or(0);
                sum.records += total;
                sum.total += total;
            }
            PartitionStatus::Unowned => {
                totals.remove(&number);
            }
        }
        sum
    })
}

#[allow(clippy::cast_precision_loss)] // shown to people
fn seconds_left(sum: &Sum) -> f64 {
    (sum.total.saturating_sub(sum.records) as f64 / sum.rate.max(1.0)).round()
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("rebuilding {bar:30} {percent} % {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

fn show(bar: &ProgressBar, sum: &Sum) {
    bar.set_length(sum.total);
    bar.set_position(sum.records.min(sum.total));
    bar.set_message(format!(
        "{} partitions left, {:.0} records/s, {:.0} s",
        sum.partitions,
        sum.rate,
        seconds_left(sum),
    ));
}

/// Whether the partitions that are being rebuilt get any further.
#[derive(Default)]
struct Pace {
    /// How far each was, and when that was first seen. Looked at from here, so that folding a record
    /// need not ask what time it is.
    seen: HashMap<i32, (u64, Instant)>,
    said: HashSet<i32>,
}

impl Pace {
    fn look(&mut self, view: &View) {
        for (number, partition) in view.partitions() {
            let PartitionStatus::Rebuilding(progress) = partition.status() else {
                self.seen.remove(&number);
                continue;
            };
            let now = (progress.records, Instant::now());
            let seen = self.seen.entry(number).or_insert(now);
            if seen.0 != now.0 {
                *seen = now;
            }
        }
    }

    /// Says of each stuck partition, once a rebuild, what can be known of the cause.
    async fn say_stuck(&mut self, view: &View, log: &Log) {
        let stuck = |(_, since): &(u64, Instant)| since.elapsed() > STUCK_AFTER;
        // Kafka's client reads one partition after the other: one that waits for its turn is not
        // stuck.
        if self.seen.is_empty() || !self.seen.values().all(stuck) {
            return;
        }
        for (number, partition) in view.partitions() {
            if !self.seen.contains_key(&number) || !self.said.insert(number) {
                continue;
            }
            let why = match log.ping(PING).await {
                Ok(()) => {
                    "the log answers, but sends no records: is the partition's leader there?".into()
                }
                Err(error) => error.to_string(),
            };
            tracing::warn!(
                kafka.partition = number, status = ?partition.status(), why,
                "the rebuild of a partition is stuck",
            );
        }
    }
}
