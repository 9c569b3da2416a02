//! Reports how far the rebuilds are, on a terminal or in the log.

use std::{
    collections::HashMap,
    io::IsTerminal,
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::view::{PartitionStatus, View};

/// Time between two looks at the view. A shorter rebuild is not reported.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two log lines, if standard error is not a terminal.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Default)]
struct RebuildSum {
    partitions: usize,
    records: u64,
    total: u64,
    rate: f64,
}

/// Reports until dropped. Never ends.
pub(crate) async fn report_rebuilds(view: Arc<View>) {
    let mut bar: Option<ProgressBar> = None;
    let mut logged = Instant::now();
    // Records to read of each partition of this rebuild, also of those that are live by now.
    let mut totals = HashMap::new();
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let sum = sum_rebuilds(&view, &mut totals);
        if sum.partitions == 0 {
            bar.take().inspect(ProgressBar::finish_and_clear);
            totals.clear();
            continue;
        }
        if std::io::stderr().is_terminal() {
            update_bar(bar.get_or_insert_with(new_bar), &sum);
        } else if logged.elapsed() >= LOG_INTERVAL {
            logged = Instant::now();
            tracing::info!(
                rebuild.partitions = sum.partitions,
                rebuild.records = sum.records,
                rebuild.total = sum.total,
                rebuild.records_per_second = sum.rate,
                rebuild.seconds_left = seconds_left(&sum),
                "rebuilding",
            );
        }
    }
}

fn sum_rebuilds(view: &View, totals: &mut HashMap<i32, u64>) -> RebuildSum {
    view.partitions().fold(RebuildSum::default(), |mut sum, (number, partition)| {
        match partition.status() {
            PartitionStatus::Rebuilding(progress) => {
                let total = progress.total.unwrap_or(0);
                totals.insert(number, total);
                sum.partitions += 1;
                sum.records += progress.records;
                sum.total += total;
                sum.rate += progress.records_per_second;
            }
            // Partitions that became live stay in the sum, so that the bar never goes back.
            PartitionStatus::Live { .. } => {
                let total = totals.get(&number).copied().unwrap_or(0);
                sum.records += total;
                sum.total += total;
            }
            PartitionStatus::Behind { .. } => {}
            PartitionStatus::Unowned => {
                totals.remove(&number);
            }
        }
        sum
    })
}

#[allow(clippy::cast_precision_loss)] // shown to people
fn seconds_left(sum: &RebuildSum) -> f64 {
    (sum.total.saturating_sub(sum.records) as f64 / sum.rate.max(1.0)).round()
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("rebuilding {bar:30} {percent} % {msg}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn update_bar(bar: &ProgressBar, sum: &RebuildSum) {
    bar.set_length(sum.total);
    bar.set_position(sum.records.min(sum.total));
    let (partitions, rate, left) = (sum.partitions, sum.rate, seconds_left(sum));
    bar.set_message(format!("{partitions} partitions left, {rate:.0} records/s, {left:.0} s"));
}
