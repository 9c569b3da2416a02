//! Measures the time from a fault to the first correct answer for each affected user.

use std::time::Duration;

use model::Cursor;
use tokio::task::JoinSet;

use super::{
    client::{InboxQuery, RecordingClient},
    history::{Reading, TestMessage, Violation},
    random::Random,
};

/// Interval between two attempts: the precision of the result.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Timeout of one attempt.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// After this time a probe gives up, which is a violation.
pub const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// The correct answer.
#[derive(Clone, Copy, Debug)]
pub enum Recovery {
    /// It has everything that was acknowledged before the fault.
    Reads,
    /// It has a message that was sent after the fault by this sender, which only the probe uses.
    Sends {
        /// The sender.
        from: i64,
    },
}

/// Reads and sends for these users until each has got a correct answer. Returns each one's time
/// since `fault`; no correct answer within [`RECOVERY_TIMEOUT`] is a violation.
pub async fn measure_recovery(
    client: &RecordingClient,
    users: &[i64],
    fault: Duration,
    right: Recovery,
    random: &mut Random,
) -> Vec<Duration> {
    let mut probes = JoinSet::new();
    for &user in users {
        let random = Random::new(random.next_number(), "probe");
        let mut probe = Probe { client: client.clone(), user, fault, random };
        probes.spawn(async move {
            let answered = async {
                match right {
                    Recovery::Reads => probe.await_complete_read().await,
                    Recovery::Sends { from } => probe.await_new_send(from).await,
                }
            };
            let ended = tokio::time::timeout(RECOVERY_TIMEOUT, answered).await.ok();
            if ended.is_none() {
                let since = fault.as_secs_f64();
                let example = format!(
                    "user {user}: no right answer within {RECOVERY_TIMEOUT:?} of {since:.3} s"
                );
                probe.client.history.lock().record_violation(Violation::Stuck, example);
            }
            ended.map(|ended| ended.saturating_sub(fault))
        });
    }
    probes.join_all().await.into_iter().flatten().collect()
}

struct Probe {
    client: RecordingClient,
    user: i64,
    fault: Duration,
    random: Random,
}

impl Probe {
    /// Waits until everything from before the fault is shown; returns when.
    async fn await_complete_read(&mut self) -> Duration {
        loop {
            if let Some(reading) = self.read_once(None).await {
                let history = self.client.history.lock();
                if history.missing_messages(self.user, self.fault, &reading.shown).is_empty() {
                    return reading.ended;
                }
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Waits until a message sent after the fault is shown; returns when.
    async fn await_new_send(&mut self, from: i64) -> Duration {
        // Earlier probes of the round have sent to this user too.
        let mut n = self.client.history.lock().next_number(from, self.user);
        let sent = loop {
            let value = TestMessage { from, to: self.user, n };
            if let Some(cursor) = self.client.send(value).await {
                break (value, cursor);
            }
            n += 1;
            tokio::time::sleep(PROBE_INTERVAL).await;
        };
        loop {
            if let Some(reading) = self.read_once(Some(sent)).await
                && reading.shown.iter().any(|shown| shown.cursor == sent.1)
            {
                return reading.ended;
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Asks a random running consumer, as a load balancer with health checks would.
    async fn read_once(&mut self, at_least: Option<(TestMessage, Cursor)>) -> Option<Reading> {
        let up = self.client.cluster.running_consumers();
        let instance = self.random.pick_one(&up).copied()?;
        self.client
            .read_inbox(InboxQuery { user: self.user, instance, at_least, timeout: PROBE_TIMEOUT })
            .await
    }
}
