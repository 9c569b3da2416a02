//! Networks that are cut or slow. The processes keep running.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{PROBE_SENDER, PROBES_PER_FAULT, Recovery, ScenarioRun};
use crate::{
    faults::cluster::{PRODUCER_CLIENT, consumer_client},
    tcp_proxy::Direction,
};

/// Shortest cut: too short for the group's session (10 s).
const MIN_CUT: Duration = Duration::from_secs(3);
/// How much longer a cut may last: longer than the session.
const CUT_RANGE: Duration = Duration::from_secs(12);
/// Shortest delay of Kafka's answers.
const MIN_DELAY: Duration = Duration::from_secs(1);
/// How much longer the delay may be.
const DELAY_RANGE: Duration = Duration::from_secs(4);
/// How long Kafka's answers are late.
const DELAY_DURATION: Duration = Duration::from_secs(15);
/// How long a consumer is asked after its network is whole again.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// The directions of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CutWays {
    Both,
    One,
}

impl ScenarioRun {
    /// In one of four rounds, on average, the producer is cut off, otherwise a consumer.
    pub(super) async fn cut_one_off(&mut self, ways: CutWays) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let lasting = MIN_CUT + cluster.random_duration(CUT_RANGE);
        let (directions, how): (&[Direction], _) = match ways {
            CutWays::Both => (&[Direction::ToServer, Direction::ToClient], "both ways"),
            CutWays::One if self.random.next_below(2) == 0 => {
                (&[Direction::ToServer], "its requests")
            }
            CutWays::One => (&[Direction::ToClient], "its responses"),
        };
        let seconds = lasting.as_secs_f64();
        if self.random.next_below(4) == 0 {
            let fault =
                self.announce_fault(&format!("cut off the producer, {how}, for {seconds:.1} s"));
            cluster.kafka.cut(PRODUCER_CLIENT, directions);
            let users = self.pick_users();
            let recovery = self.await_recovery(&users, fault, PROBE_SENDS);
            tokio::join!(heal_after(&cluster, lasting), recovery);
            return Ok(());
        }
        let victim = cluster.pick_running_consumer();
        let client = consumer_client(victim);
        let what = format!("cut off consumer {victim}, {how}, for {seconds:.1} s");
        self.disturb_consumer(victim, &what, lasting, || cluster.kafka.cut(&client, directions))
            .await;
        Ok(())
    }

    pub(super) async fn delay_answers(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let victim = cluster.pick_running_consumer();
        let delay = MIN_DELAY + cluster.random_duration(DELAY_RANGE);
        let client = consumer_client(victim);
        let seconds = delay.as_secs_f64();
        let what = format!("Kafka answers consumer {victim} {seconds:.1} s late");
        let begin = || cluster.kafka.delay(&client, delay);
        self.disturb_consumer(victim, &what, DELAY_DURATION, begin).await;
        Ok(())
    }

    pub(super) async fn cut_from_peers(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let victim = cluster.pick_running_consumer();
        let lasting = MIN_CUT + cluster.random_duration(CUT_RANGE);
        let seconds = lasting.as_secs_f64();
        let what = format!("cut off consumer {victim} from its peers for {seconds:.1} s");
        self.disturb_consumer(victim, &what, lasting, || cluster.cut_from_peers(victim)).await;
        Ok(())
    }

    pub(super) async fn cut_postgres(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let lasting = MIN_CUT + cluster.random_duration(CUT_RANGE);
        let seconds = lasting.as_secs_f64();
        let fault = self.announce_fault(&format!("cut off PostgreSQL for {seconds:.1} s"));
        cluster.cut_postgres();
        let users = self.pick_users();
        let recovery = self.await_recovery(&users, fault, PROBE_SENDS);
        tokio::join!(heal_after(&cluster, lasting), recovery);
        Ok(())
    }

    /// Begins a fault of this consumer's network, and asks it directly until after its end.
    async fn disturb_consumer(
        &mut self,
        victim: usize,
        what: &str,
        lasting: Duration,
        begin: impl FnOnce(),
    ) {
        let cluster = Arc::clone(&self.client.cluster);
        let mut users = self.users_on(victim).await;
        users.truncate(PROBES_PER_FAULT);
        let connections = self.open_connections(victim, &users).await;
        let fault = self.announce_fault(what);
        begin();
        let asked = Self::ask_directly(victim, connections, lasting + AFTERWARDS);
        let recovery = self.await_recovery(&users, fault, PROBE_SENDS);
        tokio::join!(heal_after(&cluster, lasting), recovery, asked.join_all());
    }
}

/// Sends fail or are not seen meanwhile, so only a new one shows the recovery.
const PROBE_SENDS: Recovery = Recovery::Sends { from: PROBE_SENDER };

async fn heal_after(cluster: &crate::faults::cluster::ServiceCluster, lasting: Duration) {
    sleep(lasting).await;
    cluster.heal();
    cluster.print_event("the network is whole again");
}
