//! The faults: which, how, and how often.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::{
    client::{InboxQuery, RecordingClient},
    history::{History, Violation},
    load::{ActiveUsers, Load},
    probe::{Recovery, measure_recovery},
    random::Random,
};
use crate::world::home_partition;

/// Recipients in each round.
const USERS_PER_ROUND: usize = 60;
/// Id of the first recipient; the migration's four users have lower ids.
const FIRST_USER: i64 = 10_000;
/// The sender of all probes.
const PROBE_SENDER: i64 = 9_999;
/// Probes that send after a fault that affects all users.
const PROBES_PER_FAULT: usize = 12;
/// Length of the load before and after each fault.
const CALM_DURATION: Duration = Duration::from_secs(2);
/// Longer than a consumer's session timeout (10 s).
const FREEZE_DURATION: Duration = Duration::from_secs(12);
/// Timeout of a read from one certain consumer.
const DIRECT_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A longer round is given up.
const ROUND_TIMEOUT: Duration = Duration::from_secs(150);

/// A kind of fault.
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
    /// All scenarios, the mildest first.
    pub const ALL: [Self; 6] =
        [Self::Producer, Self::Consumer, Self::Broker, Self::Pause, Self::Rolling, Self::Scale];

    /// Name in the report.
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

/// Result of a scenario.
pub struct ScenarioOutcome {
    /// The scenario.
    pub scenario: Scenario,
    /// Number of faults.
    pub faults: usize,
    /// Everything that was acknowledged and answered.
    pub history: Arc<Mutex<History>>,
    /// Each affected user's wait for a correct answer, after each fault.
    pub recovery: Vec<Duration>,
    /// Time until a killed broker answered again.
    pub broker: Vec<Duration>,
    /// Why it was not completed.
    pub failure: Option<String>,
    /// Duration of the scenario.
    pub took: Duration,
}

/// Size of a run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Seed of all random choices.
    pub seed: u64,
    /// Rounds of each scenario.
    pub rounds: u32,
    /// Sends a second.
    pub rate: u32,
}

/// Runs one scenario.
pub async fn run_scenario(
    scenario: Scenario,
    plan: Plan,
    client: &RecordingClient,
    number: i64,
) -> ScenarioOutcome {
    let client = client.with_history(Arc::default());
    let began = client.journal.now();
    let history = Arc::clone(&client.history);
    let random = Random::new(plan.seed, scenario.name());
    let mut stage = ScenarioRun {
        client,
        random,
        people: Vec::new(),
        faults: 0,
        recovery: Vec::new(),
        broker: Vec::new(),
    };
    let failure = stage.run_rounds(scenario, plan, number).await.err();
    if let Some(failure) = &failure {
        stage.print_event(&format!("{}: {failure}", scenario.name()));
    }
    let took = stage.client.journal.now().saturating_sub(began);
    let ScenarioRun { faults, recovery, broker, .. } = stage;
    ScenarioOutcome { scenario, faults, history, recovery, broker, failure, took }
}

/// A running scenario.
struct ScenarioRun {
    client: RecordingClient,
    random: Random,
    /// The recipients of this round.
    people: Vec<i64>,
    faults: usize,
    recovery: Vec<Duration>,
    broker: Vec<Duration>,
}

impl ScenarioRun {
    async fn run_rounds(
        &mut self,
        scenario: Scenario,
        plan: Plan,
        number: i64,
    ) -> Result<(), String> {
        self.client.cluster.start_all().await?;
        self.client.cluster.add_users(&[PROBE_SENDER]).await?;
        let people = ActiveUsers::new(&[]);
        let mut load = None;
        let mut outcome = Ok(());
        for round in 0..plan.rounds {
            self.people = new_users(number, round);
            self.client.cluster.add_users(&self.people).await?;
            people.replace(&self.people);
            // One load runs through all rounds.
            load.get_or_insert_with(|| Load::start(&self.client, &people, plan.rate, plan.seed));
            self.print_event(&format!("{}, {} of {}", scenario.name(), round + 1, plan.rounds));
            outcome = timeout(ROUND_TIMEOUT, self.run_round(scenario))
                .await
                .unwrap_or_else(|_| Err(format!("a round took longer than {ROUND_TIMEOUT:?}")));
            self.record_ended_processes();
            if outcome.is_err() {
                break;
            }
        }
        if let Some(load) = load {
            load.stop().await;
        }
        self.client.cluster.start_all().await?;
        super::settle::settle(&self.client).await;
        self.record_ended_processes();
        outcome
    }

    async fn run_round(&mut self, scenario: Scenario) -> Result<(), String> {
        sleep(CALM_DURATION).await;
        match scenario {
            Scenario::Producer => self.kill_producer().await?,
            Scenario::Consumer => self.kill_consumer().await?,
            Scenario::Broker => self.kill_broker().await?,
            Scenario::Pause => self.pause_consumer().await?,
            Scenario::Rolling => self.restart_each_consumer().await?,
            Scenario::Scale => self.scale_down_and_up().await?,
        }
        self.client.cluster.await_all_ready().await?;
        sleep(CALM_DURATION / 2).await;
        Ok(())
    }

    async fn kill_producer(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let pause = cluster.random_duration(Duration::from_millis(500));
        let fault = self.announce_fault("kill -9 the producer");
        cluster.producer.kill().await?;
        sleep(pause).await;
        cluster.producer.start()?;
        let users = self.pick_users();
        self.await_recovery(&users, fault, Recovery::Sends { from: PROBE_SENDER }).await;
        Ok(())
    }

    async fn kill_consumer(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let victim = cluster.pick_running_consumer();
        let users = self.users_on(victim).await;
        // In half of the rounds it restarts soon, as under a supervisor; in the others it stays
        // down.
        let soon = self.random.next_below(2) == 0;
        let pause = cluster.random_duration(Duration::from_secs(3));
        let fault = self.announce_fault(&format!("kill -9 consumer {victim}"));
        cluster.consumers[victim].kill().await?;
        if soon {
            sleep(pause).await;
            cluster.consumers[victim].start()?;
        }
        self.await_recovery(&users, fault, Recovery::Reads).await;
        if !soon {
            cluster.consumers[victim].start()?;
        }
        Ok(())
    }

    async fn kill_broker(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let pause = cluster.random_duration(Duration::from_secs(2));
        let fault = self.announce_fault("kill -9 the broker");
        cluster.kill_broker().await?;
        sleep(pause).await;
        let users = self.pick_users();
        let journal = Arc::clone(&self.client.journal);
        let start = async {
            cluster.start_broker().await?;
            journal.print_event("the broker answers again");
            Ok::<_, String>(journal.now().saturating_sub(fault))
        };
        let recover = self.await_recovery(&users, fault, Recovery::Sends { from: PROBE_SENDER });
        let (started, ()) = tokio::join!(start, recover);
        self.broker.push(started?);
        Ok(())
    }

    async fn pause_consumer(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let victim = cluster.pick_running_consumer();
        let users = self.users_on(victim).await;
        let connections = self.open_connections(victim, &users).await;
        let fault = self.announce_fault(&format!("SIGSTOP consumer {victim}"));
        cluster.consumers[victim].pause()?;
        let everybody_else = self.await_recovery(&users, fault, Recovery::Reads);
        tokio::join!(everybody_else, sleep(FREEZE_DURATION));
        // Other consumers own its partitions now, and show messages that it has never read.
        sleep(CALM_DURATION).await;
        // Requests are sent before it resumes, over connections that it has accepted, so that it
        // has to answer them before it can learn of the rebalance.
        let asked = Self::ask_directly(victim, connections);
        sleep(Duration::from_millis(300)).await;
        self.print_event(&format!("SIGCONT consumer {victim}"));
        cluster.consumers[victim].resume()?;
        asked.join_all().await;
        Ok(())
    }

    async fn restart_each_consumer(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        for number in cluster.running_consumers() {
            let users = self.users_on(number).await;
            let fault = self.announce_fault(&format!("SIGTERM consumer {number}"));
            let restart = async {
                cluster.consumers[number].terminate().await?;
                cluster.consumers[number].start()
            };
            let (restarted, ()) =
                tokio::join!(restart, self.await_recovery(&users, fault, Recovery::Reads));
            restarted?;
            cluster.await_all_ready().await?;
        }
        Ok(())
    }

    async fn scale_down_and_up(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let stays = cluster.pick_running_consumer();
        let others: Vec<_> =
            cluster.running_consumers().into_iter().filter(|number| *number != stays).collect();
        let mut users = Vec::new();
        for &number in &others {
            users.extend(self.users_on(number).await);
        }
        let fault = self.announce_fault(&format!("SIGTERM consumers {others:?}"));
        let leave = futures_util::future::try_join_all(
            others.iter().map(|&number| cluster.consumers[number].terminate()),
        );
        let (left, ()) = tokio::join!(leave, self.await_recovery(&users, fault, Recovery::Reads));
        left?;
        sleep(CALM_DURATION).await;
        self.announce_fault(&format!("start consumers {others:?}"));
        for &number in &others {
            cluster.consumers[number].start()?;
        }
        // Partitions move somewhat later; the load's readers cover that time.
        cluster.await_all_ready().await?;
        cluster.await_balance().await;
        let (everybody, now) = (self.people.clone(), self.client.journal.now());
        self.await_recovery(&everybody, now, Recovery::Reads).await;
        Ok(())
    }

    /// Opens a connection to this consumer for each of these users, and uses it once.
    async fn open_connections(
        &self,
        instance: usize,
        users: &[i64],
    ) -> Vec<(i64, RecordingClient)> {
        let connected = users.iter().map(|&user| async move {
            let client = self.client.with_new_connections();
            let timeout = DIRECT_READ_TIMEOUT;
            client.read_inbox(InboxQuery { user, instance, at_least: None, timeout }).await;
            (user, client)
        });
        futures_util::future::join_all(connected).await
    }

    /// Reads each of these inboxes from this consumer, whatever its state.
    fn ask_directly(
        instance: usize,
        connections: Vec<(i64, RecordingClient)>,
    ) -> tokio::task::JoinSet<()> {
        let mut asked = tokio::task::JoinSet::new();
        for (user, client) in connections {
            asked.spawn(async move {
                // Repeats until the consumer must have noticed that it was fenced by the group.
                let again = async {
                    let timeout = DIRECT_READ_TIMEOUT;
                    loop {
                        let query = InboxQuery { user, instance, at_least: None, timeout };
                        client.read_inbox(query).await;
                        sleep(Duration::from_millis(20)).await;
                    }
                };
                let _: Result<(), _> = timeout(DIRECT_READ_TIMEOUT, again).await;
            });
        }
        asked
    }

    async fn await_recovery(&mut self, users: &[i64], fault: Duration, right: Recovery) {
        let mut random = Random::new(self.random.next_number(), "recovery");
        let waited = measure_recovery(&self.client, users, fault, right, &mut random).await;
        let longest = waited.iter().max().copied().unwrap_or_default().as_secs_f64();
        self.print_event(&format!("recovered for {} users within {longest:.2} s", waited.len()));
        self.recovery.extend(waited);
    }

    /// Announces a fault, and returns its time.
    fn announce_fault(&mut self, what: &str) -> Duration {
        self.faults += 1;
        self.print_event(what);
        self.client.journal.now()
    }

    /// The users whose inbox is on this consumer; all users if it has no partition yet, because any
    /// partition may be moving to it.
    async fn users_on(&self, consumer: usize) -> Vec<i64> {
        let partitions = self.client.cluster.live_partitions(consumer).await;
        let here =
            |user: &i64| partitions.is_empty() || partitions.contains(&home_partition(*user));
        self.people.iter().copied().filter(here).collect()
    }

    /// Some random users, for a fault that affects all.
    fn pick_users(&mut self) -> Vec<i64> {
        let start = self.random.next_below(self.people.len());
        self.people.iter().cycle().skip(start).take(PROBES_PER_FAULT).copied().collect()
    }

    /// Records processes that ended by themselves. Call it while no process is down on purpose.
    fn record_ended_processes(&self) {
        let cluster = &self.client.cluster;
        let members = cluster.consumers.iter().chain([&cluster.producer]);
        let dead = members.filter_map(crate::service_process::ServiceProcess::take_exit_report);
        for how in dead.chain(cluster.take_broker_exit_report()) {
            self.print_event(&how);
            self.client.history.lock().record_violation(Violation::Died, how);
        }
    }

    fn print_event(&self, what: &str) {
        self.client.journal.print_event(what);
    }
}

/// The recipients of this round of this scenario; no other round has them.
fn new_users(scenario: i64, round: u32) -> Vec<i64> {
    let first = FIRST_USER + scenario * 1_000_000 + i64::from(round) * 1_000;
    (first..).take(USERS_PER_ROUND).collect()
}
