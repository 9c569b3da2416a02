//! The state of a partition for people and probes, and why it cannot answer.

use std::sync::Arc;

use event_log::Behind;
use jiff::Timestamp;
use model::{Cursor, headers::to_millisecond};

use super::rebuild::RebuildProgress;

/// Why a partition does not answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotLive {
    /// It is not assigned to this instance.
    #[error("partition {0}, where this inbox lives, is not owned by this instance")]
    Unowned(i32),
    /// The lease has ended: the brokers have not confirmed lately that this instance owns it.
    #[error(
        "the brokers have not confirmed that this instance still owns partition {0}, where this \
         inbox lives"
    )]
    Unconfirmed(i32),
    /// It is being rebuilt.
    #[error("partition {0}, where this inbox lives, is being rebuilt")]
    Rebuilding(i32, RebuildProgress),
    /// It cannot follow its log.
    #[error("partition {0}, where this inbox lives, is behind its log since {since}: {cause}",
        since = .1.since, cause = .1.cause)]
    Behind(i32, BehindSince),
    /// Its last record applied, at this offset, is before the one that the request needs.
    #[error("partition {0}, where this inbox lives, has not caught up to the requested cursor")]
    NotCaughtUp(i32, i64),
    /// The request names a position in another log. Waiting does not help.
    #[error(
        "{0} is not a cursor of the log as it is now: the topic was created again, or the cursor has \
         no epoch"
    )]
    OtherLog(Cursor),
}

/// Since when and why a partition cannot follow its log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BehindSince {
    /// The last moment at which it is known to have had everything that the log held.
    #[serde(serialize_with = "serialize_display")]
    pub since: Timestamp,
    /// For people.
    #[serde(serialize_with = "serialize_display")]
    pub cause: Arc<str>,
}

fn serialize_display<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl BehindSince {
    /// For how long, in seconds.
    pub fn seconds(&self) -> f64 {
        Timestamp::now().duration_since(self.since).as_secs_f64().max(0.0)
    }
}

impl From<&Behind> for BehindSince {
    fn from(behind: &Behind) -> Self {
        let since = Timestamp::try_from(behind.since).unwrap_or_default();
        Self { since: to_millisecond(since), cause: behind.cause.as_str().into() }
    }
}

/// The state of a partition, for people and probes.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum PartitionStatus {
    /// Not assigned to this instance.
    Unowned,
    /// Being read.
    Rebuilding(RebuildProgress),
    /// Not answering, because it cannot follow its log.
    Behind {
        /// Since when and why.
        #[serde(flatten)]
        behind: BehindSince,
        /// Offset of the last record applied; −1 before any.
        position: i64,
    },
    /// Answering.
    Live {
        /// Users with an inbox.
        users: usize,
        /// Offset of the last record applied; −1 before any.
        position: i64,
    },
}
