//! Checks that a receipt that was answered 200 is seen in every later answer.

use std::time::Duration;

use super::{History, Outcome, Reading, Shown, TestMessage, Violation, check::describe_reading};

impl History {
    /// Records the id of an acknowledged notification.
    pub fn record_id(&mut self, value: TestMessage, id: &str) {
        if let Some(sent) = self.sends.get_mut(&value) {
            sent.id = Some(id.to_owned());
        }
    }

    /// An acknowledged notification of this user without a receipt, and its id. `choice` is any
    /// number.
    #[must_use]
    pub fn pick_unmarked(&self, user: i64, choice: usize) -> Option<(TestMessage, String)> {
        let all = self.to.get(&user)?;
        let start = choice % all.len();
        all[start..].iter().chain(&all[..start]).find_map(|value| {
            let sent = &self.sends[value];
            let is_open =
                matches!(sent.outcome, Outcome::Acknowledged { .. }) && sent.marked_at.is_none();
            sent.id.clone().filter(|_| is_open).map(|id| (*value, id))
        })
    }

    /// Records that a receipt for this notification was answered 200 at this time.
    pub fn record_marked(&mut self, at: Duration, value: TestMessage) {
        self.totals.receipts += 1;
        if let Some(sent) = self.sends.get_mut(&value) {
            sent.marked_at.get_or_insert(at);
        }
    }

    pub(super) fn check_receipt(&mut self, reading: &Reading, value: TestMessage, shown: &Shown) {
        let marked = self.sends.get(&value).and_then(|sent| sent.marked_at);
        if let Some(at) = marked.filter(|at| *at < reading.began && !shown.read) {
            let place = self.describe_message(value);
            self.record_message_violation(Violation::Receipt, value, || {
                format!(
                    "{place} is unread, although its receipt was answered 200 at {:.3} s; {}",
                    at.as_secs_f64(),
                    describe_reading(reading)
                )
            });
        }
    }
}
