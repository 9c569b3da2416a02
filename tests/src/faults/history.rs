//! Checks all answers against all acknowledgements. It does no I/O and gets every event with its
//! time, so that tests can feed it wrong histories.
//!
//! The promises: an acknowledged notification is shown once, after all earlier ones of its sender
//! to the same recipient. If one answer showed it, every later answer of any instance shows it. An
//! answer to `at_least` contains the requested notification. A send without an acknowledgement may
//! be shown or not, but never twice. A receipt that was answered 200 is seen in every later answer. A
//! stream that resumes by its cursor tells each notification once.

mod message;
mod check;
mod receipts;
mod streams;
mod forget;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use model::Cursor;

pub use message::TestMessage;

/// How long an answer may lack an acknowledged notification. An instance that is cut off from the
/// log for longer than the group's session timeout (10 s) must notice.
pub const MAX_STALE_AGE: Duration = Duration::from_secs(15);

/// Answers that lack a notification for longer than this are counted as stale.
pub const STALE_AGE: Duration = Duration::from_secs(1);

/// Counterexamples that are kept of each kind.
const MAX_EXAMPLES: usize = 5;

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Violation {
    /// Acknowledged, but missing from the final inboxes. Counted per notification.
    Lost,
    /// Shown twice in one answer, or at two cursors. Counted per notification.
    Twice,
    /// Shown after a notification that the same sender sent to the same recipient later, both
    /// acknowledged. Counted per notification.
    Disorder,
    /// An answer that lacks a notification of an earlier answer or stream. Counted per answer.
    Back,
    /// An answer that is empty [`MAX_STALE_AGE`] after the first acknowledgement. Counted per
    /// answer.
    Empty,
    /// An answer that lacks a notification [`MAX_STALE_AGE`] after its acknowledgement, but has
    /// others. Counted per answer.
    Stale,
    /// An answer to `at_least` without the requested notification. Counted per answer.
    AtLeast,
    /// An entry that is shown as unread after its receipt was answered 200. Counted per
    /// notification.
    Receipt,
    /// Acknowledged, but not told by a stream that was open. Counted per stream and notification.
    StreamLost,
    /// Told twice by one stream, or below an earlier cursor. Counted per stream and notification.
    StreamTwice,
    /// A gap on a stream, although the log lost nothing. Counted per gap.
    StreamGap,
    /// A notification that was not sent to this recipient. Counted per answer.
    Foreign,
    /// A status that no fault explains, such as 404 or 500. Counted per answer.
    Status,
    /// The final inboxes of two instances differ. Counted per inbox.
    Differs,
    /// No correct answer before the deadline. Counted per user.
    Stuck,
    /// A process ended by itself, or did not end after SIGTERM. Counted per process.
    Died,
}

/// The violations of one kind.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    /// Number of violations.
    pub count: u64,
    /// Descriptions of the first ones.
    pub examples: Vec<String>,
}

/// Counts that are no violations.
#[derive(Clone, Debug, Default)]
pub struct HistoryTotals {
    /// Sends that were started.
    pub sends: u64,
    /// Sends that were answered 200.
    pub acknowledged: u64,
    /// Acknowledged sends that the log has twice with one id, and readers see once.
    pub written_again: u64,
    /// Sends without a 200: an error, a 503, a 504, a broken connection.
    pub indeterminate: u64,
    /// Sends without a 200 that were shown.
    pub indeterminate_shown: u64,
    /// Answers with a page.
    pub reads: u64,
    /// Answers with a page to requests with `at_least`.
    pub at_least_reads: u64,
    /// Sends without a 200, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Receipts that were answered 200.
    pub receipts: u64,
    /// Notifications that streams told.
    pub streamed: u64,
    /// Times that a stream was opened.
    pub streams_opened: u64,
    /// Gaps that streams told.
    pub gaps: u64,
    /// Answers that lacked a notification for longer than [`STALE_AGE`].
    pub stale: u64,
    /// Requests for an inbox without a page as answer, by reason.
    pub unavailable: BTreeMap<String, u64>,
    /// The longest time for which an acknowledged notification was missing from an answer.
    pub longest_unseen: Duration,
    /// The longest time for which a user got no page from any consumer.
    pub longest_unanswered: Duration,
}

/// An inbox as an instance answered it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The inbox's user.
    pub user: i64,
    /// Number of the consumer that answered.
    pub instance: usize,
    /// Time before the request was sent.
    pub began: Duration,
    /// Time after the whole answer had arrived.
    pub ended: Duration,
    /// The acknowledged notification that the answer must contain.
    pub at_least: Option<TestMessage>,
    /// The entries in the answer's order.
    pub shown: Vec<Shown>,
}

/// One notification of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its message.
    pub message: String,
    /// Its cursor.
    pub cursor: Cursor,
    /// True if it is marked as read.
    pub read: bool,
}

/// All events of a run.
#[derive(Debug, Default)]
pub struct History {
    sends: HashMap<TestMessage, SentMessage>,
    /// The messages to each user, oldest first.
    to: HashMap<i64, Vec<TestMessage>>,
    /// Each user's final inbox on the first instance that was read.
    settled: HashMap<i64, (usize, Vec<Shown>)>,
    /// Violations that count once per notification and were counted already.
    counted: HashSet<(Violation, TestMessage)>,
    /// The open streams, by number.
    streams: HashMap<u64, streams::OpenStream>,
    /// True once records were removed from the log on purpose.
    forgot: bool,
    /// Since when a user has got no page.
    unanswered: HashMap<i64, Duration>,
    totals: HistoryTotals,
    findings: BTreeMap<Violation, Finding>,
}

#[derive(Debug)]
struct SentMessage {
    outcome: Outcome,
    first_shown: Option<FirstShown>,
    /// The notification's id, if acknowledged.
    id: Option<String>,
    /// Time of the answer to the first receipt.
    marked_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Pending,
    Acknowledged {
        at: Duration,
        cursor: Cursor,
    },
    Unknown,
    /// Removed from the log on purpose: it may be shown or not.
    Forgotten,
}

#[derive(Debug, Clone, Copy)]
struct FirstShown {
    at: Duration,
    instance: usize,
    cursor: Cursor,
}

impl History {
    /// Records that a send starts. A sender has at most one concurrent send to a recipient.
    pub fn record_sending(&mut self, value: TestMessage) {
        self.totals.sends += 1;
        let (outcome, first_shown) = (Outcome::Pending, None);
        self.sends.insert(value, SentMessage { outcome, first_shown, id: None, marked_at: None });
        self.to.entry(value.to).or_default().push(value);
    }

    /// The number of the next message of this sender to this recipient.
    #[must_use]
    pub fn next_number(&self, from: i64, to: i64) -> u32 {
        let sent = self.to.get(&to).map(Vec::as_slice).unwrap_or_default();
        sent.iter().filter(|value| value.from == from).map(|value| value.n + 1).max().unwrap_or(0)
    }

    /// Records a 200.
    pub fn record_acknowledged(&mut self, at: Duration, value: TestMessage, cursor: Cursor) {
        self.totals.acknowledged += 1;
        let Some(sent) = self.sends.get_mut(&value) else { return };
        if matches!(sent.outcome, Outcome::Forgotten) {
            return;
        }
        sent.outcome = Outcome::Acknowledged { at, cursor };
        if let Some(first) = sent.first_shown {
            self.compare_places(value, first.cursor, cursor);
        }
    }

    /// Records any other outcome of a send.
    pub fn record_unknown(&mut self, value: TestMessage) {
        self.totals.indeterminate += 1;
        if let Some(sent) = self.sends.get_mut(&value) {
            if matches!(sent.outcome, Outcome::Forgotten) {
                return;
            }
            sent.outcome = Outcome::Unknown;
            self.totals.indeterminate_shown += u64::from(sent.first_shown.is_some());
        }
    }

    /// Records why a send got no 200: a status, or a word.
    pub fn record_refused(&mut self, value: TestMessage, why: &str) {
        *self.totals.refused.entry(why.to_owned()).or_default() += 1;
        self.check_status(why, || format!("the send of {value}"));
    }

    /// Records a request for an inbox, sent at `began`, that got no page.
    pub fn record_unavailable(&mut self, began: Duration, user: i64, why: &str) {
        self.unanswered.entry(user).or_insert(began);
        self.check_status(why, || {
            format!("the read of user {user} at {:.3} s", began.as_secs_f64())
        });
        *self.totals.unavailable.entry(why.to_owned()).or_default() += 1;
    }

    /// Forgets the final inboxes, before the next round's are read.
    pub fn forget_final_inboxes(&mut self) {
        self.settled.clear();
    }

    /// The messages to this user that were acknowledged before this time and are not in `shown`.
    #[must_use]
    pub fn missing_messages(
        &self,
        user: i64,
        before: Duration,
        shown: &[Shown],
    ) -> Vec<TestMessage> {
        let present: HashSet<TestMessage> =
            shown.iter().filter_map(|shown| shown.message.parse().ok()).collect();
        let sent = self.to.get(&user).map(Vec::as_slice).unwrap_or_default();
        let due = sent.iter().filter(|value| match self.sends[value].outcome {
            Outcome::Acknowledged { at, .. } => at < before,
            Outcome::Pending | Outcome::Unknown | Outcome::Forgotten => false,
        });
        due.filter(|value| !present.contains(value)).copied().collect()
    }

    /// Records a violation.
    pub fn record_violation(&mut self, wrong: Violation, example: String) {
        let finding = self.findings.entry(wrong).or_default();
        finding.count += 1;
        if finding.examples.len() < MAX_EXAMPLES {
            finding.examples.push(example);
        }
    }

    /// All violations.
    #[must_use]
    pub fn findings(&self) -> &BTreeMap<Violation, Finding> {
        &self.findings
    }

    /// The number of violations of this kind.
    #[must_use]
    pub fn violation_count(&self, wrong: Violation) -> u64 {
        self.findings.get(&wrong).map_or(0, |finding| finding.count)
    }

    /// The counts that are no violations.
    #[must_use]
    pub fn totals(&self) -> &HistoryTotals {
        &self.totals
    }

    /// All recipients.
    #[must_use]
    pub fn users(&self) -> Vec<i64> {
        let mut users: Vec<_> = self.to.keys().copied().collect();
        users.sort_unstable();
        users
    }

    /// A fault may cause 503 and 504. Words such as `broken` are no statuses. `at_least` of a log
    /// that was made again is 409.
    pub(super) fn check_status(&mut self, why: &str, what: impl FnOnce() -> String) {
        let Ok(status) = why.parse::<u16>() else { return };
        if !(matches!(status, 503 | 504) || status == 409 && self.forgot) {
            self.record_violation(Violation::Status, format!("{} was answered {status}", what()));
        }
    }

    fn record_message_violation(
        &mut self,
        wrong: Violation,
        value: TestMessage,
        example: impl FnOnce() -> String,
    ) {
        if self.counted.insert((wrong, value)) {
            self.record_violation(wrong, example());
        }
    }

    /// A message with its cursor and the time of its acknowledgement, if known.
    fn describe_message(&self, value: TestMessage) -> String {
        match self.sends.get(&value).map(|sent| sent.outcome) {
            Some(Outcome::Acknowledged { at, cursor }) => {
                format!("{value} (acknowledged at {:.3} s as {cursor})", at.as_secs_f64())
            }
            _ => format!("{value} (not acknowledged)"),
        }
    }
}
