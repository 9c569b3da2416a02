//! What is broken, how, and how often.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::{
    client::{Client, Question},
    history::{History, Wrong},
    load::{Load, People},
    probe::{Right, recovery},
    random::Random,
};
use crate::world::home;

/// How many people have an inbox in each round.
const PEOPLE: usize = 60;
/// The first of those; far from the four users that the migration makes.
const FIRST: i64 = 10_000;
/// Who sends when the probes do.
const PROBE: i64 = 9_999;
/// How many probes send after a fault that affects everybody.
const PROBES: usize = 12;
/// A little load before and after each fault.
const CALM: Duration = Duration::from_secs(2);
/// Longer than a consumer's session, which is 10 s.
const FROZEN: Duration = Duration::from_secs(12);
/// How long one who asks a certain consumer waits for it.
const ASK: Duration = Duration::from_secs(5);
/// A round that takes longer than this is given up.
const ROUND: Duration = Duration::from_secs(150);

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// kill -9 of the producer
    Producer,
    /// kill -9 of one of three consumers
    Consumer,
    /// kill -9 of the broker
    Broker,
    /// SIGSTOP of a consumer for longer than its session, then SIGCONT
    Pause,
    /// SIGTERM and a new start of each consumer, one after the other
    Rolling,
    /// From three consumers to one, and to three again
    Scale,
}

impl Scenario {
    /// All of them; what breaks least comes first.
    pub const ALL: [Self; 6] =
        [Self::Producer, Self::Consumer, Self::Broker, Self::Pause, Self::Rolling, Self::Scale];

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Producer => "kill -9 the producer",
            Self::Consumer => "kill -9 a consumer",
            Self::Broker => "kill -9 the broker",
            Self::Pause => "freeze a consumer",
            Self::Rolling => "rolling restart",
            Self::Scale => "scale 3 → 1 → 3",
        }
    }
}

/// What came of a scenario.
pub struct Outcome {
    /// Which.
    pub scenario: Scenario,
    /// How often something was done to the cluster.
    pub faults: usize,
    /// What was acknowledged and shown.
    pub history: Arc<Mutex<History>>,
    /// How long each affected user waited for a right answer, after each fault.
    pub recovery: Vec<Duration>,
    /// How long a killed broker took until it answered again.
    pub broker: Vec<Duration>,
    /// Why it was not carried through.
    pub failure: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Every random choice follows from it.
    pub seed: u64,
    /// How often each scenario does what it does.
    pub rounds: u32,
    /// Sends a second.
    pub rate: u32,
}

/// Carries one scenario out.
pub async fn run(scenario: Scenario, plan: Plan, client: &Client, number: i64) -> Outcome {
    let client = client.with(Arc::default());
    let began = client.journal.now();
    let history = Arc::clone(&client.history);
    let random = Random::new(plan.seed, scenario.name());
    let mut stage = Stage {
        client,
        random,
        people: Vec::new(),
        faults: 0,
        recovery: Vec::new(),
        broker: Vec::new(),
    };
    let failure = stage.play(scenario, plan, number).await.err();
    if let Some(failure) = &failure {
        stage.say(&format!("{}: {failure}", scenario.name()));
    }
    let took = stage.client.journal.now().saturating_sub(began);
    let Stage { faults, recovery, broker, .. } = stage;
    Outcome { scenario, faults, history, recovery, broker, failure, took }
}

/// One scenario being carried out.
struct Stage {
    client: Client,
    random: Random,
    /// Of this round.
    people: Vec<i64>,
    faults: usize,
    recovery: Vec<Duration>,
    broker: Vec<Duration>,
}

impl Stage {
    async fn play(&mut self, scenario: Scenario, plan: Plan, number: i64) -> Result<(), String> {
        self.client.cluster.restore().await?;
        self.client.cluster.add_users(&[PROBE]).await?;
        let people = People::new(&[]);
        let mut load = None;
        let mut outcome = Ok(());
        for round in 0..plan.rounds {
            self.people = newcomers(number, round);
            self.client.cluster.add_users(&self.people).await?;
            people.replace(&self.people);
            // The same load goes on through all rounds.
            load.get_or_insert_with(|| Load::start(&self.client, &people, plan.rate, plan.seed));
            self.say(&format!("{}, {} of {}", scenario.name(), round + 1, plan.rounds));
            outcome = timeout(ROUND, self.round(scenario))
                .await
                .unwrap_or_else(|_| Err(format!("a round took longer than {ROUND:?}")));
            self.look_for_the_dead();
            if outcome.is_err() {
                break;
            }
        }
        if let Some(load) = load {
            load.stop().await;
        }
        self.client.cluster.restore().await?;
        super::settle::settle(&self.client).await;
        self.look_for_the_dead();
        outcome
    }

    async fn round(&mut self, scenario: Scenario) -> Result<(), String> {
        sleep(CALM).await;
        match scenario {
            Scenario::Producer => self.producer().await?,
            Scenario::Consumer => self.consumer().await?,
            Scenario::Broker => self.broker().await?,
            Scenario::Pause => self.pause().await?,
            Scenario::Rolling => self.rolling().await?,
            Scenario::Scale => self.scale().await?,
        }
        self.client.cluster.all_ready().await?;
        sleep(CALM / 2).await;
        Ok(())
    }

    async fn producer(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let pause = cluster.moment(Duration::from_millis(500));
        let fault = self.fault("kill -9 the producer");
        cluster.producer.kill().await?;
        sleep(pause).await;
        cluster.producer.start()?;
        let users = self.some();
        self.recover(&users, fault, Right::Sends { from: PROBE }).await;
        Ok(())
    }

    async fn consumer(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let victim = cluster.victim();
        let users = self.users_of(victim).await;
        // Half of the time it comes back soon, as under a supervisor, and half of the time it stays away.
        let soon = self.random.below(2) == 0;
        let pause = cluster.moment(Duration::from_secs(3));
        let fault = self.fault(&format!("kill -9 consumer {victim}"));
        cluster.consumers[victim].kill().await?;
        if soon {
            sleep(pause).await;
            cluster.consumers[victim].start()?;
        }
        self.recover(&users, fault, Right::Reads).await;
        if !soon {
            cluster.consumers[victim].start()?;
        }
        Ok(())
    }

    async fn broker(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let pause = cluster.moment(Duration::from_secs(2));
        let fault = self.fault("kill -9 the broker");
        cluster.kill_broker().await?;
        sleep(pause).await;
        let users = self.some();
        let journal = Arc::clone(&self.client.journal);
        let start = async {
            cluster.start_broker().await?;
            journal.say("the broker answers again");
            Ok::<_, String>(journal.now().saturating_sub(fault))
        };
        let recover = self.recover(&users, fault, Right::Sends { from: PROBE });
        let (started, ()) = tokio::join!(start, recover);
        self.broker.push(started?);
        Ok(())
    }

    async fn pause(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let victim = cluster.victim();
        let users = self.users_of(victim).await;
        let connections = self.connections(victim, &users).await;
        let fault = self.fault(&format!("SIGSTOP consumer {victim}"));
        cluster.consumers[victim].pause()?;
        let everybody_else = self.recover(&users, fault, Right::Reads);
        tokio::join!(everybody_else, sleep(FROZEN));
        // Others own its partitions now, and show what it has never seen.
        sleep(CALM).await;
        // It is asked before it runs, over connections that it knows, so that it has questions to
        // answer before it can have heard of that.
        let asked = Self::ask_directly(victim, connections);
        sleep(Duration::from_millis(300)).await;
        self.say(&format!("SIGCONT consumer {victim}"));
        cluster.consumers[victim].resume()?;
        asked.join_all().await;
        Ok(())
    }

    async fn rolling(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        for number in cluster.up() {
            let users = self.users_of(number).await;
            let fault = self.fault(&format!("SIGTERM consumer {number}"));
            let restart = async {
                cluster.consumers[number].terminate().await?;
                cluster.consumers[number].start()
            };
            let (restarted, ()) = tokio::join!(restart, self.recover(&users, fault, Right::Reads));
            restarted?;
            cluster.all_ready().await?;
        }
        Ok(())
    }

    async fn scale(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let stays = cluster.victim();
        let others: Vec<_> = cluster.up().into_iter().filter(|number| *number != stays).collect();
        let mut users = Vec::new();
        for &number in &others {
            users.extend(self.users_of(number).await);
        }
        let fault = self.fault(&format!("SIGTERM consumers {others:?}"));
        let leave = futures_util::future::try_join_all(
            others.iter().map(|&number| cluster.consumers[number].terminate()),
        );
        let (left, ()) = tokio::join!(leave, self.recover(&users, fault, Right::Reads));
        left?;
        sleep(CALM).await;
        self.fault(&format!("start consumers {others:?}"));
        for &number in &others {
            cluster.consumers[number].start()?;
        }
        // Partitions move a while after that; the load's own readers meet it.
        cluster.all_ready().await?;
        cluster.balanced().await;
        let (everybody, now) = (self.people.clone(), self.client.journal.now());
        self.recover(&everybody, now, Right::Reads).await;
        Ok(())
    }

    /// Connections to this consumer, one for each of these users, each already used once.
    async fn connections(&self, instance: usize, users: &[i64]) -> Vec<(i64, Client)> {
        let connected = users.iter().map(|&user| async move {
            let client = self.client.alone();
            client.read(Question { user, instance, at_least: None, patience: ASK }).await;
            (user, client)
        });
        futures_util::future::join_all(connected).await
    }

    /// Asks this consumer for each of these inboxes, patiently, whatever its state.
    fn ask_directly(instance: usize, connections: Vec<(i64, Client)>) -> tokio::task::JoinSet<()> {
        let mut asked = tokio::task::JoinSet::new();
        for (user, client) in connections {
            asked.spawn(async move {
                // Again and again, for as long as it may take to find out that it was away.
                let again = async {
                    loop {
                        let patience = ASK;
                        client.read(Question { user, instance, at_least: None, patience }).await;
                        sleep(Duration::from_millis(20)).await;
                    }
                };
                let _: Result<(), _> = timeout(ASK, again).await;
            });
        }
        asked
    }

    async fn recover(&mut self, users: &[i64], fault: Duration, right: Right) {
        let mut random = Random::new(self.random.number(), "recovery");
        let waited = recovery(&self.client, users, fault, right, &mut random).await;
        let longest = waited.iter().max().copied().unwrap_or_default();
        let users = waited.len();
        self.say(&format!(
            "right again for {users} users, after {:.2} s at most",
            longest.as_secs_f64()
        ));
        self.recovery.extend(waited);
    }

    /// Says what is about to be done, and when that is.
    fn fault(&mut self, what: &str) -> Duration {
        self.faults += 1;
        self.say(what);
        self.client.journal.now()
    }

    /// Those whose inbox lives in this consumer; while it has none, anybody's may be on its way there.
    async fn users_of(&self, consumer: usize) -> Vec<i64> {
        let partitions = self.client.cluster.partitions(consumer).await;
        let here = |user: &i64| partitions.is_empty() || partitions.contains(&home(*user));
        self.people.iter().copied().filter(here).collect()
    }

    /// Some of the people, for a fault that affects them all.
    fn some(&mut self) -> Vec<i64> {
        let start = self.random.below(self.people.len());
        self.people.iter().cycle().skip(start).take(PROBES).copied().collect()
    }

    /// To be called when nothing is down on purpose.
    fn look_for_the_dead(&self) {
        let cluster = &self.client.cluster;
        let members = cluster.consumers.iter().chain([&cluster.producer]);
        let dead = members.filter_map(crate::member::Member::died);
        for how in dead.chain(cluster.broker_died()) {
            self.say(&how);
            self.client.history.lock().found(Wrong::Died, how);
        }
    }

    fn say(&self, what: &str) {
        self.client.journal.say(what);
    }
}

/// The people of this round of this scenario, who are nobody else's.
fn newcomers(scenario: i64, round: u32) -> Vec<i64> {
    let first = FIRST + scenario * 1_000_000 + i64::from(round) * 1_000;
    (first..).take(PEOPLE).collect()
}
