//! Keeps the view in step with the log: makes sure of the topics, joins the group, follows what
//! belongs to the partitions that it gets, and knows whether all that works.

use std::{sync::Arc, time::Duration};

use event_log::{Assigner, Follower, Group, Log, Reader, Topic, topic::Cleanup};
use model::TopicNames;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    RunError, Settings,
    apply::{AssignmentListener, NotificationApplier, ReceiptApplier},
    owners::{Owners, OwnersFold},
    snapshot::SnapshotManager,
    view::{PartitionStatus, View},
};

/// How long to wait before a log that is away is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long the log may take to answer a probe.
const PING: Duration = Duration::from_millis(1500);
/// How often what is too old is looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// How long snapshots stay in memory that were read for partitions which others have.
const FORGET_AFTER: Duration = Duration::from_secs(5 * 60);
/// How long the end of the process waits for the last snapshots: a gigabyte on a slow disk. What is
/// not written by then is read from the log by the next start.
const LAST_SNAPSHOTS: Duration = Duration::from_secs(10);
/// How long the last announcements may take when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The view's connection to the log. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct ViewSubscriptions {
    view: Arc<View>,
    log: Log,
    names: Arc<TopicNames>,
    owners: Owners,
    running: Arc<Mutex<Option<Running>>>,
    /// What goes on between [`leave`](Following::leave) and [`stop`](Following::stop).
    leaving: Arc<Mutex<Option<(Follower, Option<Arc<SnapshotManager>>)>>>,
}

/// What must be stopped.
struct Running {
    notifications: Reader,
    receipts: Follower,
    owners: Follower,
    snapshots: Option<Arc<SnapshotManager>>,
    tasks: Vec<JoinHandle<()>>,
}

impl ViewSubscriptions {
    /// Not started yet.
    #[must_use]
    pub fn new(view: Arc<View>, log: Log, names: TopicNames, owners: Owners) -> Self {
        Self {
            view,
            log,
            names: Arc::new(names),
            owners,
            running: Arc::default(),
            leaving: Arc::default(),
        }
    }

    /// Waits for the log, makes sure of the topics and joins the group.
    ///
    /// # Errors
    /// [`RunError`], when a topic is wrong.
    pub async fn start(&self, settings: &Settings) -> Result<(), RunError> {
        let topics = [
            settings.topics.topic(&self.names.notifications),
            settings.topics.topic(&self.names.receipts),
            settings.topics.topic(&self.names.dlq),
            Topic {
                partitions: 1,
                cleanup: Cleanup::Compact,
                ..settings.topics.topic(&self.names.owners)
            },
        ];
        // Snapshots are read before the group is joined: a partition that is assigned cannot wait.
        let (there, snapshots) =
            tokio::join!(self.log.await_topics(&topics, ASK_AGAIN), self.restore(settings));
        there?;

        let owners = self.log.follow_topic(&self.names.owners, OwnersFold::into(&self.owners))?;
        owners.assign(0);

        let fold = ReceiptApplier::new(
            Arc::clone(&self.view),
            self.names.receipts.clone(),
            self.owners.clone(),
            snapshots.is_some(),
        );
        let receipts = self.log.follow_topic(&self.names.receipts, fold)?;

        let ownership = Companions { owners: self.owners.clone(), receipts: receipts.assigner() };
        let fold = NotificationApplier::new(
            Arc::clone(&self.view),
            self.names.notifications.clone(),
            ownership,
            snapshots.clone(),
        );
        let group = Group::from(&settings.group);
        let notifications =
            self.log.join_group(&self.names.notifications, &group, Some(&self.names.dlq), fold)?;

        let announce = self.owners.clone().announce(self.log.writer(), self.names.owners.clone());
        let view = Arc::clone(&self.view);
        let expire = async move {
            loop {
                tokio::time::sleep(EXPIRE_EVERY).await;
                view.expire_entries();
            }
        };
        let watch = crate::progress::watch(Arc::clone(&self.view), self.log.clone());
        let mut tasks = vec![tokio::spawn(announce), tokio::spawn(expire), tokio::spawn(watch)];
        if let Some(snapshots) = snapshots.clone() {
            let every = settings.snapshots.snapshot_every;
            if !every.is_zero() {
                let (view, settling) = (Arc::clone(&self.view), notifications.committed_offsets());
                tasks.push(tokio::spawn(
                    Arc::clone(&snapshots).run_periodically(every, view, settling),
                ));
            }
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep(FORGET_AFTER).await;
                // Freeing much takes a while.
                let _ = tokio::task::spawn_blocking(move || snapshots.drop_loaded()).await;
            }));
        }
        *self.running.lock() = Some(Running { notifications, receipts, owners, snapshots, tasks });
        Ok(())
    }

    /// Reads the snapshots, where some are kept.
    async fn restore(&self, settings: &Settings) -> Option<Arc<SnapshotManager>> {
        let folder = settings.snapshots.snapshots.as_ref()?;
        let about = settings.about(&self.names);
        match SnapshotManager::open(folder, about) {
            Ok(snapshots) => {
                snapshots.load_all().await;
                Some(snapshots)
            }
            Err(error) => {
                tracing::warn!(
                    folder = %folder.display(), %error,
                    "no snapshots are kept: the folder in --snapshots (CONSUMER_SNAPSHOTS) cannot \
                     be used. Each start reads everything",
                );
                None
            }
        }
    }

    /// Leaves the group and says so to the peers. From then on every request is passed on to the
    /// next owners, whom this instance still gets to know.
    pub async fn leave(&self) {
        let Some(running) = self.running.lock().take() else { return };
        let Running { notifications, receipts, owners, snapshots, tasks } = running;
        *self.leaving.lock() = Some((owners, snapshots));
        for task in tasks {
            task.abort();
        }
        notifications.stop().await;
        let (writer, topic) = (self.log.writer(), &self.names.owners);
        let said =
            tokio::time::timeout(LAST_WORDS, self.owners.announce_open(&writer, topic)).await;
        if !matches!(said, Ok(Ok(()))) {
            tracing::debug!("the peers were not told; they find out by asking");
        }
        receipts.stop().await;
    }

    /// Ends what [`leave`](Self::leave) left, after the last request. The snapshots are written by
    /// then, or given up.
    pub async fn stop(&self) {
        let Some((owners, snapshots)) = self.leaving.lock().take() else { return };
        owners.stop().await;
        if let Some(snapshots) = snapshots {
            snapshots.finish_writes(LAST_SNAPSHOTS).await;
        }
    }

    /// For `/readyz`: whether the log answers.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn check_log(self) -> Result<Value, String> {
        self.log.ping(PING).await.map(|()| Value::Null).map_err(|error| error.to_string())
    }

    /// For `/readyz`: whether this instance answers for every partition that it owns.
    ///
    /// # Errors
    /// How far the rebuild is.
    pub async fn check_partitions(self) -> Result<Value, String> {
        match &*self.running.lock() {
            None => return Err("not a member of the group: waiting for the log, or leaving".into()),
            Some(running) if !running.is_sound() => {
                return Err("a reader of the log has ended; restart this instance".into());
            }
            Some(running) => {
                if let Some(trouble) = running.notifications.trouble() {
                    return Err(trouble);
                }
            }
        }
        let (mut live, mut rebuilding) = (0, Vec::new());
        for (number, partition) in self.view.partitions() {
            match partition.status() {
                PartitionStatus::Live { .. } => live += 1,
                PartitionStatus::Rebuilding(progress) => rebuilding.push((number, progress)),
                PartitionStatus::Unowned => {}
            }
        }
        if let Some((number, progress)) = rebuilding.first() {
            let all = live + rebuilding.len();
            let percent =
                progress.percent.map_or_else(|| "?".into(), |percent| format!("{percent:.0}"));
            return Err(format!(
                "{live} of {all} partitions are live; partition {number} is at {percent} %"
            ));
        }
        // With more instances than partitions some have none, and forward everything.
        if live == 0
            && !self.view.partitions().any(|(number, _)| self.owners.peer(number).is_some())
        {
            return Err("waiting for the group to assign partitions".into());
        }
        Ok(json!({ "live": live }))
    }
}

impl Running {
    fn is_sound(&self) -> bool {
        self.notifications.is_running() && self.receipts.is_running() && self.owners.is_running()
    }
}

/// What goes along with a partition of the notifications: the peers are told, and the same
/// partition of the receipts is read.
struct Companions {
    owners: Owners,
    receipts: Assigner,
}

impl AssignmentListener for Companions {
    fn on_assigned(&self, partition: i32) {
        self.receipts.assign(partition);
        self.owners.on_assigned(partition);
    }

    fn on_live(&self, partition: i32) {
        self.owners.on_live(partition);
    }

    fn on_revoked(&self, partition: i32) {
        self.receipts.revoke(partition);
        self.owners.on_revoked(partition);
    }
}
