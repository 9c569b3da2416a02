//! What a snapshot has already of the records that follow its beginning. One that was taken while
//! records were folded has different inboxes up to different offsets.

use std::collections::HashMap;

use event_log::RecordAnchor;
use model::UserId;

use crate::view::rebuild::Source;

/// Of a restored partition, until the records that its snapshot may have are read.
#[derive(Debug)]
pub(in crate::view) struct Overlap {
    /// Up to which offset of each topic these users' inboxes are folded already. For all others
    /// that is where the snapshot begins.
    folded: HashMap<UserId, [i64; 2]>,
    /// The last record that may be in the snapshot, until it has come by. That it does, as it was,
    /// proves that the log has lost nothing of what the snapshot has.
    open: [Option<RecordAnchor>; 2],
}

impl Overlap {
    pub(super) fn new(folded: HashMap<UserId, [i64; 2]>, open: [Option<RecordAnchor>; 2]) -> Self {
        Self { folded, open }
    }

    /// Whether the record of this user is in the snapshot already.
    pub(in crate::view) fn has(&self, user: UserId, source: Source, offset: i64) -> bool {
        self.folded.get(&user).is_some_and(|folded| offset <= folded[source as usize])
    }

    /// A record has come by. False: the log is not the one that the snapshot has.
    pub(in crate::view) fn pass(
        &mut self,
        source: Source,
        offset: i64,
        mark: Option<RecordAnchor>,
    ) -> bool {
        let open = &mut self.open[source as usize];
        match *open {
            Some(end) if offset >= end.offset => {
                *open = None;
                mark == Some(end)
            }
            _ => true,
        }
    }

    /// Whether records are still to come of this topic.
    pub(in crate::view) fn is_open(&self, source: Source) -> bool {
        self.open[source as usize].is_some()
    }

    /// Whether nothing of this matters any more.
    pub(in crate::view) fn is_over(&self) -> bool {
        self.open == [None, None]
    }
}
