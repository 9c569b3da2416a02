//! What was acknowledged, what was shown, and whether the two agree. Pure: it is told everything
//! with its time, and does no I/O, so that tests can feed it histories that are wrong.
//!
//! The promises: an acknowledged notification is shown, once, after all that its sender sent to
//! the same recipient before; what one reader has been shown no later reader misses, whichever
//! instance answers; and an answer to `at_least` contains what it was asked for. A send that was
//! not acknowledged may be shown or not, but never twice.

mod value;
mod check;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use model::Cursor;

pub use value::Value;

/// An inbox may be empty for this long after its first notification was acknowledged, at most: an
/// instance that is cut off from the log for longer than its group's session (10 s) must know it.
pub const EMPTY_GRACE: Duration = Duration::from_secs(15);

/// How many counterexamples of each kind are kept.
const EXAMPLES: usize = 5;

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wrong {
    /// Acknowledged, and not there when all is quiet. Counted a notification.
    Lost,
    /// Shown twice in one answer, or at two places of the log. Counted a notification.
    Twice,
    /// Shown after a notification that the same sender sent to the same recipient later, both
    /// acknowledged. Counted a notification.
    Disorder,
    /// Less than an earlier reader was shown, or nothing for somebody who has had something for
    /// [`EMPTY_GRACE`]. Counted an answer.
    Empty,
    /// `at_least` was answered without what it asked for. Counted an answer.
    AtLeast,
    /// Something that nobody sent, to this recipient at least. Counted an answer.
    Foreign,
    /// Two instances show different inboxes when all is quiet. Counted an inbox.
    Differs,
    /// No right answer before the deadline. Counted a user.
    Stuck,
    /// A process ended by itself, or did not end when it was told to. Counted a process.
    Died,
}

/// Of which kind, how often, and the first few.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    /// How often.
    pub count: u64,
    /// The first few, in words.
    pub examples: Vec<String>,
}

/// Numbers that are neither right nor wrong.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Sends that were begun.
    pub sends: u64,
    /// Sends that were answered 200.
    pub acknowledged: u64,
    /// Of these, how many the log has twice, with one id, and readers see once.
    pub written_again: u64,
    /// Sends whose outcome nobody was told: an error, a 503, a 504, a broken connection.
    pub indeterminate: u64,
    /// Of these, how many were shown all the same.
    pub indeterminate_shown: u64,
    /// Answers that showed an inbox.
    pub reads: u64,
    /// Of these, how many had asked for `at_least`.
    pub at_least_reads: u64,
    /// Requests for an inbox that were not answered with one, by reason.
    pub unavailable: BTreeMap<String, u64>,
    /// The longest time for which an acknowledged notification was missing from an answer.
    pub longest_unseen: Duration,
    /// The longest time for which somebody was not shown an inbox by any of the consumers asked.
    pub longest_unanswered: Duration,
}

/// An inbox, as an instance showed it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Whose.
    pub user: i64,
    /// Which consumer answered.
    pub instance: usize,
    /// Before the request was sent.
    pub began: Duration,
    /// After the whole answer had arrived.
    pub ended: Duration,
    /// The acknowledged notification that the answer had to contain.
    pub at_least: Option<Value>,
    /// What was shown, in its order.
    pub shown: Vec<Shown>,
}

/// One notification of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its text.
    pub message: String,
    /// Where it is in the log.
    pub cursor: Cursor,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub struct History {
    sends: HashMap<Value, Sent>,
    /// The values sent to each user, oldest first.
    to: HashMap<i64, Vec<Value>>,
    /// What the first instance showed of each user when all was quiet.
    settled: HashMap<i64, (usize, Vec<Shown>)>,
    /// What was counted already, where a notification counts once.
    counted: HashSet<(Wrong, Value)>,
    /// Since when somebody has not been answered.
    unanswered: HashMap<i64, Duration>,
    totals: Totals,
    findings: BTreeMap<Wrong, Finding>,
}

#[derive(Debug)]
struct Sent {
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
    /// A send is about to begin. A sender has one send to the same recipient under way at a time.
    pub fn sending(&mut self, value: Value) {
        self.totals.sends += 1;
        self.sends.insert(value, Sent { outcome: Outcome::Pending, first_shown: None });
        self.to.entry(value.to).or_default().push(value);
    }

    /// A send was answered 200.
    pub fn acknowledged(&mut self, at: Duration, value: Value, cursor: Cursor) {
        self.totals.acknowledged += 1;
        let Some(sent) = self.sends.get_mut(&value) else { return };
        sent.outcome = Outcome::Acknowledged { at, cursor };
        if let Some(first) = sent.first_shown {
            self.compare_places(value, first.cursor, cursor);
        }
    }

    /// A send had any other end.
    pub fn unknown(&mut self, value: Value) {
        self.totals.indeterminate += 1;
        if let Some(sent) = self.sends.get_mut(&value) {
            sent.outcome = Outcome::Unknown;
            self.totals.indeterminate_shown += u64::from(sent.first_shown.is_some());
        }
    }

    /// An inbox was asked for at this time, and not shown.
    pub fn unavailable(&mut self, began: Duration, user: i64, why: &str) {
        self.unanswered.entry(user).or_insert(began);
        *self.totals.unavailable.entry(why.to_owned()).or_default() += 1;
    }

    /// All must be looked at anew: another quiet time has come.
    pub fn unsettle(&mut self) {
        self.settled.clear();
    }

    /// What this user was sent, with an acknowledgement before this time, and is not among these.
    #[must_use]
    pub fn missing(&self, user: i64, before: Duration, shown: &[Shown]) -> Vec<Value> {
        let present: HashSet<Value> =
            shown.iter().filter_map(|shown| shown.message.parse().ok()).collect();
        let sent = self.to.get(&user).map(Vec::as_slice).unwrap_or_default();
        let due = sent.iter().filter(|value| match self.sends[value].outcome {
            Outcome::Acknowledged { at, .. } => at < before,
            Outcome::Pending | Outcome::Unknown => false,
        });
        due.filter(|value| !present.contains(value)).copied().collect()
    }

    /// Notes something that must never happen.
    pub fn found(&mut self, wrong: Wrong, example: String) {
        let finding = self.findings.entry(wrong).or_default();
        finding.count += 1;
        if finding.examples.len() < EXAMPLES {
            finding.examples.push(example);
        }
    }

    /// What happened that must not.
    #[must_use]
    pub fn findings(&self) -> &BTreeMap<Wrong, Finding> {
        &self.findings
    }

    /// How often this happened.
    #[must_use]
    pub fn count(&self, wrong: Wrong) -> u64 {
        self.findings.get(&wrong).map_or(0, |finding| finding.count)
    }

    /// What happened besides.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Everybody who was sent something.
    #[must_use]
    pub fn users(&self) -> Vec<i64> {
        let mut users: Vec<_> = self.to.keys().copied().collect();
        users.sort_unstable();
        users
    }

    fn found_value(&mut self, wrong: Wrong, value: Value, example: impl FnOnce() -> String) {
        if self.counted.insert((wrong, value)) {
            self.found(wrong, example());
        }
    }

    /// A value with what is known of its place and time.
    fn place(&self, value: Value) -> String {
        match self.sends.get(&value).map(|sent| sent.outcome) {
            Some(Outcome::Acknowledged { at, cursor }) => {
                format!("{value} (acknowledged at {:.3} s as {cursor})", at.as_secs_f64())
            }
            _ => format!("{value} (not acknowledged)"),
        }
    }
}
