//! Processes that are killed, frozen, restarted and scaled.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{CALM_DURATION, DIRECT_READ_TIMEOUT, PROBE_SENDER, Recovery, ScenarioRun};

/// Longer than a consumer's session timeout (10 s).
const FREEZE_DURATION: Duration = Duration::from_secs(12);

impl ScenarioRun {
    pub(super) async fn kill_producer(&mut self) -> Result<(), String> {
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

    pub(super) async fn kill_consumer(&mut self) -> Result<(), String> {
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

    pub(super) async fn kill_broker(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let pause = cluster.random_duration(Duration::from_secs(2));
        let fault = self.announce_fault("kill -9 the broker");
        cluster.kafka.kill(&[0]).await?;
        sleep(pause).await;
        let users = self.pick_users();
        let journal = Arc::clone(&self.client.journal);
        let start = async {
            cluster.kafka.start_again(&[0]).await?;
            journal.print_event("the broker answers again");
            Ok::<_, String>(journal.now().saturating_sub(fault))
        };
        let recover = self.await_recovery(&users, fault, Recovery::Sends { from: PROBE_SENDER });
        let (started, ()) = tokio::join!(start, recover);
        self.broker.push(started?);
        Ok(())
    }

    pub(super) async fn pause_consumer(&mut self) -> Result<(), String> {
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
        let asked = Self::ask_directly(victim, connections, DIRECT_READ_TIMEOUT);
        sleep(Duration::from_millis(300)).await;
        self.print_event(&format!("SIGCONT consumer {victim}"));
        cluster.consumers[victim].resume()?;
        asked.join_all().await;
        Ok(())
    }

    pub(super) async fn restart_each_consumer(&mut self) -> Result<(), String> {
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

    pub(super) async fn scale_down_and_up(&mut self) -> Result<(), String> {
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
}
