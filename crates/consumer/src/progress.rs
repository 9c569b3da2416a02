//! Shows people how far a rebuild is, and says which partition is stuck, and why.

use std::{
    collections::HashSet,
    io::IsTerminal,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use log::Log;

use crate::view::{View, partition::Status};

/// How often it is looked at. A rebuild that is shorter is not worth a word.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a log without a terminal is told.
const SAY_EVERY: Duration = Duration::from_secs(5);
/// For how long a partition may get no further before it counts as stuck.
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
    let mut stuck = HashSet::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let sum = sum(&view);
        if sum.partitions == 0 {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            stuck.clear();
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
        say_stuck(&view, &log, &mut stuck).await;
    }
}

fn sum(view: &View) -> Sum {
    view.partitions().fold(Sum::default(), |mut sum, (_, partition)| {
        if let Status::Rebuilding(progress) = partition.status() {
            sum.partitions += 1;
            sum.records += progress.records;
            sum.total += progress.total.unwrap_or(0);
            sum.rate += progress.records_per_second;
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
        "of {} partitions, {:.0} records/s, {:.0} s left",
        sum.partitions,
        sum.rate,
        seconds_left(sum),
    ));
}

/// Says of each stuck partition, once a rebuild, what can be known of the cause.
async fn say_stuck(view: &View, log: &Log, said: &mut HashSet<i32>) {
    for (number, partition) in view.partitions() {
        let stuck = partition.stuck_since().is_some_and(|since| since.elapsed() > STUCK_AFTER);
        if !stuck || !said.insert(number) {
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
