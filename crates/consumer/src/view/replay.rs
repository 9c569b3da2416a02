//! Which of the coming records a restored partition has applied already. Its inboxes may have been
//! saved one after the other while records were applied, so each of them has the records up to
//! another offset.

use std::collections::HashMap;

use event_log::RecordAnchor;
use model::UserId;

use super::rebuild::SourceTopic;

/// Of a restored partition, until its reader has passed every record that it may contain.
#[derive(Debug)]
pub(crate) struct ReplayFilter {
    /// For these users, the offset of each topic up to which their inbox has every record. The
    /// inboxes of all others have the records up to where the reader starts.
    applied: HashMap<UserId, [i64; 2]>,
    /// The last record of each topic that the inboxes may contain, until the reader has passed it.
    /// If the log still has that very record, it has lost no record that the inboxes contain.
    expected: [Option<RecordAnchor>; 2],
}

impl ReplayFilter {
    pub(crate) fn new(
        applied: HashMap<UserId, [i64; 2]>,
        expected: [Option<RecordAnchor>; 2],
    ) -> Self {
        Self { applied, expected }
    }

    /// Returns true if this user's inbox has this record already.
    pub(super) fn is_applied(&self, user: UserId, source: SourceTopic, offset: i64) -> bool {
        self.applied.get(&user).is_some_and(|applied| offset <= applied[source as usize])
    }

    /// Notes that the reader has passed a record. Returns false if the log is not the one that the
    /// inboxes were built from.
    pub(super) fn verify_record(
        &mut self,
        source: SourceTopic,
        offset: i64,
        anchor: Option<RecordAnchor>,
    ) -> bool {
        let expected = &mut self.expected[source as usize];
        match *expected {
            Some(last) if offset >= last.offset => {
                *expected = None;
                anchor == Some(last)
            }
            _ => true,
        }
    }

    /// Returns true if a record of this topic is still expected.
    pub(super) fn expects_records(&self, source: SourceTopic) -> bool {
        self.expected[source as usize].is_some()
    }

    /// Returns true if the reader has passed every expected record.
    pub(super) fn is_done(&self) -> bool {
        self.expected == [None, None]
    }
}
