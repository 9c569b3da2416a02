//! How long it takes from a fault to the first right answer for each user whom it affects.

use std::time::Duration;

use model::Cursor;
use tokio::task::JoinSet;

use super::{
    client::{Client, Question},
    history::{Reading, Value, Wrong},
    random::Random,
};

/// The pause between two attempts, and so how exact the result is.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a single attempt may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// When to give up: nobody should wait that long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What makes an answer the right one.
#[derive(Clone, Copy, Debug)]
pub enum Right {
    /// It shows everything that was acknowledged before the fault.
    Reads,
    /// It shows something that was sent after the fault, by this sender, of whom nobody else sends.
    Sends {
        /// The sender.
        from: i64,
    },
}

/// Asks for these users until each has got a right answer, and returns how long each waited since
/// `fault`. Who has not got one by the deadline is a finding.
pub async fn recovery(
    client: &Client,
    users: &[i64],
    fault: Duration,
    right: Right,
    random: &mut Random,
) -> Vec<Duration> {
    let mut probes = JoinSet::new();
    for &user in users {
        let random = Random::new(random.number(), "probe");
        let mut probe = Probe { client: client.clone(), user, fault, random };
        probes.spawn(async move {
            let answered = async {
                match right {
                    Right::Reads => probe.reads().await,
                    Right::Sends { from } => probe.sends(from).await,
                }
            };
            let ended = tokio::time::timeout(DEADLINE, answered).await.ok();
            if ended.is_none() {
                let since = fault.as_secs_f64();
                let example =
                    format!("user {user}: no right answer within {DEADLINE:?} of {since:.3} s");
                probe.client.history.lock().found(Wrong::Stuck, example);
            }
            ended.map(|ended| ended.saturating_sub(fault))
        });
    }
    probes.join_all().await.into_iter().flatten().collect()
}

struct Probe {
    client: Client,
    user: i64,
    fault: Duration,
    random: Random,
}

impl Probe {
    /// When everything from before the fault was shown.
    async fn reads(&mut self) -> Duration {
        loop {
            if let Some(reading) = self.read(None).await {
                let history = self.client.history.lock();
                if history.missing(self.user, self.fault, &reading.shown).is_empty() {
                    return reading.ended;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// When something sent after the fault was shown.
    async fn sends(&mut self, from: i64) -> Duration {
        let mut n = 0;
        let sent = loop {
            let value = Value { from, to: self.user, n };
            if let Some(cursor) = self.client.send(value).await {
                break (value, cursor);
            }
            n += 1;
            tokio::time::sleep(PAUSE).await;
        };
        loop {
            if let Some(reading) = self.read(Some(sent)).await
                && reading.shown.iter().any(|shown| shown.cursor == sent.1)
            {
                return reading.ended;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks a consumer that runs, as a load balancer that looks after itself would.
    async fn read(&mut self, at_least: Option<(Value, Cursor)>) -> Option<Reading> {
        let up = self.client.cluster.up();
        let instance = self.random.pick(&up).copied()?;
        self.client.read(Question { user: self.user, instance, at_least, patience: PATIENCE }).await
    }
}
