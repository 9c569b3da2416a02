//! Checks all answers against all acknowledgements. It does no I/O and gets every event with its
//! time, so that tests can feed it wrong histories.
//!
//! The promises: an acknowledged notification is shown once, after all earlier ones of its sender
//! to the same recipient. If one answer showed it, every later answer of any instance shows it. An
//! answer to `at_least` contains the requested notification. A send without an acknowledgement may
//! be shown or not, but never twice.

mod message;
mod check;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use model::Cursor;

pub use message::TestMessage;

/// How long an inbox may stay empty after its first notification was acknowledged. An instance that
/// is cut off from the log for longer than the group's session timeout (10 s) must notice.
pub const EMPTY_GRACE: Duration = Duration::from_secs(15);

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
    /// An answer that lacks a notification of an earlier answer, or is empty [`EMPTY_GRACE`] after
    /// the first acknowledgement. Counted per answer.
    Empty,
    /// An answer to `at_least` without the requested notification. Counted per answer.
    AtLeast,
    /// A notification that was not sent to this recipient. Counted per answer.
    Foreign,
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
    /// Since when a user has got no page.
    unanswered: HashMap<i64, Duration>,
    totals: HistoryTotals,
    findings: BTreeMap<Violation, Finding>,
}

#[derive(Debug)]
struct SentMessage {
    outcome: Outcome,
    first_shown: Option<FirstShown>,
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Pending,
    Acknowledged { at: Duration, cursor: Cursor },
    Unknown,
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
        self.sends.insert(value, SentMessage { outcome: Outcome::Pending, first_shown: None });
        self.to.entry(value.to).or_default().push(value);
    }

    /// Records a 200.
    pub fn record_acknowledged(&mut self, at: Duration, value: TestMessage, cursor: Cursor) {
        self.totals.acknowledged += 1;
        let Some(sent) = self.sends.get_mut(&value) else { return };
        sent.outcome = Outcome::Acknowledged { at, cursor };
        if let Some(first) = sent.first_shown {
            self.compare_places(value, first.cursor, cursor);
        }
    }

    /// Records any other outcome of a send.
    pub fn record_unknown(&mut self, value: TestMessage) {
        self.totals.indeterminate += 1;
        if let Some(sent) = self.sends.get_mut(&value) {
            sent.outcome = Outcome::Unknown;
            self.totals.indeterminate_shown += u64::from(sent.first_shown.is_some());
        }
    }

    /// Records a request for an inbox, sent at `began`, that got no page.
    pub fn record_unavailable(&mut self, began: Duration, user: i64, why: &str) {
        self.unanswered.entry(user).or_insert(began);
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
            Outcome::Pending | Outcome::Unknown => false,
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
