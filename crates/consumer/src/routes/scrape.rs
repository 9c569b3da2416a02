//! Gauges and counters that a scrape of `/metrics` reads from the view: states of partitions, sizes of
//! inboxes, open streams, lag. The cost does not depend on the number of entries.

use std::sync::{Arc, atomic::Ordering};

use service::ops::metrics::Scrape;

use super::{app::App, partitions::fetch_lags, streams::StreamKind};
use crate::{
    metrics::{
        BEHIND_SECONDS, ENTRIES, ENTRY_BYTES, EVICTED, INBOXES, LAG, PARTITIONS, REBUILD_RECORDS,
        RECORDS_FOLDED, STREAMS,
    },
    view::{PartitionStatus, PartitionTotals, View},
};

pub(super) async fn scrape_state(app: Arc<App>, mut scrape: Scrape) -> Scrape {
    add_partitions(&app.view, &mut scrape);
    add_records(&app.view, &mut scrape);
    for (kind, label) in StreamKind::ALL {
        scrape.add_sample(STREAMS, &[("kind", label)], app.streams.count_open(kind) as f64);
    }
    for (partition, lag) in fetch_lags(&app).await {
        scrape.add_sample(LAG, &[("partition", &partition.to_string())], lag as f64);
    }
    scrape
}

fn add_partitions(view: &View, scrape: &mut Scrape) {
    let (mut unowned, mut rebuilding, mut behind, mut live) = (0, 0, 0, 0);
    let (mut done, mut total) = (0, 0);
    let (mut inboxes, mut entries, mut bytes, mut evicted, mut expired) = (0, 0, 0, 0, 0);
    for (_, partition) in view.partitions() {
        let PartitionTotals { users, inboxes: totals } = partition.totals();
        inboxes += users;
        entries += totals.entries;
        bytes += totals.bytes;
        evicted += totals.evicted;
        expired += totals.expired;
        match partition.status() {
            PartitionStatus::Unowned => unowned += 1,
            PartitionStatus::Live { .. } => live += 1,
            PartitionStatus::Behind { .. } => behind += 1,
            PartitionStatus::Rebuilding(progress) => {
                rebuilding += 1;
                done += progress.records;
                total += progress.total.unwrap_or(progress.records);
            }
        }
    }
    for (state, count) in
        [("unowned", unowned), ("rebuilding", rebuilding), ("behind", behind), ("live", live)]
    {
        scrape.add_sample(PARTITIONS, &[("state", state)], f64::from(count));
    }
    let longest = view.find_behind().map_or(0.0, |(_, behind)| behind.seconds());
    scrape.add_sample(BEHIND_SECONDS, &[], longest);
    for (kind, records) in [("done", done), ("total", total)] {
        scrape.add_sample(REBUILD_RECORDS, &[("kind", kind)], records as f64);
    }
    scrape.add_sample(INBOXES, &[], inboxes as f64);
    scrape.add_sample(ENTRIES, &[], entries as f64);
    scrape.add_sample(ENTRY_BYTES, &[], bytes as f64);
    for (reason, count) in [("entries", evicted), ("age", expired)] {
        scrape.add_sample(EVICTED, &[("reason", reason)], count as f64);
    }
}

fn add_records(view: &View, scrape: &mut Scrape) {
    let counters = &view.counters;
    let outcomes = [
        ("notifications", "applied", &counters.applied),
        ("notifications", "duplicate", &counters.duplicates),
        ("notifications", "conflict", &counters.conflicts),
        ("notifications", "misplaced", &counters.misplaced),
        ("notifications", "poison", &counters.poison),
        ("receipts", "applied", &counters.receipts),
        ("receipts", "poison", &counters.poison_receipts),
    ];
    for (topic, outcome, count) in outcomes {
        let labels = [("topic", topic), ("outcome", outcome)];
        scrape.add_sample(RECORDS_FOLDED, &labels, count.load(Ordering::Relaxed) as f64);
    }
}
