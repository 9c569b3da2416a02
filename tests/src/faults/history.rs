//! What was acknowledged, what was shown, and whether the two agree. Pure: it is told everything
//! with its time, and does no I/O, so that tests can feed it histories that are wrong.
//!
//! The promises: an acknowledged notification is shown, once, after all that its sender sent to
//! the same recipient before; what one reader has been shown no later reader misses, whichever
//! instance answers; and an answer to `at_least` contains what it was asked for. A send that was
//! not acknowledged may be shown or not, but never twice.

mod value;
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
        if let Some(first) = sent.first_shown.filter(|first| first.cursor != cursor) {
            self.found_value(Wrong::Twice, value, || {
                format!(
                    "{value} was shown at {} by consumer {}, and acknowledged at {cursor}",
                    first.cursor, first.instance
                )
            });
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

    /// An inbox was asked for, and the answer was none.
    pub fn unavailable(&mut self, why: &str) {
        *self.totals.unavailable.entry(why.to_owned()).or_default() += 1;
    }

    /// An inbox was shown.
    pub fn read(&mut self, reading: &Reading) {
        self.totals.reads += 1;
        let mut present = HashSet::with_capacity(reading.shown.len());
        let mut newest: HashMap<i64, Value> = HashMap::new();
        for shown in &reading.shown {
            let Some(value) = self.known(reading, shown) else {
                let example = format!("{shown:?} was never sent to user {}; {}", reading.user, said(reading));
                self.found(Wrong::Foreign, example);
                continue;
            };
            if !present.insert(value) {
                self.found_value(Wrong::Twice, value, || format!("{value} stands twice; {}", said(reading)));
            }
            self.note_shown(reading, value, shown.cursor);
            self.check_order(reading, &mut newest, value);
        }
        self.check_complete(reading, &present);
        if let Some(value) = reading.at_least {
            self.totals.at_least_reads += 1;
            if !present.contains(&value) {
                let example = format!("at_least {} lacks it; {}", self.place(value), said(reading));
                self.found(Wrong::AtLeast, example);
            }
        }
    }

    /// An inbox was shown when all was quiet: it must be whole, and the same on each instance.
    pub fn settled(&mut self, reading: &Reading) {
        for value in self.missing(reading.user, Duration::MAX, &reading.shown) {
            let place = self.place(value);
            self.found_value(Wrong::Lost, value, || format!("{place} is not there; {}", said(reading)));
        }
        match self.settled.get(&reading.user) {
            None => {
                self.settled.insert(reading.user, (reading.instance, reading.shown.clone()));
            }
            Some((_, first)) if *first == reading.shown => {}
            Some((other, first)) => {
                let only = |these: &[Shown], those: &[Shown]| -> Vec<String> {
                    let only = these.iter().filter(|shown| !those.contains(shown));
                    only.take(3).map(|shown| format!("{} at {}", shown.message, shown.cursor)).collect()
                };
                let example = format!(
                    "user {}: consumer {other} shows {} ({:?} only there), consumer {} shows {} ({:?} only there)",
                    reading.user, first.len(), only(first, &reading.shown),
                    reading.instance, reading.shown.len(), only(&reading.shown, first),
                );
                self.found(Wrong::Differs, example);
            }
        }
    }

    /// All must be looked at anew: another quiet time has come.
    pub fn unsettle(&mut self) {
        self.settled.clear();
    }

    /// What this user was sent, with an acknowledgement before this time, and is not among these.
    #[must_use]
    pub fn missing(&self, user: i64, before: Duration, shown: &[Shown]) -> Vec<Value> {
        let present: HashSet<Value> = shown.iter().filter_map(|shown| shown.message.parse().ok()).collect();
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

    fn known(&self, reading: &Reading, shown: &Shown) -> Option<Value> {
        let value: Value = shown.message.parse().ok()?;
        (value.to == reading.user && self.sends.contains_key(&value)).then_some(value)
    }

    fn note_shown(&mut self, reading: &Reading, value: Value, cursor: Cursor) {
        let Some(sent) = self.sends.get_mut(&value) else { return };
        if sent.first_shown.is_none() && matches!(sent.outcome, Outcome::Unknown) {
            self.totals.indeterminate_shown += 1;
        }
        let now = FirstShown { at: reading.ended, instance: reading.instance, cursor };
        let first = sent.first_shown.get_or_insert(now);
        // Readers tell us in any order.
        first.at = first.at.min(reading.ended);
        let before = match sent.outcome {
            Outcome::Acknowledged { cursor, .. } => cursor,
            Outcome::Pending | Outcome::Unknown => first.cursor,
        };
        if cursor != before {
            self.found_value(Wrong::Twice, value, || {
                format!("{value} is at {before}, and was shown at {cursor}; {}", said(reading))
            });
        }
    }

    /// `newest` holds the highest acknowledged value of each sender so far.
    fn check_order(&mut self, reading: &Reading, newest: &mut HashMap<i64, Value>, value: Value) {
        // A send of unknown outcome may be written late, after those that followed it.
        if !matches!(self.sends[&value].outcome, Outcome::Acknowledged { .. }) {
            return;
        }
        let highest = *newest.entry(value.from).or_insert(value);
        if value.n < highest.n {
            let (place, after) = (self.place(value), self.place(highest));
            self.found_value(Wrong::Disorder, value, || {
                format!("{place} stands after {after}; {}", said(reading))
            });
        } else {
            newest.insert(value.from, value);
        }
    }

    /// Whatever somebody was shown before this reading began must be in it.
    fn check_complete(&mut self, reading: &Reading, present: &HashSet<Value>) {
        let sent = self.to.get(&reading.user).map(Vec::as_slice).unwrap_or_default();
        let mut gone = None;
        let mut missing = 0;
        let mut waited = Duration::ZERO;
        for value in sent.iter().filter(|value| !present.contains(value)) {
            let sent = &self.sends[value];
            if let Some(first) = sent.first_shown.filter(|first| first.at < reading.began) {
                missing += 1;
                gone = gone.or(Some((*value, first)));
            }
            if let Outcome::Acknowledged { at, .. } = sent.outcome {
                waited = waited.max(reading.began.saturating_sub(at));
            }
        }
        self.totals.longest_unseen = self.totals.longest_unseen.max(waited);
        if let Some((value, first)) = gone {
            let example = format!(
                "{missing} already shown are missing, such as {}, shown by consumer {} at {:.3} s; {}",
                self.place(value), first.instance, first.at.as_secs_f64(), said(reading),
            );
            self.found(Wrong::Empty, example);
        } else if present.is_empty() && waited > EMPTY_GRACE {
            let example = format!(
                "nothing, though something was acknowledged {:.3} s before; {}",
                waited.as_secs_f64(), said(reading),
            );
            self.found(Wrong::Empty, example);
        }
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

fn said(reading: &Reading) -> String {
    let last = reading.shown.last().map_or_else(String::new, |last| format!(", the last at {}", last.cursor));
    format!(
        "consumer {} to user {}, {:.3} s to {:.3} s: {} shown{last}",
        reading.instance, reading.user, reading.began.as_secs_f64(), reading.ended.as_secs_f64(),
        reading.shown.len(),
    )
}
