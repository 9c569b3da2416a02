//! Steady load, as many sends and reads a second as it is told, however slow the answers are: a
//! service that stands still is not spared.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    client::{Client, Question},
    history::Value,
    random::Random,
};

/// How often the load looks what is due.
const TICK: Duration = Duration::from_millis(5);
/// How long a reader waits.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many senders write to each recipient.
const SENDERS: usize = 10;
/// How many reads may be under way.
const READS: usize = 200;
/// After one in so many acknowledgements, the recipient looks whether it is there.
const LOOK_AFTER: usize = 4;

/// The people of one round: their inboxes stay small enough to be read whole, again and again.
#[derive(Clone, Debug)]
pub struct People(Arc<Mutex<Arc<[i64]>>>);

impl People {
    /// These.
    #[must_use]
    pub fn new(ids: &[i64]) -> Self {
        Self(Arc::new(Mutex::new(ids.into())))
    }

    /// From now on these instead.
    pub fn replace(&self, ids: &[i64]) {
        *self.0.lock() = ids.into();
    }

    /// Those of now.
    #[must_use]
    pub fn now(&self) -> Arc<[i64]> {
        Arc::clone(&self.0.lock())
    }
}

/// A load that goes on until it is stopped.
pub struct Load {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts `rate` sends a second among these people, and half as many reads.
    pub fn start(client: &Client, people: &People, rate: u32, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let sending = sending(client.clone(), people.clone(), rate, Random::new(seed, "sends"));
        tasks.spawn(until(stop.clone(), sending));
        let reading = reading(client.clone(), people.clone(), rate / 2, Random::new(seed, "reads"));
        tasks.spawn(until(stop.clone(), reading));
        Self { stop, tasks }
    }

    /// Begins nothing more, and waits for what is under way.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Runs a loop until it is stopped, and then waits for the requests that it began.
async fn until(stop: CancellationToken, mut generator: impl Generator) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = tokio::time::Instant::now();
    let mut done = 0.0;
    while !stop.is_cancelled() {
        ticks.tick().await;
        let due = start.elapsed().as_secs_f64() * generator.rate();
        // What could not be begun in time is not made up for: that would be a burst.
        done = f64::max(done, due - generator.rate());
        while done < due {
            done += 1.0;
            generator.begin();
        }
    }
    generator.finish().await;
}

/// What begins requests.
trait Generator: Send {
    /// Requests a second.
    fn rate(&self) -> f64;
    /// Begins one, unless too many are under way.
    fn begin(&mut self);
    /// Waits for all of them.
    fn finish(self) -> impl Future<Output = ()> + Send;
}

struct Sending {
    client: Client,
    people: People,
    rate: u32,
    random: Random,
    /// The number of the next send of each pair.
    next: HashMap<(i64, i64), u32>,
    busy: HashSet<(i64, i64)>,
    under_way: JoinSet<(i64, i64)>,
}

fn sending(client: Client, people: People, rate: u32, random: Random) -> Sending {
    let (next, busy, under_way) = (HashMap::new(), HashSet::new(), JoinSet::new());
    Sending { client, people, rate, random, next, busy, under_way }
}

impl Generator for Sending {
    fn rate(&self) -> f64 {
        f64::from(self.rate)
    }

    /// One pair has one send under way at a time: only then is the order of two sends certain.
    fn begin(&mut self) {
        while let Some(done) = self.under_way.try_join_next() {
            if let Ok(pair) = done {
                self.busy.remove(&pair);
            }
        }
        let people = self.people.now();
        let recipient = self.random.below(people.len());
        let sender = (recipient + 1 + self.random.below(SENDERS)) % people.len();
        let pair = (people[sender], people[recipient]);
        if !self.busy.insert(pair) {
            return;
        }
        let n = self.next.entry(pair).or_default();
        let value = Value { from: pair.0, to: pair.1, n: *n };
        *n += 1;
        let look = self.random.below(LOOK_AFTER) == 0;
        let known = self.client.cluster.known();
        let instance = self.random.pick(&known).copied().unwrap_or(0);
        let client = self.client.clone();
        self.under_way.spawn(async move {
            let acknowledged = client.send(value).await;
            if let Some(cursor) = acknowledged.filter(|_| look) {
                let at_least = Some((value, cursor));
                client
                    .read(Question { user: value.to, instance, at_least, patience: PATIENCE })
                    .await;
            }
            pair
        });
    }

    async fn finish(self) {
        self.under_way.join_all().await;
    }
}

struct Polling {
    client: Client,
    people: People,
    rate: u32,
    random: Random,
    under_way: JoinSet<()>,
}

fn reading(client: Client, people: People, rate: u32, random: Random) -> Polling {
    Polling { client, people, rate, random, under_way: JoinSet::new() }
}

impl Generator for Polling {
    fn rate(&self) -> f64 {
        f64::from(self.rate)
    }

    fn begin(&mut self) {
        while self.under_way.try_join_next().is_some() {}
        let (people, known) = (self.people.now(), self.client.cluster.known());
        let user = self.random.pick(&people).copied();
        let instance = self.random.pick(&known).copied();
        if let Some((user, instance)) = user.zip(instance).filter(|_| self.under_way.len() < READS)
        {
            let client = self.client.clone();
            let question = Question { user, instance, at_least: None, patience: PATIENCE };
            self.under_way.spawn(async move {
                client.read(question).await;
            });
        }
    }

    async fn finish(self) {
        self.under_way.join_all().await;
    }
}
