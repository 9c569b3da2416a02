//! Inboxes out of the view into a snapshot. A revoked partition is written at once. A live one is
//! copied in short steps, between which records are applied and readers are answered; the snapshot
//! has beside each inbox up to which offsets it has every record, so that none is applied twice.

use std::{
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use event_log::RecordAnchor;
use model::UserId;

use super::{
    encode::{Encoder, SnapshotCounts},
    format::{Footer, Header, SnapshotKey},
};
use crate::view::{Inboxes, View, inboxes::MAX_CONFLICTS};

/// The longest that a step holds the partition's lock: a writer that waits for it makes readers wait
/// too.
const MAX_STEP: Duration = Duration::from_millis(1);
/// Users that a step copies between two looks at the clock.
const USERS_PER_CLOCK_CHECK: usize = 32;
/// Users that [`write_all`] writes between two checks for cancellation.
const USERS_PER_CANCEL_CHECK: usize = 256;

/// Why a snapshot was not finished.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The partition is not the one that the snapshot began with.
    #[error("the partition was revoked meanwhile")]
    Revoked,
    /// More conflicts came meanwhile than are remembered.
    #[error("too many Idempotency-Keys were reused meanwhile")]
    Conflicts,
    /// The process ends.
    #[error("cancelled")]
    Cancelled,
    /// The file cannot be written.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// Writes a live partition, step by step.
pub struct SnapshotWriter<W> {
    view: Arc<View>,
    number: i32,
    /// Epoch of the inboxes that the snapshot began with.
    epoch: u64,
    header: Header,
    /// Users that are not written yet.
    users: Vec<UserId>,
    encoder: Encoder<W>,
}

impl<W: Write> SnapshotWriter<W> {
    /// Begins a snapshot of partition `number`; `None` if that is not live.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(
        view: &Arc<View>,
        key: &SnapshotKey,
        number: i32,
        out: W,
    ) -> io::Result<Option<Self>> {
        // A user that appears later has only records after the header's.
        let started = view.partition(number).and_then(|partition| {
            partition.read_if_live(|inboxes| {
                let users: Vec<_> = inboxes.users.keys().copied().collect();
                (inboxes.epoch, header(inboxes), users)
            })
        });
        let Some((epoch, header, users)) = started else { return Ok(None) };
        let encoder = Encoder::new(out, key, number, &header)?;
        Ok(Some(Self { view: Arc::clone(view), number, epoch, header, users, encoder }))
    }

    /// The offset of the notifications from which on a reader of this snapshot continues.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        next_offset(&self.header)
    }

    /// Offsets of the last records applied when it began.
    #[must_use]
    pub fn last_offsets(&self) -> [i64; 2] {
        self.header.last_offsets
    }

    /// Returns true if the snapshot saves its reader any record.
    #[must_use]
    pub fn has_records(&self) -> bool {
        self.header.anchors != [None, None]
    }

    /// Copies at most `max_users` inboxes within [`MAX_STEP`], then writes them. Returns false after
    /// the last one.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn write_step(&mut self, max_users: usize) -> Result<bool, WriteError> {
        let (mut copies, users) = (Vec::new(), &mut self.users);
        let last_offsets = read_epoch(&self.view, self.number, self.epoch, |inboxes| {
            let until = Instant::now() + MAX_STEP;
            for count in 0..max_users {
                if count % USERS_PER_CLOCK_CHECK == USERS_PER_CLOCK_CHECK - 1
                    && Instant::now() >= until
                {
                    break;
                }
                let Some(user) = users.pop() else { break };
                // An inbox that was dropped meanwhile held only expired entries.
                copies.extend(inboxes.users.get(&user).map(|inbox| (user, inbox.clone())));
            }
            inboxes.last_offsets
        })?;
        self.encoder.set_offsets(last_offsets);
        for (user, inbox) in &copies {
            self.encoder.write_inbox(*user, inbox)?;
        }
        Ok(!self.users.is_empty())
    }

    /// Writes the footer.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn finish(self) -> Result<(W, SnapshotCounts), WriteError> {
        let footer = read_epoch(&self.view, self.number, self.epoch, |inboxes| {
            footer(inboxes, &self.header)
        })?;
        Ok(self.encoder.finish(&footer.ok_or(WriteError::Conflicts)?)?)
    }
}

/// Reads the inboxes of this epoch.
fn read_epoch<R>(
    view: &View,
    number: i32,
    epoch: u64,
    read: impl FnOnce(&Inboxes) -> R,
) -> Result<R, WriteError> {
    let found = view.partition(number).and_then(|partition| {
        partition.read_if_live(|inboxes| (inboxes.epoch == epoch).then(|| read(inboxes)))
    });
    found.flatten().ok_or(WriteError::Revoked)
}

/// Writes a revoked partition at once, unless it `is_cancelled`.
///
/// # Errors
/// [`WriteError`].
pub(super) fn write_all<W: Write>(
    inboxes: &Inboxes,
    key: &SnapshotKey,
    number: i32,
    out: W,
    is_cancelled: impl Fn() -> bool,
) -> Result<(W, SnapshotCounts), WriteError> {
    let header = header(inboxes);
    let mut encoder = Encoder::new(out, key, number, &header)?;
    for (count, (user, inbox)) in inboxes.users.iter().enumerate() {
        if count % USERS_PER_CANCEL_CHECK == 0 && is_cancelled() {
            return Err(WriteError::Cancelled);
        }
        encoder.write_inbox(*user, inbox)?;
    }
    let footer = footer(inboxes, &header).ok_or(WriteError::Conflicts)?;
    Ok(encoder.finish(&footer)?)
}

fn header(inboxes: &Inboxes) -> Header {
    Header { last_offsets: inboxes.last_offsets, anchors: inboxes.anchors }
}

fn next_offset(header: &Header) -> i64 {
    header.anchors[0].map_or(0, |RecordAnchor { offset, .. }| offset + 1)
}

/// `None` if conflicts since the header were dropped from the inboxes' list.
fn footer(inboxes: &Inboxes, header: &Header) -> Option<Footer> {
    let first = next_offset(header);
    let conflicts = &inboxes.conflict_offsets;
    let dropped = conflicts.len() == MAX_CONFLICTS && conflicts.front() > Some(&first);
    let conflict_offsets = conflicts.iter().copied().filter(|offset| *offset >= first).collect();
    let (anchors, complete_from) = (inboxes.anchors, inboxes.complete_from);
    (!dropped).then_some(Footer { anchors, complete_from, conflict_offsets })
}
