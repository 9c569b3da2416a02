//! Steady load: a fixed number of sends and reads a second, however slow the answers are.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::{
    client::{InboxQuery, RecordingClient},
    history::TestMessage,
    random::Random,
};

/// Interval between checks for due requests.
const TICK: Duration = Duration::from_millis(5);
/// Timeout of a read.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// Senders to each recipient.
const SENDERS_PER_USER: usize = 10;
/// Limit of concurrent reads, and of concurrent receipts.
const MAX_READS: usize = 200;
/// One of this many acknowledgements is checked by a read with `at_least`.
const SENDS_PER_CHECK: usize = 4;

/// The recipients of one round. New ones each round keep the inboxes small enough to be read whole.
#[derive(Clone, Debug)]
pub struct ActiveUsers(Arc<Mutex<Arc<[i64]>>>);

impl ActiveUsers {
    /// Starts with these users.
    #[must_use]
    pub fn new(ids: &[i64]) -> Self {
        Self(Arc::new(Mutex::new(ids.into())))
    }

    /// Replaces the users.
    pub fn replace(&self, ids: &[i64]) {
        *self.0.lock() = ids.into();
    }

    /// The present users.
    #[must_use]
    pub fn current_ids(&self) -> Arc<[i64]> {
        Arc::clone(&self.0.lock())
    }
}

/// A load that runs until it is stopped.
pub struct Load {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts `rate` sends a second to these users, half as many reads, and a tenth as many
    /// receipts.
    pub fn start(client: &RecordingClient, people: &ActiveUsers, rate: u32, seed: u64) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let sending =
            new_send_generator(client.clone(), people.clone(), rate, Random::new(seed, "sends"));
        tasks.spawn(run_generator(stop.clone(), sending));
        let reading = new_read_generator(
            client.clone(),
            people.clone(),
            rate / 2,
            Random::new(seed, "reads"),
        );
        tasks.spawn(run_generator(stop.clone(), reading));
        let marking = ReceiptGenerator {
            client: client.clone(),
            people: people.clone(),
            rate: f64::from(rate) / 10.0,
            random: Random::new(seed, "receipts"),
            under_way: JoinSet::new(),
        };
        tasks.spawn(run_generator(stop.clone(), marking));
        Self { stop, tasks }
    }

    /// Starts no more requests, and waits for those in flight.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Runs a generator until `stop`, and then waits for its requests.
async fn run_generator(stop: CancellationToken, mut generator: impl RequestGenerator) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let start = tokio::time::Instant::now();
    let mut done = 0.0;
    while !stop.is_cancelled() {
        ticks.tick().await;
        let due = start.elapsed().as_secs_f64() * generator.rate();
        // Missed requests are not made up for: that would be a burst.
        done = f64::max(done, due - generator.rate());
        while done < due {
            done += 1.0;
            generator.begin_request();
        }
    }
    generator.await_requests().await;
}

/// Starts requests of one kind.
trait RequestGenerator: Send {
    /// Requests a second.
    fn rate(&self) -> f64;
    /// Starts one, unless too many are in flight.
    fn begin_request(&mut self);
    /// Waits for all requests in flight.
    fn await_requests(self) -> impl Future<Output = ()> + Send;
}

struct SendGenerator {
    client: RecordingClient,
    people: ActiveUsers,
    rate: u32,
    random: Random,
    /// The number of the next send of each pair.
    next: HashMap<(i64, i64), u32>,
    busy: HashSet<(i64, i64)>,
    under_way: JoinSet<(i64, i64)>,
}

fn new_send_generator(
    client: RecordingClient,
    people: ActiveUsers,
    rate: u32,
    random: Random,
) -> SendGenerator {
    let (next, busy, under_way) = (HashMap::new(), HashSet::new(), JoinSet::new());
    SendGenerator { client, people, rate, random, next, busy, under_way }
}

impl RequestGenerator for SendGenerator {
    fn rate(&self) -> f64 {
        f64::from(self.rate)
    }

    /// A pair has at most one send in flight: only then the order of two sends is certain.
    fn begin_request(&mut self) {
        while let Some(done) = self.under_way.try_join_next() {
            if let Ok(pair) = done {
                self.busy.remove(&pair);
            }
        }
        let people = self.people.current_ids();
        let recipient = self.random.next_below(people.len());
        let sender = (recipient + 1 + self.random.next_below(SENDERS_PER_USER)) % people.len();
        let pair = (people[sender], people[recipient]);
        if !self.busy.insert(pair) {
            return;
        }
        let n = self.next.entry(pair).or_default();
        let value = TestMessage { from: pair.0, to: pair.1, n: *n };
        *n += 1;
        let look = self.random.next_below(SENDS_PER_CHECK) == 0;
        let known = self.client.cluster.reachable_consumers();
        let instance = self.random.pick_one(&known).copied().unwrap_or(0);
        let client = self.client.clone();
        self.under_way.spawn(async move {
            let acknowledged = client.send(value).await;
            if let Some(cursor) = acknowledged.filter(|_| look) {
                let at_least = Some((value, cursor));
                client
                    .read_inbox(InboxQuery {
                        user: value.to,
                        instance,
                        at_least,
                        timeout: READ_TIMEOUT,
                    })
                    .await;
            }
            pair
        });
    }

    async fn await_requests(self) {
        self.under_way.join_all().await;
    }
}

struct ReadGenerator {
    client: RecordingClient,
    people: ActiveUsers,
    rate: u32,
    random: Random,
    under_way: JoinSet<()>,
}

fn new_read_generator(
    client: RecordingClient,
    people: ActiveUsers,
    rate: u32,
    random: Random,
) -> ReadGenerator {
    ReadGenerator { client, people, rate, random, under_way: JoinSet::new() }
}

impl RequestGenerator for ReadGenerator {
    fn rate(&self) -> f64 {
        f64::from(self.rate)
    }

    fn begin_request(&mut self) {
        while self.under_way.try_join_next().is_some() {}
        let (people, known) =
            (self.people.current_ids(), self.client.cluster.reachable_consumers());
        let user = self.random.pick_one(&people).copied();
        let instance = self.random.pick_one(&known).copied();
        if let Some((user, instance)) =
            user.zip(instance).filter(|_| self.under_way.len() < MAX_READS)
        {
            let client = self.client.clone();
            let question = InboxQuery { user, instance, at_least: None, timeout: READ_TIMEOUT };
            self.under_way.spawn(async move {
                client.read_inbox(question).await;
            });
        }
    }

    async fn await_requests(self) {
        self.under_way.join_all().await;
    }
}

struct ReceiptGenerator {
    client: RecordingClient,
    people: ActiveUsers,
    rate: f64,
    random: Random,
    under_way: JoinSet<()>,
}

impl RequestGenerator for ReceiptGenerator {
    fn rate(&self) -> f64 {
        self.rate
    }

    fn begin_request(&mut self) {
        while self.under_way.try_join_next().is_some() {}
        let (people, known) =
            (self.people.current_ids(), self.client.cluster.reachable_consumers());
        let user = self.random.pick_one(&people).copied();
        let instance = self.random.pick_one(&known).copied();
        let choice = self.random.next_below(usize::MAX);
        let Some((user, instance)) = user.zip(instance) else { return };
        let picked = self.client.history.lock().pick_unmarked(user, choice);
        if let Some((value, id)) = picked.filter(|_| self.under_way.len() < MAX_READS) {
            let client = self.client.clone();
            self.under_way.spawn(async move { client.mark_read(instance, value, &id).await });
        }
    }

    async fn await_requests(self) {
        self.under_way.join_all().await;
    }
}
