//! The canary probe: writes a record to one of this instance's own partitions and waits until the
//! view has applied it. The record takes a notification's whole path and has no recipient. A
//! partition that is behind its log fails the probe at once.

use std::{sync::Arc, time::Duration};

use event_log::{NewRecord, Writer};
use jiff::Timestamp;
use model::record::{self, EncodedRecord};
use service::ops::canary::ProbeOutcome;

use crate::view::{BehindSince, NotLive, PartitionStatus, View};

/// Shorter than the canary's own timeout, so that a failure comes with its reason.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(4);

/// Probes the live partitions of this instance in turn.
pub(crate) struct CanaryProbe {
    view: Arc<View>,
    writer: Writer,
    topic: Arc<str>,
    last_partition: i32,
}

impl CanaryProbe {
    pub(crate) fn new(view: Arc<View>, writer: Writer, topic: Arc<str>) -> Self {
        Self { view, writer, topic, last_partition: -1 }
    }

    pub(crate) async fn probe_next_partition(&mut self) -> ProbeOutcome {
        if let Some((partition, behind)) = self.view.find_behind() {
            let BehindSince { since, cause } = behind;
            let why = format!("partition {partition} is behind its log since {since}: {cause}");
            return ProbeOutcome::Failed(why);
        }
        let Some(partition) = self.find_next_live() else { return ProbeOutcome::Skipped };
        self.last_partition = partition;
        let EncodedRecord { key, value, headers } = record::encode_canary(Timestamp::now());
        let record = NewRecord { partition, key, value, headers };
        let offset = match async { self.writer.append(&self.topic, record)?.await }.await {
            Ok(position) => position.offset,
            Err(error) => {
                let why =
                    format!("a record to partition {partition} was not acknowledged: {error}");
                return ProbeOutcome::Failed(why);
            }
        };
        match self.view.wait_for_offset(partition, offset, ARRIVAL_TIMEOUT).await {
            Ok(()) => ProbeOutcome::Arrived,
            // The partition moved meanwhile: its next owner probes it.
            Err(NotLive::Unowned(_) | NotLive::Rebuilding(..)) => ProbeOutcome::Skipped,
            Err(
                error @ (NotLive::Behind(..) | NotLive::NotCaughtUp(..) | NotLive::Unconfirmed(_)),
            ) => {
                let why = format!("a record was acknowledged, but is not in the view: {error}");
                ProbeOutcome::Failed(why)
            }
        }
    }

    fn find_next_live(&self) -> Option<i32> {
        let live = |number: &i32| {
            let partition = self.view.partition(*number);
            partition.is_some_and(|one| matches!(one.status(), PartitionStatus::Live { .. }))
        };
        let numbers = || self.view.partitions().map(|(number, _)| number);
        let after = numbers().filter(|number| *number > self.last_partition).find(live);
        after.or_else(|| numbers().find(live))
    }
}
