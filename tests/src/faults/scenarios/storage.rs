//! Logs that are shortened or made again, and disks that are full.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{PROBE_SENDER, Recovery, ScenarioRun};
use crate::faults::cluster::SMALL_DISK_CONSUMER;

/// The group's session (10 s) ends within this time, so that rebuilds by other consumers and by the
/// restarted one are met.
const MAX_PAUSE: Duration = Duration::from_secs(12);
/// How long a disk stays full: longer than the producer's timeout for an acknowledgement (10 s).
const FULL_DURATION: Duration = Duration::from_secs(12);

impl ScenarioRun {
    /// A killed consumer's partitions are rebuilt, from the log and from snapshots, while retention
    /// removes half of it.
    pub(super) async fn remove_half_of_the_log(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let victim = cluster.pick_running_consumer();
        let users = self.users_on(victim).await;
        let pause = cluster.random_duration(MAX_PAUSE);
        let what = format!("kill -9 consumer {victim}, and retention removes half of the log");
        let fault = self.announce_fault(&what);
        cluster.consumers[victim].kill().await?;
        let remove = async {
            sleep(pause).await;
            let low_offsets = cluster.kafka.fetch_middle_offsets(&cluster.topic).await?;
            cluster.consumers[victim].start()?;
            self.client.history.lock().forget_below(&low_offsets);
            cluster.kafka.delete_records(&cluster.topic, &low_offsets).await
        };
        remove.await?;
        self.await_recovery(&users, fault, Recovery::Reads).await;
        Ok(())
    }

    pub(super) async fn recreate_topic(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let fault = self.announce_fault("delete the topic and make it again");
        let history = Arc::clone(&self.client.history);
        history.lock().forget_all();
        cluster.kafka.recreate_topic(&cluster.topic).await?;
        // Sends up to now may have been written to the old log.
        history.lock().forget_all();
        self.print_event("the topic exists again");
        let users = self.pick_users();
        self.await_recovery(&users, fault, Recovery::Sends { from: PROBE_SENDER }).await;
        Ok(())
    }

    /// First the disk of a consumer's snapshots, while it restarts; then the broker's.
    pub(super) async fn fill_disks(&mut self) -> Result<(), String> {
        let cluster = Arc::clone(&self.client.cluster);
        let victim = SMALL_DISK_CONSUMER;
        let users = self.users_on(victim).await;
        let fault = self.announce_fault(&format!(
            "fill the disk of the snapshots of consumer {victim}, and kill -9 it"
        ));
        cluster.snapshots_disk()?.fill()?;
        cluster.consumers[victim].kill().await?;
        cluster.consumers[victim].start()?;
        self.await_recovery(&users, fault, Recovery::Reads).await;
        cluster.await_all_ready().await?;
        cluster.snapshots_disk()?.free()?;

        let fault = self.announce_fault("fill the disk of the broker");
        cluster.kafka.disk()?.fill()?;
        // The last block of each file still takes some records. Later ones are refused.
        sleep(FULL_DURATION).await;
        cluster.kafka.disk()?.free()?;
        // A broker whose only disk failed has ended, or takes no more writes.
        cluster.kafka.kill(&[0]).await?;
        cluster.kafka.remove_group_offsets()?;
        cluster.kafka.start_again(&[0]).await?;
        let users = self.pick_users();
        self.await_recovery(&users, fault, Recovery::Sends { from: PROBE_SENDER }).await;
        Ok(())
    }
}
