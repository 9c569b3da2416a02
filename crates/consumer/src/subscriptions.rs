//! The view's subscriptions: creates the topics, joins the group, reads the receipts of the assigned
//! partitions and the owners' topic, and answers the readiness checks about all of that.

use std::{sync::Arc, time::Duration};

use event_log::{Assigner, Follower, Group, Log, Reader, Topic, TopicError, topic::Cleanup};
use model::TopicNames;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    apply::{AssignmentListener, NotificationApplier, ReceiptApplier},
    cluster::ownership::{OwnersTopicHandler, OwnershipTable},
    progress::report_rebuilds,
    settings::ConsumerSettings,
    snapshot::SnapshotManager,
    view::{BehindSince, PartitionStatus, View},
};

/// Time between two attempts to reach the log at start.
const CONNECT_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Time for the log to answer a readiness check.
const PING_TIMEOUT: Duration = Duration::from_millis(1500);
/// Time between two removals of entries that are past the inbox's age.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(60);
/// Time for which snapshots of partitions that other instances own stay in memory.
const UNUSED_SNAPSHOT_TTL: Duration = Duration::from_secs(5 * 60);
/// Time at shutdown for the last snapshots: a gigabyte on a slow disk. The next start reads from
/// the log what is missing in them.
const LAST_SNAPSHOTS_TIMEOUT: Duration = Duration::from_secs(10);
/// Time at shutdown for the announcement of all releases.
const ANNOUNCE_RELEASES_TIMEOUT: Duration = Duration::from_secs(2);

/// The view's subscriptions to the topics. A cheap handle, to be cloned.
#[derive(Clone)]
pub(crate) struct ViewSubscriptions {
    view: Arc<View>,
    log: Log,
    names: Arc<TopicNames>,
    ownership: OwnershipTable,
    active: Arc<Mutex<Option<ActiveSubscriptions>>>,
}

struct ActiveSubscriptions {
    notifications: Reader,
    receipts: Follower,
    owners: Follower,
    snapshots: Option<Arc<SnapshotManager>>,
    tasks: Vec<JoinHandle<()>>,
}

impl ViewSubscriptions {
    /// Does not start them.
    pub(crate) fn new(
        view: Arc<View>,
        log: Log,
        names: TopicNames,
        ownership: OwnershipTable,
    ) -> Self {
        Self { view, log, names: Arc::new(names), ownership, active: Arc::default() }
    }

    /// Waits for the log, creates or checks the topics and joins the group.
    pub(crate) async fn start(&self, settings: &ConsumerSettings) -> Result<(), TopicError> {
        let Self { view, log, names, ownership, active } = self;
        let topic = |name: &str| settings.topics.topic(name);
        let owners = Topic { partitions: 1, cleanup: Cleanup::Compact, ..topic(&names.owners) };
        let topics =
            [topic(&names.notifications), topic(&names.receipts), topic(&names.dlq), owners];
        // Snapshots are loaded before the member joins: an assigned partition is read at once.
        let checked = log.await_topics(&topics, CONNECT_RETRY_INTERVAL);
        let (checked, snapshots) = tokio::join!(checked, self.load_snapshots(settings));
        checked?;

        let owners = log.follow_topic(&names.owners, OwnersTopicHandler::new(ownership))?;
        owners.assign(0);

        let (topic, listener) = (names.receipts.clone(), ownership.clone());
        let applier = ReceiptApplier::new(Arc::clone(view), topic, listener, snapshots.is_some());
        let receipts = log.follow_topic(&names.receipts, applier)?;

        let listener = CoAssigned { ownership: ownership.clone(), receipts: receipts.assigner() };
        let (topic, saved) = (names.notifications.clone(), snapshots.clone());
        let applier = NotificationApplier::new(Arc::clone(view), topic, listener, saved);
        let group = Group::from(&settings.group);
        let notifications = log.join_group(&topics[0], &group, Some(&names.dlq), applier)?;

        let announce = ownership.clone().run_announcer(log.writer(), names.owners.clone());
        let expiring = Arc::clone(view);
        let expire = async move {
            loop {
                tokio::time::sleep(EXPIRE_INTERVAL).await;
                expiring.expire_entries();
            }
        };
        let report = report_rebuilds(Arc::clone(view));
        let mut tasks = vec![tokio::spawn(announce), tokio::spawn(expire), tokio::spawn(report)];
        if let Some(snapshots) = snapshots.clone() {
            let interval = settings.snapshots.snapshot_every;
            if !interval.is_zero() {
                let (view, offsets) = (Arc::clone(view), notifications.committed_offsets());
                let write = Arc::clone(&snapshots).run_periodically(interval, view, offsets);
                tasks.push(tokio::spawn(write));
            }
            tasks.push(tokio::spawn(async move {
                tokio::time::sleep(UNUSED_SNAPSHOT_TTL).await;
                // Freeing gigabytes would block a thread of the runtime.
                let _ = tokio::task::spawn_blocking(move || snapshots.drop_loaded()).await;
            }));
        }
        *active.lock() =
            Some(ActiveSubscriptions { notifications, receipts, owners, snapshots, tasks });
        Ok(())
    }

    /// Loads the snapshots. `None` if the settings name no folder, or the folder is not usable.
    async fn load_snapshots(&self, settings: &ConsumerSettings) -> Option<Arc<SnapshotManager>> {
        let folder = settings.snapshots.snapshots.as_ref()?;
        let key = settings.snapshot_key(&self.names);
        match SnapshotManager::open(folder, key) {
            Ok(snapshots) => {
                snapshots.load_all().await;
                Some(snapshots)
            }
            Err(error) => {
                tracing::warn!(
                    folder = %folder.display(), %error,
                    "snapshots are off: the folder in --snapshots (CONSUMER_SNAPSHOTS) is not \
                     usable. Each start reads the whole log",
                );
                None
            }
        }
    }

    /// Leaves the group and announces the releases. This instance then forwards every request to
    /// the next owners, so it keeps reading the owners' topic. Returns the arguments of
    /// [`stop`](Self::stop).
    pub(crate) async fn leave_group(&self) -> Option<(Follower, Option<Arc<SnapshotManager>>)> {
        let active = self.active.lock().take()?;
        active.tasks.iter().for_each(JoinHandle::abort);
        active.notifications.stop().await;
        let (writer, topic) = (self.log.writer(), &self.names.owners);
        let announce = self.ownership.announce_pending(&writer, topic);
        let announced = tokio::time::timeout(ANNOUNCE_RELEASES_TIMEOUT, announce).await;
        if !matches!(announced, Ok(Ok(()))) {
            tracing::debug!("the releases were not announced; peers learn of them from a 421");
        }
        active.receipts.stop().await;
        Some((active.owners, active.snapshots))
    }

    /// Stops reading the owners' topic, after the last request, and waits for the last snapshots.
    pub(crate) async fn stop(owners: Follower, snapshots: Option<Arc<SnapshotManager>>) {
        owners.stop().await;
        if let Some(snapshots) = snapshots {
            snapshots.finish_writes(LAST_SNAPSHOTS_TIMEOUT).await;
        }
    }

    /// For `/readyz`: asks the log for its metadata.
    pub(crate) async fn check_log(self) -> Result<Value, String> {
        self.log.ping(PING_TIMEOUT).await.map(|()| Value::Null).map_err(|error| error.to_string())
    }

    /// For `/readyz`: checks that every partition that this instance owns is live.
    pub(crate) async fn check_partitions(self) -> Result<Value, String> {
        match &*self.active.lock() {
            None => return Err("not a member of the group: waiting for the log, or leaving".into()),
            Some(ActiveSubscriptions { notifications, receipts, owners, .. }) => {
                if !(notifications.is_running() && receipts.is_running() && owners.is_running()) {
                    return Err("a reader of the log has ended; restart this instance".into());
                }
                notifications.trouble().map_or(Ok(()), Err)?;
            }
        }
        if let Some((number, BehindSince { since, cause })) = self.view.find_behind() {
            return Err(format!("partition {number} is behind its log since {since}: {cause}"));
        }
        let (mut live, mut rebuilding) = (0, Vec::new());
        for (number, partition) in self.view.partitions() {
            match partition.status() {
                PartitionStatus::Live { .. } => live += 1,
                PartitionStatus::Rebuilding(progress) => rebuilding.push((number, progress)),
                PartitionStatus::Unowned | PartitionStatus::Behind { .. } => {}
            }
        }
        if let Some((number, progress)) = rebuilding.first() {
            let all = live + rebuilding.len();
            let percent = progress.percent.map_or("?".into(), |percent| format!("{percent:.0}"));
            return Err(format!(
                "{live} of {all} partitions are live; partition {number} is at {percent} %"
            ));
        }
        if live > 0 && !self.view.holds_lease() {
            return Err("the group's coordinator does not confirm that this instance owns its \
                        partitions"
                .into());
        }
        // With more instances than partitions, some own none and forward every request.
        let numbers = self.view.partitions().map(|(number, _)| number);
        if live == 0 && !self.ownership.has_peer_for_all(numbers) {
            return Err("waiting for the group to assign partitions".into());
        }
        Ok(json!({ "live": live }))
    }
}

/// Follows the assignment of the notifications' topic: announces ownership, and reads the same
/// partitions of the receipts' topic.
struct CoAssigned {
    ownership: OwnershipTable,
    receipts: Assigner,
}

impl AssignmentListener for CoAssigned {
    fn on_assigned(&self, partition: i32) {
        self.receipts.assign(partition);
        self.ownership.on_assigned(partition);
    }

    fn on_live(&self, partition: i32) {
        self.ownership.on_live(partition);
    }

    fn on_revoked(&self, partition: i32) {
        self.receipts.revoke(partition);
        self.ownership.on_revoked(partition);
    }
}
