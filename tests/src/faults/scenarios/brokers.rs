//! Three brokers that are killed or restarted.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{PROBE_SENDER, Recovery, ScenarioRun};

/// The longest time for which a killed broker stays down.
const MAX_DOWN: Duration = Duration::from_secs(5);
/// The shortest time for which two brokers stay down.
const MIN_TWO_DOWN: Duration = Duration::from_secs(4);

impl ScenarioRun {
    pub(super) async fn kill_each_broker(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        for number in 0..cluster.kafka.count() {
            cluster.kafka.await_in_sync(&cluster.topic).await?;
            let down = cluster.random_duration(MAX_DOWN);
            let fault = self.announce_fault(&format!("kill -9 broker {number}"));
            cluster.kafka.kill(&[number]).await?;
            self.restart_brokers_after(&[number], down, fault).await?;
        }
        cluster.kafka.await_in_sync(&cluster.topic).await
    }

    pub(super) async fn kill_coordinator_and_consumer(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        cluster.kafka.await_in_sync(&cluster.topic).await?;
        let broker = cluster.kafka.find_coordinator(&cluster.group).await?;
        let victim = cluster.pick_running_consumer();
        let users = self.users_on(victim).await;
        let down = cluster.random_duration(MAX_DOWN);
        let fault = self.announce_fault(&format!("kill -9 broker {broker} and consumer {victim}"));
        let coordinator = [broker];
        let kill = cluster.kafka.kill(&coordinator);
        tokio::try_join!(kill, cluster.consumers[victim].kill())?;
        let restart = async {
            sleep(down).await;
            cluster.consumers[victim].start()?;
            cluster.kafka.start_again(&[broker]).await
        };
        let (restarted, ()) =
            tokio::join!(restart, self.await_recovery(&users, fault, Recovery::Reads));
        restarted?;
        cluster.kafka.await_in_sync(&cluster.topic).await
    }

    /// With one of three replicas, and one of three controllers, no send can be acknowledged.
    pub(super) async fn kill_two_brokers(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        cluster.kafka.await_in_sync(&cluster.topic).await?;
        let stays = self.random.next_below(cluster.kafka.count());
        let others: Vec<_> = (0..cluster.kafka.count()).filter(|number| *number != stays).collect();
        let down = MIN_TWO_DOWN + cluster.random_duration(MAX_DOWN);
        let fault = self.announce_fault(&format!("kill -9 brokers {others:?}"));
        cluster.kafka.kill(&others).await?;
        self.restart_brokers_after(&others, down, fault).await?;
        cluster.kafka.await_in_sync(&cluster.topic).await
    }

    pub(super) async fn restart_each_broker(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        for number in 0..cluster.kafka.count() {
            cluster.kafka.await_in_sync(&cluster.topic).await?;
            let fault = self.announce_fault(&format!("SIGTERM broker {number}"));
            cluster.kafka.stop(number).await?;
            self.restart_brokers_after(&[number], Duration::ZERO, fault).await?;
            // It leads its partitions again after an election.
            cluster.kafka.await_in_sync(&cluster.topic).await?;
        }
        Ok(())
    }

    /// Starts these brokers after a time, while probes send until they are acknowledged and seen.
    async fn restart_brokers_after(
        &mut self,
        numbers: &[usize],
        down: Duration,
        fault: Duration,
    ) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let journal = Arc::clone(&self.client.journal);
        let users = self.pick_users();
        let start = async {
            sleep(down).await;
            cluster.kafka.start_again(numbers).await?;
            journal.print_event(&format!("brokers {numbers:?} answer again"));
            Ok::<_, String>(journal.now().saturating_sub(fault))
        };
        let recover = self.await_recovery(&users, fault, Recovery::Sends { from: PROBE_SENDER });
        let (started, ()) = tokio::join!(start, recover);
        self.broker.push(started?);
        Ok(())
    }
}
