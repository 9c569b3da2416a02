//! Checks each answered inbox.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use model::Cursor;

use super::{
    FirstShown, History, MAX_STALE_AGE, Outcome, Reading, STALE_AGE, Shown, TestMessage, Violation,
};

impl History {
    /// Checks an answered inbox.
    pub fn check_reading(&mut self, reading: &Reading) {
        self.totals.reads += 1;
        if let Some(since) = self.unanswered.remove(&reading.user) {
            let unanswered = reading.ended.saturating_sub(since);
            self.totals.longest_unanswered = self.totals.longest_unanswered.max(unanswered);
        }
        let mut present = HashSet::with_capacity(reading.shown.len());
        let mut newest: HashMap<i64, TestMessage> = HashMap::new();
        for shown in &reading.shown {
            let Some(value) = self.find_sent(reading.user, shown) else {
                let example = format!(
                    "{shown:?} was never sent to user {}; {}",
                    reading.user,
                    describe_reading(reading)
                );
                self.record_violation(Violation::Foreign, example);
                continue;
            };
            if !present.insert(value) {
                self.record_message_violation(Violation::Twice, value, || {
                    format!("{value} is shown twice; {}", describe_reading(reading))
                });
            }
            self.note_shown(reading, value, shown.cursor);
            self.check_receipt(reading, value, shown);
            self.check_order(reading, &mut newest, value);
        }
        self.check_complete(reading, &present);
        if let Some(value) = reading.at_least {
            self.totals.at_least_reads += 1;
            if !present.contains(&value) {
                let example = format!(
                    "at_least {} lacks it; {}",
                    self.describe_message(value),
                    describe_reading(reading)
                );
                self.record_violation(Violation::AtLeast, example);
            }
        }
    }

    /// Checks a final inbox: it must be complete, and the same on each instance.
    pub fn check_final_reading(&mut self, reading: &Reading) {
        for value in self.missing_messages(reading.user, Duration::MAX, &reading.shown) {
            let place = self.describe_message(value);
            self.record_message_violation(Violation::Lost, value, || {
                format!("{place} is missing; {}", describe_reading(reading))
            });
        }
        match self.settled.get(&reading.user) {
            None => {
                self.settled.insert(reading.user, (reading.instance, reading.shown.clone()));
            }
            Some((_, first)) if is_same_inbox(first, &reading.shown) => {}
            Some((other, first)) => {
                let only = |these: &[Shown], those: &[Shown]| -> Vec<String> {
                    let only = these
                        .iter()
                        .filter(|shown| !those.iter().any(|other| other.cursor == shown.cursor));
                    only.take(3)
                        .map(|shown| format!("{} at {}", shown.message, shown.cursor))
                        .collect()
                };
                let example = format!(
                    "user {}: consumer {other} shows {} ({:?} only there), consumer {} shows {} ({:?} only there)",
                    reading.user,
                    first.len(),
                    only(first, &reading.shown),
                    reading.instance,
                    reading.shown.len(),
                    only(&reading.shown, first),
                );
                self.record_violation(Violation::Differs, example);
            }
        }
    }

    pub(super) fn find_sent(&self, user: i64, shown: &Shown) -> Option<TestMessage> {
        let value: TestMessage = shown.message.parse().ok()?;
        (value.to == user && self.sends.contains_key(&value)).then_some(value)
    }

    pub(super) fn note_shown(&mut self, reading: &Reading, value: TestMessage, cursor: Cursor) {
        let Some(sent) = self.sends.get_mut(&value) else { return };
        if sent.first_shown.is_none() && matches!(sent.outcome, Outcome::Unknown) {
            self.totals.indeterminate_shown += 1;
        }
        let now = FirstShown { at: reading.ended, instance: reading.instance, cursor };
        let is_first = sent.first_shown.is_none();
        let first = sent.first_shown.get_or_insert(now);
        // Readings arrive in any order.
        first.at = first.at.min(reading.ended);
        let (outcome, before) = (sent.outcome, first.cursor);
        if is_first && let Outcome::Acknowledged { cursor: acknowledged, .. } = outcome {
            self.compare_places(value, cursor, acknowledged);
        }
        if cursor != before {
            self.record_message_violation(Violation::Twice, value, || {
                format!(
                    "{value} is at {before}, and was shown at {cursor}; {}",
                    describe_reading(reading)
                )
            });
        }
    }

    /// If the broker is away for longer than `message.timeout.ms` (30 s), librdkafka starts a new
    /// producer epoch and writes unacknowledged records again: the log may then have a record
    /// twice, with one id. Readers see the first copy, and the sender gets the cursor of the
    /// second. The reverse would mean that the acknowledged cursor lost its record.
    pub(super) fn compare_places(
        &mut self,
        value: TestMessage,
        shown: Cursor,
        acknowledged: Cursor,
    ) {
        if shown < acknowledged {
            self.totals.written_again += 1;
        } else if shown > acknowledged {
            self.record_message_violation(Violation::Twice, value, || {
                format!("{value} was acknowledged at {acknowledged}, and is shown at {shown}")
            });
        }
    }

    /// `newest` holds the highest acknowledged value of each sender so far.
    fn check_order(
        &mut self,
        reading: &Reading,
        newest: &mut HashMap<i64, TestMessage>,
        value: TestMessage,
    ) {
        // A send without an acknowledgement may be written late, after later sends.
        if !matches!(self.sends[&value].outcome, Outcome::Acknowledged { .. }) {
            return;
        }
        let highest = *newest.entry(value.from).or_insert(value);
        if value.n < highest.n {
            let (place, after) = (self.describe_message(value), self.describe_message(highest));
            self.record_message_violation(Violation::Disorder, value, || {
                format!("{place} is shown after {after}; {}", describe_reading(reading))
            });
        } else {
            newest.insert(value.from, value);
        }
    }

    /// Checks that the reading has every message that an answer before its start had, and how old
    /// the oldest message is that it lacks.
    fn check_complete(&mut self, reading: &Reading, present: &HashSet<TestMessage>) {
        let sent = self.to.get(&reading.user).map(Vec::as_slice).unwrap_or_default();
        let mut gone = None;
        let mut missing = 0;
        let mut age = Duration::ZERO;
        for value in sent.iter().filter(|value| !present.contains(value)) {
            let sent = &self.sends[value];
            if matches!(sent.outcome, Outcome::Forgotten) {
                continue;
            }
            if let Some(first) = sent.first_shown.filter(|first| first.at < reading.began) {
                missing += 1;
                gone = gone.or(Some((*value, first)));
            }
            if let Outcome::Acknowledged { at, .. } = sent.outcome {
                age = age.max(reading.began.saturating_sub(at));
            }
        }
        self.totals.longest_unseen = self.totals.longest_unseen.max(age);
        self.totals.stale += u64::from(age > STALE_AGE);
        if let Some((value, first)) = gone {
            let example = format!(
                "{missing} already shown are missing, such as {}, shown by consumer {} at {:.3} s; {}",
                self.describe_message(value),
                first.instance,
                first.at.as_secs_f64(),
                describe_reading(reading),
            );
            self.record_violation(Violation::Back, example);
        } else if age > MAX_STALE_AGE {
            let (wrong, kind) = if present.is_empty() {
                (Violation::Empty, "an empty")
            } else {
                (Violation::Stale, "a stale")
            };
            let example = format!(
                "{kind} inbox, although a notification was acknowledged {:.3} s before; {}",
                age.as_secs_f64(),
                describe_reading(reading),
            );
            self.record_violation(wrong, example);
        }
    }
}

/// Receipts may still arrive between two final readings.
fn is_same_inbox(one: &[Shown], other: &[Shown]) -> bool {
    let places = |shown: &Shown| (shown.message.clone(), shown.cursor);
    one.iter().map(places).eq(other.iter().map(places))
}

pub(super) fn describe_reading(reading: &Reading) -> String {
    let last = reading
        .shown
        .last()
        .map_or_else(String::new, |last| format!(", the last at {}", last.cursor));
    format!(
        "consumer {} to user {}, {:.3} s to {:.3} s: {} shown{last}",
        reading.instance,
        reading.user,
        reading.began.as_secs_f64(),
        reading.ended.as_secs_f64(),
        reading.shown.len(),
    )
}
