//! The view without a broker: the appliers are driven by hand, and readers see the result.

mod ages;
mod behind;
mod fuzz;
mod interleaving;
mod reads;
mod snapshots;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use consumer::{
    apply::{AssignmentListener, NotificationApplier, ReceiptApplier},
    snapshot::SnapshotManager,
    view::{
        Feed, Limits, NotLive, Page, PageQuery, PartitionTotals, Selector, Since, View,
        feed::{EndReason, FeedEvent},
        page::{FeedStart, GapReason},
    },
};
use event_log::{PartitionHandler, Record, RecordOutcome, Watermarks};
use jiff::Timestamp;
use model::{
    Action, Cursor, Fingerprint, Headers, Notification, NotificationId, Partitioner, Receipt, User,
    UserId,
    record::{MAX_VALUE_BYTES, encode_notification, encode_receipt},
};

const NOW: Duration = Duration::ZERO;
/// Longer than any test.
const LONG_LEASE: Duration = Duration::from_secs(3600);

/// These tests have no other instances to announce assignments to.
struct NoListener;

impl AssignmentListener for NoListener {
    fn on_assigned(&self, _: i32) {}
    fn on_live(&self, _: i32) {}
    fn on_revoked(&self, _: i32) {}
}

/// A view of one partition and its two appliers, driven by hand.
struct Bench {
    view: Arc<View>,
    notifications: NotificationApplier<NoListener>,
    receipts: ReceiptApplier<NoListener>,
}

fn user(id: i64) -> UserId {
    UserId::new(id).expect("positive")
}

fn id(n: usize) -> NotificationId {
    NotificationId::from_text(&format!("id-{n}")).expect("short")
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self::with_snapshots(1, limits, None)
    }

    /// A view of this many partitions, not assigned yet.
    fn with_snapshots(
        partitions: u32,
        limits: Limits,
        snapshots: Option<Arc<SnapshotManager>>,
    ) -> Self {
        let view = Arc::new(View::new(partitions, Partitioner::default(), limits));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(Arc::clone(&view).deliver_wakeups());
        }
        let receipts = ReceiptApplier::new(
            Arc::clone(&view),
            "receipts".into(),
            NoListener,
            snapshots.is_some(),
        );
        let mut notifications = NotificationApplier::new(
            Arc::clone(&view),
            "notifications".into(),
            NoListener,
            snapshots,
        );
        notifications.renew_lease(Instant::now() + LONG_LEASE);
        Self { view, notifications, receipts }
    }

    /// Live and empty.
    fn live(limits: Limits) -> Self {
        let mut bench = Self::new(limits);
        bench.assign(0);
        bench.go_live();
        bench
    }

    fn assign(&mut self, low: i64) {
        self.notifications.on_assigned(0);
        self.notifications.on_watermarks(0, Watermarks { low, high: low });
        self.receipts.on_assigned(0);
        self.receipts.on_watermarks(0, Watermarks { low: 0, high: 0 });
    }

    fn go_live(&mut self) {
        self.notifications.on_live(0);
        self.receipts.on_live(0);
    }

    /// A notification with this id for user `to`, sent so many seconds ago.
    fn notify(&mut self, offset: i64, to: i64, id: NotificationId, ago: i64) -> RecordOutcome {
        self.notify_keyed(offset, to, id, ago, None)
    }

    /// The same with a fingerprint, as if its sender had given an Idempotency-Key.
    fn notify_keyed(
        &mut self,
        offset: i64,
        to: i64,
        id: NotificationId,
        ago: i64,
        fingerprint: Option<Fingerprint>,
    ) -> RecordOutcome {
        let sent_at = Timestamp::now() - jiff::SignedDuration::from_secs(ago);
        let headers = Headers { id, sent_at, traceparent: None, fingerprint };
        self.notify_stamped(offset, to, &headers, sent_at.as_millisecond())
    }

    /// The same with these headers and this timestamp of the record.
    fn notify_stamped(
        &mut self,
        offset: i64,
        to: i64,
        headers: &Headers,
        timestamp_ms: i64,
    ) -> RecordOutcome {
        let from = User { id: user(9), name: "Nine".into() };
        let to = User { id: user(to), name: "To".into() };
        let notification = Notification {
            category: Some(if offset % 2 == 0 { "even" } else { "odd" }.into()),
            ..Notification::new(from, to, format!("at {offset}"))
        };
        let record = encode_notification(&notification, headers).expect("JSON");
        let headers = record.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        self.notifications.on_record(&Record {
            partition: 0,
            offset,
            timestamp_ms,
            key: Some(&record.key),
            value: Some(&record.value),
            headers,
        })
    }

    fn receipt(&mut self, offset: i64, to: i64, action: Action, ids: Vec<NotificationId>) {
        let headers = Headers {
            id: NotificationId::generate(),
            sent_at: Timestamp::now(),
            traceparent: None,
            fingerprint: None,
        };
        let receipt = Receipt { user_id: user(to), action, ids };
        let record = encode_receipt(&receipt, &headers).expect("JSON");
        self.receipts.on_record(&Record {
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Some(&record.key),
            value: Some(&record.value),
            headers: smallvec::SmallVec::new(),
        });
    }

    async fn read(&self, to: i64, query: &PageQuery) -> Result<Page, NotLive> {
        self.view.read_page(user(to), query, NOW).await
    }

    async fn offsets(&self, to: i64, query: &PageQuery) -> Vec<i64> {
        let page = self.read(to, query).await.expect("live");
        page.items.iter().map(|item| item.at.offset).collect()
    }
}

fn totals(bench: &Bench) -> PartitionTotals {
    bench.view.partition(0).expect("the only partition").totals()
}

fn since(offset: i64) -> PageQuery {
    PageQuery { since: Since::Cursor(Cursor::new(0, offset)), ..PageQuery::default() }
}
