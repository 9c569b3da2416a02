//! What each inbox that was shown is held against.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use model::Cursor;

use super::{EMPTY_GRACE, FirstShown, History, Outcome, Reading, Shown, Value, Wrong};

impl History {
    /// An inbox was shown.
    pub fn read(&mut self, reading: &Reading) {
        self.totals.reads += 1;
        if let Some(since) = self.unanswered.remove(&reading.user) {
            let unanswered = reading.ended.saturating_sub(since);
            self.totals.longest_unanswered = self.totals.longest_unanswered.max(unanswered);
        }
        let mut present = HashSet::with_capacity(reading.shown.len());
        let mut newest: HashMap<i64, Value> = HashMap::new();
        for shown in &reading.shown {
            let Some(value) = self.known(reading, shown) else {
                let example =
                    format!("{shown:?} was never sent to user {}; {}", reading.user, said(reading));
                self.found(Wrong::Foreign, example);
                continue;
            };
            if !present.insert(value) {
                self.found_value(Wrong::Twice, value, || {
                    format!("{value} stands twice; {}", said(reading))
                });
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
            self.found_value(Wrong::Lost, value, || {
                format!("{place} is not there; {}", said(reading))
            });
        }
        match self.settled.get(&reading.user) {
            None => {
                self.settled.insert(reading.user, (reading.instance, reading.shown.clone()));
            }
            Some((_, first)) if *first == reading.shown => {}
            Some((other, first)) => {
                let only = |these: &[Shown], those: &[Shown]| -> Vec<String> {
                    let only = these.iter().filter(|shown| !those.contains(shown));
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
                self.found(Wrong::Differs, example);
            }
        }
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
        let is_first = sent.first_shown.is_none();
        let first = sent.first_shown.get_or_insert(now);
        // Readers tell us in any order.
        first.at = first.at.min(reading.ended);
        let (outcome, before) = (sent.outcome, first.cursor);
        if is_first && let Outcome::Acknowledged { cursor: acknowledged, .. } = outcome {
            self.compare_places(value, cursor, acknowledged);
        }
        if cursor != before {
            self.found_value(Wrong::Twice, value, || {
                format!("{value} is at {before}, and was shown at {cursor}; {}", said(reading))
            });
        }
    }

    /// When the broker is away for longer than a record may wait (30 s), the client begins a new
    /// epoch and writes again what may have been written already: the log then has the record
    /// twice, with one id. Readers see the first, the sender is told of the second. The other way
    /// round, the place that was acknowledged would have lost its record.
    pub(super) fn compare_places(&mut self, value: Value, shown: Cursor, acknowledged: Cursor) {
        if shown < acknowledged {
            self.totals.written_again += 1;
        } else if shown > acknowledged {
            self.found_value(Wrong::Twice, value, || {
                format!("{value} was acknowledged at {acknowledged}, and is shown at {shown}")
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
                self.place(value),
                first.instance,
                first.at.as_secs_f64(),
                said(reading),
            );
            self.found(Wrong::Empty, example);
        } else if present.is_empty() && waited > EMPTY_GRACE {
            let example = format!(
                "nothing, though something was acknowledged {:.3} s before; {}",
                waited.as_secs_f64(),
                said(reading),
            );
            self.found(Wrong::Empty, example);
        }
    }
}

fn said(reading: &Reading) -> String {
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
