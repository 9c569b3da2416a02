//! Out of the view. A partition that was revoked is written as a whole. One that is live is gone
//! through in short steps, between which records are folded and readers are answered; what each
//! inbox has by then is written beside it, so that none of those records counts twice.

use std::{
    io::{self, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use event_log::RecordAnchor;
use model::UserId;

use super::{
    Begin, End, SnapshotKey,
    encode::{Encoder, Written},
};
use crate::view::{
    View,
    inboxes::{CONFLICTS_KEPT, Inboxes},
};

/// How long a step may hold the partition's lock: a writer that waits for it makes readers wait
/// too.
const STEP: Duration = Duration::from_millis(1);
/// How many users are looked up before the clock is asked again.
const USERS: usize = 32;
/// How many users whole snapshots write between two looks at whether they are still wanted.
const LOOK_EVERY: usize = 256;

/// Why a snapshot was not finished.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The partition is not what it was at the beginning.
    #[error("the partition was revoked meanwhile")]
    Revoked,
    /// So much came that was set aside that not all of it is known any more.
    #[error("too many keys were used twice meanwhile")]
    Conflicts,
    /// The process ends, or the partition starts over.
    #[error("it is not wanted any more")]
    Unwanted,
    /// The disk.
    #[error(transparent)]
    Disk(#[from] io::Error),
}

/// A live partition being written, step by step.
pub struct Taking<W> {
    view: Arc<View>,
    number: i32,
    life: u64,
    begin: Begin,
    /// Those that are left.
    users: Vec<UserId>,
    encoder: Encoder<W>,
}

impl<W: Write> Taking<W> {
    /// Begins with partition `number`; none where that is not live.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn begin(
        view: &Arc<View>,
        about: &SnapshotKey,
        number: i32,
        out: W,
    ) -> io::Result<Option<Self>> {
        // Nobody who comes after this has a record before it.
        let seen = view.partition(number).and_then(|partition| {
            partition.if_live(|inboxes| {
                let users: Vec<_> = inboxes.users.keys().copied().collect();
                (inboxes.life, begin(inboxes), users)
            })
        });
        let Some((life, begin, users)) = seen else { return Ok(None) };
        let encoder = Encoder::new(out, about, number, &begin)?;
        Ok(Some(Self { view: Arc::clone(view), number, life, begin, users, encoder }))
    }

    /// The first offset of the notifications that is not in it for sure.
    #[must_use]
    pub fn next(&self) -> i64 {
        self.begin.marks[0].map_or(0, |mark| mark.offset + 1)
    }

    /// The last offsets that were folded when it began.
    #[must_use]
    pub fn last(&self) -> [i64; 2] {
        self.begin.last
    }

    /// Whether there is anything that it saves from being read.
    #[must_use]
    pub fn has_records(&self) -> bool {
        self.begin.marks != [None, None]
    }

    /// Writes what can be copied in a moment, at most so many users. False: nobody is left.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn step(&mut self, most: usize) -> Result<bool, TakeError> {
        let (mut copies, users) = (Vec::new(), &mut self.users);
        let last = read(&self.view, self.number, self.life, |inboxes| {
            let until = Instant::now() + STEP;
            for count in 0..most {
                if count % USERS == USERS - 1 && Instant::now() >= until {
                    break;
                }
                let Some(user) = users.pop() else { break };
                // Who is forgotten by now had nothing but what was too old.
                copies.extend(inboxes.users.get(&user).map(|inbox| (user, inbox.clone())));
            }
            inboxes.last
        })?;
        self.encoder.since(last);
        for (user, inbox) in &copies {
            self.encoder.inbox(*user, inbox)?;
        }
        Ok(!self.users.is_empty())
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`TakeError`].
    pub fn end(self) -> Result<(W, Written), TakeError> {
        let end = read(&self.view, self.number, self.life, |inboxes| end(inboxes, &self.begin))?;
        let end = end.ok_or(TakeError::Conflicts)?;
        Ok(self.encoder.end(&end)?)
    }
}

fn read<R>(
    view: &View,
    number: i32,
    life: u64,
    read: impl FnOnce(&Inboxes) -> R,
) -> Result<R, TakeError> {
    let found = view.partition(number).and_then(|partition| {
        partition.if_live(|inboxes| (inboxes.life == life).then(|| read(inboxes)))
    });
    found.flatten().ok_or(TakeError::Revoked)
}

/// Writes a partition that nobody else has any more, for as long as that is wanted.
///
/// # Errors
/// [`TakeError`].
pub(super) fn whole<W: Write>(
    inboxes: &Inboxes,
    about: &SnapshotKey,
    number: i32,
    out: W,
    wanted: impl Fn() -> bool,
) -> Result<(W, Written), TakeError> {
    let begin = begin(inboxes);
    let mut encoder = Encoder::new(out, about, number, &begin)?;
    for (count, (user, inbox)) in inboxes.users.iter().enumerate() {
        if count % LOOK_EVERY == 0 && !wanted() {
            return Err(TakeError::Unwanted);
        }
        encoder.inbox(*user, inbox)?;
    }
    let end = end(inboxes, &begin).ok_or(TakeError::Conflicts)?;
    Ok(encoder.end(&end)?)
}

fn begin(inboxes: &Inboxes) -> Begin {
    Begin { last: inboxes.last, marks: inboxes.marks }
}

/// None: of the reused keys since the beginning some are not known any more.
fn end(inboxes: &Inboxes, begin: &Begin) -> Option<End> {
    let first = begin.marks[0].map_or(0, |RecordAnchor { offset, .. }| offset + 1);
    let conflicts = &inboxes.conflicts;
    let forgotten = conflicts.len() == CONFLICTS_KEPT && conflicts.front() > Some(&first);
    let conflicts = conflicts.iter().copied().filter(|offset| *offset >= first).collect();
    (!forgotten).then_some(End { marks: inboxes.marks, low: inboxes.low, conflicts })
}
