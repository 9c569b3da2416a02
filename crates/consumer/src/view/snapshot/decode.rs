//! Bytes back into inboxes. Whatever the bytes are, this refuses them or gives what was written; it
//! takes no more memory than follows from their number.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read},
    sync::Arc,
};

use event_log::RecordAnchor;
use model::{Action, Cursor, Fingerprint, NotificationId, UserId};
use uuid::Uuid;

use super::{
    Overlap, Restored, SnapshotKey,
    encode::header,
    format::{
        CATEGORY, DISMISSED, END, ENTRY, FINGERPRINT, HEADER, INBOXES, MAGIC, MOST_BLOCK, PENDING,
        READ, SINCE, USER, VERSION, checksum,
    },
};
use crate::view::{
    entry::Entry,
    inbox::{Evicted, Eviction, Inbox},
    inboxes::{CONFLICTS_KEPT, Inboxes},
};

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its format is another one.
    #[error("its format has the number {0}, and this program reads {VERSION}")]
    Format(u32),
    /// It was made for other topics, partitions, limits or another group.
    #[error("it was made with other settings: topic, partitions, partitioner, group or limits")]
    Settings,
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// The disk does not give it.
    #[error("it cannot be read: {0}")]
    Unreadable(io::Error),
}

impl Refused {
    /// One word, for a metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Format(_) => "format",
            Self::Settings => "settings",
            Self::Damaged(_) => "damaged",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends too early"),
            _ => Self::Unreadable(error),
        }
    }
}

type Outcome<T> = Result<T, Refused>;

fn damaged<T>(what: &'static str) -> Outcome<T> {
    Err(Refused::Damaged(what))
}

/// Reads the snapshot of partition `number`.
///
/// # Errors
/// [`Refused`], for anything that is not exactly what was written for this.
pub fn read(input: impl Read, about: &SnapshotKey, number: i32) -> Outcome<Restored> {
    let mut file = File { input, total: crc32fast::Hasher::new() };
    let mut start = [0; 12];
    file.fill(&mut start)?;
    let (magic, version) = start.split_at(MAGIC.len());
    if magic != MAGIC {
        return damaged("it does not begin like a snapshot");
    }
    let version = u32::from_le_bytes(version.try_into().unwrap_or_default());
    if version != VERSION {
        return Err(Refused::Format(version));
    }
    let (HEADER, content) = file.block()? else { return damaged("it has no header") };
    let mut expected = Vec::new();
    header(&mut expected, about, number);
    let Some(begin) = content.strip_prefix(&*expected) else { return Err(Refused::Settings) };
    let mut begin = Input(begin);
    let (mut last, mut marks) = ([-1; 2], [None; 2]);
    for (last, mark) in last.iter_mut().zip(&mut marks) {
        (*last, *mark) = (begin.int_from(-1)?, begin.optional_mark()?);
        if mark.is_some_and(|mark: RecordAnchor| mark.offset > *last) {
            return damaged("its beginning contradicts itself");
        }
    }
    begin.end()?;

    let mut reading = Reading {
        most_entries: about.limits.entries.max(1),
        inboxes: Inboxes { last, marks, restored: true, ..Inboxes::default() },
        begin: last,
        since: last,
        folded: HashMap::new(),
        user: None,
        strays: false,
        entries: 0,
    };
    loop {
        let total = file.total.clone().finalize();
        match file.block()? {
            (INBOXES, content) => reading.items(Input(&content), about, number)?,
            (END, content) => {
                if file.input.read(&mut [0])? != 0 {
                    return damaged("it goes on after its end");
                }
                return reading.end(Input(&content), total);
            }
            _ => return damaged("it has a block of an unknown kind"),
        }
    }
}

struct File<R> {
    input: R,
    /// Of everything read so far.
    total: crc32fast::Hasher,
}

impl<R: Read> File<R> {
    fn fill(&mut self, bytes: &mut [u8]) -> Outcome<()> {
        self.input.read_exact(bytes)?;
        self.total.update(bytes);
        Ok(())
    }

    fn block(&mut self) -> Outcome<(u8, Vec<u8>)> {
        let mut frame = [0; 9];
        self.fill(&mut frame)?;
        let [a, b, c, d, e, f, g, h, kind] = frame;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MOST_BLOCK {
            return damaged("a block is too long");
        }
        // Grows with what there is, whatever the length says.
        let mut content = Vec::new();
        let limited = self.input.by_ref().take(length as u64);
        { limited }.read_to_end(&mut content)?;
        if content.len() != length {
            return damaged("it ends too early");
        }
        if checksum(kind, &content) != u32::from_le_bytes([e, f, g, h]) {
            return damaged("a checksum is wrong");
        }
        self.total.update(&content);
        Ok((kind, content))
    }
}

/// An inbox whose items are still coming.
struct Open {
    user: UserId,
    touched: i64,
    evicted: Option<Evicted>,
    entries: Vec<Entry>,
    pending: HashMap<NotificationId, (Action, i64)>,
}

struct Reading {
    most_entries: usize,
    inboxes: Inboxes,
    begin: [i64; 2],
    /// Up to where the users that come are folded.
    since: [i64; 2],
    folded: HashMap<UserId, [i64; 2]>,
    user: Option<Open>,
    strays: bool,
    entries: u64,
}

impl Reading {
    fn items(&mut self, mut input: Input<'_>, about: &SnapshotKey, number: i32) -> Outcome<()> {
        while !input.0.is_empty() {
            match input.byte()? {
                SINCE => {
                    self.close()?;
                    self.since = [input.int_from(self.since[0])?, input.int_from(self.since[1])?];
                }
                USER => {
                    self.close()?;
                    let open = input.user(self.since)?;
                    let home = about
                        .partitioner
                        .partition_for(open.user.record_key().as_bytes(), about.partitions);
                    self.strays |= home != number;
                    self.user = Some(open);
                }
                ENTRY => {
                    let Some(open) = &mut self.user else { return damaged("nobody's entry") };
                    let entry = input.entry()?;
                    let before = open.entries.last().map(|entry| entry.offset);
                    let before = before.or(open.evicted.map(|evicted| evicted.through));
                    let orderly = before.is_none_or(|before| before < entry.offset)
                        && entry.offset <= self.since[0]
                        && open.entries.len() < self.most_entries;
                    if !orderly {
                        return damaged("an inbox has entries that it cannot have");
                    }
                    open.entries.push(entry);
                }
                PENDING => {
                    let Some(open) = &mut self.user else { return damaged("nobody's receipt") };
                    let (id, action, offset) = (input.id()?, input.byte()?, input.int_from(0)?);
                    let action = match action {
                        0 => Action::Read,
                        1 => Action::Unread,
                        2 => Action::Dismissed,
                        _ => return damaged("a receipt of an unknown kind"),
                    };
                    if offset >= open.touched {
                        return damaged("a receipt is newer than its inbox");
                    }
                    open.pending.insert(id, (action, offset));
                }
                _ => return damaged("it has an item of an unknown kind"),
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Outcome<()> {
        let Some(Open { user, touched, evicted, entries, pending }) = self.user.take() else {
            return Ok(());
        };
        let newest = entries.last().map(|entry| entry.offset);
        let newest = newest.max(evicted.map(|evicted| evicted.through)).unwrap_or(-1);
        // Others have nothing that comes again.
        if newest > self.begin[0] || touched - 1 > self.begin[1] {
            self.folded.insert(user, self.since);
        }
        self.entries += entries.len() as u64;
        let tally = &mut self.inboxes.tally;
        let inbox = Inbox::restored(entries, evicted, pending, touched, tally);
        match self.inboxes.users.insert(user, inbox) {
            None => Ok(()),
            Some(_) => damaged("a user has two inboxes"),
        }
    }

    fn end(mut self, mut input: Input<'_>, total: u32) -> Outcome<Restored> {
        self.close()?;
        let (users, entries) = (input.int_from(0)?, input.int_from(0)?);
        self.inboxes.low = input.int_from(0)?;
        let ends = [input.optional_mark()?, input.optional_mark()?];
        let conflicts = input.int_from(0)?;
        if conflicts > CONFLICTS_KEPT as i64 {
            return damaged("it has too many reused keys");
        }
        self.inboxes.conflicts =
            (0..conflicts).map(|_| input.int_from(0)).collect::<Outcome<VecDeque<_>>>()?;
        let told = input.array()?;
        input.end()?;
        let whole = users == self.inboxes.users.len() as i64
            && entries == self.entries.cast_signed()
            && u32::from_le_bytes(told) == total;
        if !whole {
            return damaged("something of it is missing");
        }
        let mut open = ends;
        for ((open, end), (last, since)) in
            open.iter_mut().zip(ends).zip(self.begin.into_iter().zip(self.since))
        {
            // Where nothing was folded meanwhile, nothing comes again.
            *open = end.filter(|end| end.offset > last);
            if open.map_or(last, |end| end.offset) < since {
                return damaged("its end contradicts its inboxes");
            }
        }
        if open != [None, None] {
            self.inboxes.overlap = Some(Box::new(Overlap::new(self.folded, open)));
        }
        Ok(Restored { inboxes: self.inboxes, entries: self.entries, strays: self.strays })
    }
}

/// What is left of a block.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        match self.0.split_at_checked(length) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => damaged("a block is too short"),
        }
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Refused::Damaged("a block is too short"))
    }

    fn end(&self) -> Outcome<()> {
        if self.0.is_empty() { Ok(()) } else { damaged("a block is too long") }
    }

    fn byte(&mut self) -> Outcome<u8> {
        self.array().map(|[byte]| byte)
    }

    fn int(&mut self) -> Outcome<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn int_from(&mut self, least: i64) -> Outcome<i64> {
        let value = self.int()?;
        // Below the greatest, so that one more can be added.
        if (least..i64::MAX).contains(&value) { Ok(value) } else { damaged("a number is wrong") }
    }

    fn text(&mut self) -> Outcome<&'a str> {
        let length = u32::from_le_bytes(self.array()?) as usize;
        let text = std::str::from_utf8(self.take(length)?);
        text.map_err(|_| Refused::Damaged("a text is not UTF-8"))
    }

    fn optional_mark(&mut self) -> Outcome<Option<RecordAnchor>> {
        match self.byte()? {
            0 => Ok(None),
            1 => {
                let offset = self.int_from(0)?;
                Ok(Some(RecordAnchor { offset, checksum: u32::from_le_bytes(self.array()?) }))
            }
            _ => damaged("a mark is wrong"),
        }
    }

    fn user(&mut self, since: [i64; 2]) -> Outcome<Open> {
        let user = self.int().and_then(|id| {
            UserId::new(id).map_err(|_| Refused::Damaged("a user's id is not positive"))
        })?;
        let touched = self.int_from(0)?;
        let reason = match self.byte()? {
            0 => None,
            1 => Some(Eviction::Evicted),
            2 => Some(Eviction::Expired),
            _ => return damaged("an eviction of an unknown kind"),
        };
        let evicted = match reason {
            None => None,
            Some(reason) => {
                Some(Evicted { through: self.int_from(0)?, sent_at_ms: self.int()?, reason })
            }
        };
        if touched - 1 > since[1] || evicted.is_some_and(|evicted| evicted.through > since[0]) {
            return damaged("an inbox is ahead of the log");
        }
        Ok(Open { user, touched, evicted, entries: Vec::new(), pending: HashMap::new() })
    }

    fn entry(&mut self) -> Outcome<Entry> {
        let bits = self.byte()?;
        if bits & !(READ | DISMISSED | FINGERPRINT | CATEGORY) != 0 {
            return damaged("an entry of an unknown kind");
        }
        let has = |bit: u8| bits & bit != 0;
        let (offset, sent_at_ms, id) = (self.int_from(0)?, self.int()?, self.id()?);
        let fingerprint = if has(FINGERPRINT) {
            Some(Fingerprint::from_bits(u64::from_le_bytes(self.array()?)))
        } else {
            None
        };
        let mut text = |there: bool| -> Outcome<Option<Arc<str>>> {
            if there { self.text().map(|text| Some(text.into())) } else { Ok(None) }
        };
        let (category, json) = (text(has(CATEGORY))?, text(!has(DISMISSED))?);
        Ok(Entry { offset, sent_at_ms, id, fingerprint, category, read: has(READ), json })
    }

    fn id(&mut self) -> Outcome<NotificationId> {
        match self.byte()? {
            0 => Ok(NotificationId::Uuid(Uuid::from_bytes(self.array()?))),
            1 => {
                let partition = i32::try_from(self.int_from(0)?);
                let partition = partition.map_err(|_| Refused::Damaged("an id is wrong"))?;
                Ok(NotificationId::Position(Cursor::new(partition, self.int_from(-1)?)))
            }
            // One spelling of each id, or two that are the same would not be found to be so.
            2 => match NotificationId::from_text(self.text()?) {
                Some(id @ NotificationId::Other(_)) => Ok(id),
                _ => damaged("an id is wrong"),
            },
            _ => damaged("an id of an unknown kind"),
        }
    }
}
