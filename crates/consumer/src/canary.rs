//! A record that this instance writes to one of its own partitions, and waits to see in its view:
//! the whole way that a notification goes, without a recipient.

use std::{sync::Arc, time::Duration};

use event_log::{NewRecord, Writer};
use jiff::Timestamp;
use model::record::{self, EncodedRecord};
use service::ops::canary::Tried;

use crate::view::{NotLive, View, partition::Status};

/// Shorter than the canary's own, so that the reason is told.
const PATIENCE: Duration = Duration::from_secs(4);

/// The way from a writer of the log to a view.
pub(crate) struct Way {
    view: Arc<View>,
    writer: Writer,
    topic: Arc<str>,
    /// The partition that was tried last.
    last: i32,
}

impl Way {
    pub(crate) fn new(view: Arc<View>, writer: Writer, topic: Arc<str>) -> Self {
        Self { view, writer, topic, last: -1 }
    }

    /// Tries the next partition that is live here.
    pub(crate) async fn try_next(&mut self) -> Tried {
        let Some(partition) = self.next() else { return Tried::Nothing };
        self.last = partition;
        let EncodedRecord { key, value, headers } = record::encode_canary(Timestamp::now());
        let record = NewRecord { partition, key, value, headers };
        let acknowledged = match self.writer.append(&self.topic, record) {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        let position = match acknowledged {
            Ok(position) => position,
            Err(error) => {
                return Tried::Failed(format!(
                    "a record to partition {partition} was not acknowledged: {error}"
                ));
            }
        };
        match self.view.reaches(position.partition, position.offset, PATIENCE).await {
            Ok(()) => Tried::Arrived,
            // It moved meanwhile: the next owner tries it.
            Err(NotLive::Unowned { .. } | NotLive::Rebuilding { .. }) => Tried::Nothing,
            Err(error @ NotLive::Behind { .. }) => {
                Tried::Failed(format!("a record was acknowledged and is not read: {error}"))
            }
        }
    }

    fn next(&self) -> Option<i32> {
        let live = |number: &i32| {
            let partition = self.view.partition(*number);
            partition.is_some_and(|one| matches!(one.status(), Status::Live { .. }))
        };
        let numbers = || self.view.partitions().map(|(number, _)| number);
        let after = numbers().filter(|number| *number > self.last).find(live);
        after.or_else(|| numbers().find(live))
    }
}
