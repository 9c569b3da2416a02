//! Runs the scenarios: rounds of load, faults, and the wait for correct answers.

mod processes;
mod network;
mod brokers;
mod storage;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};

use super::{
    client::{InboxQuery, RecordingClient},
    history::{History, Violation},
    load::{ActiveUsers, Load},
    probe::{Recovery, measure_recovery},
    random::Random,
    scenario::Scenario,
    streams::StreamFleet,
};
use crate::world::home_partition;

use network::CutWays;

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
/// Interval between two reads from one certain consumer. Its answers arrive between others'.
const DIRECT_READ_INTERVAL: Duration = Duration::from_millis(50);
/// Timeout of a read from one certain consumer.
const DIRECT_READ_TIMEOUT: Duration = Duration::from_secs(5);
/// A longer round is given up.
const ROUND_TIMEOUT: Duration = Duration::from_secs(240);

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
    /// Open streams.
    pub streams: usize,
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
            let mut random = Random::new(self.random.next_number(), "streams");
            let streams = StreamFleet::open(&self.client, &self.people, plan.streams, &mut random);
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
            streams.close().await;
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
            Scenario::Cut => self.cut_one_off(CutWays::Both).await?,
            Scenario::CutOneWay => self.cut_one_off(CutWays::One).await?,
            Scenario::Late => self.delay_answers().await?,
            Scenario::Peers => self.cut_from_peers().await?,
            Scenario::Postgres => self.cut_postgres().await?,
            Scenario::Retention => self.remove_half_of_the_log().await?,
            Scenario::Recreate => self.recreate_topic().await?,
            Scenario::Brokers => self.kill_each_broker().await?,
            Scenario::Coordinator => self.kill_coordinator_and_consumer().await?,
            Scenario::TwoBrokers => self.kill_two_brokers().await?,
            Scenario::Elections => self.restart_each_broker().await?,
            Scenario::Disk => self.fill_disks().await?,
        }
        self.client.cluster.await_all_ready().await?;
        sleep(CALM_DURATION / 2).await;
        Ok(())
    }

    /// Opens a connection to this consumer for each of these users, and uses it once.
    pub(super) async fn open_connections(
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

    /// Reads each of these inboxes from this consumer for this long, whatever its state.
    pub(super) fn ask_directly(
        instance: usize,
        connections: Vec<(i64, RecordingClient)>,
        lasting: Duration,
    ) -> tokio::task::JoinSet<()> {
        let mut asked = tokio::task::JoinSet::new();
        for (user, client) in connections {
            asked.spawn(async move {
                let again = async {
                    let timeout = DIRECT_READ_TIMEOUT;
                    loop {
                        let query = InboxQuery { user, instance, at_least: None, timeout };
                        client.read_inbox(query).await;
                        sleep(DIRECT_READ_INTERVAL).await;
                    }
                };
                let _: Result<(), _> = timeout(lasting, again).await;
            });
        }
        asked
    }

    pub(super) async fn await_recovery(&mut self, users: &[i64], fault: Duration, right: Recovery) {
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
        for how in dead.chain(cluster.take_broker_exit_reports()) {
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
