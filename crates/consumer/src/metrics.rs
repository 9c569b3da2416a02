//! The metrics of a consumer: name, meaning and labels.
#![allow(missing_docs)] // The descriptions say what each constant is.

use metrics::{describe_counter, describe_gauge, describe_histogram};

pub const PARTITIONS: &str = "notifications_partitions";
pub const BEHIND_SECONDS: &str = "notifications_behind_seconds";
pub const LAG: &str = "notifications_lag_records";
pub const REBUILD_RECORDS: &str = "notifications_rebuild_records";
pub const REBUILD_SECONDS: &str = "notifications_rebuild_seconds";
pub const RECORDS_FOLDED: &str = "notifications_records_folded_total";
pub const INBOXES: &str = "notifications_inboxes";
pub const ENTRIES: &str = "notifications_entries";
pub const ENTRY_BYTES: &str = "notifications_entry_bytes";
pub const EVICTED: &str = "notifications_evicted_total";
pub const SNAPSHOT_SECONDS: &str = "notifications_snapshot_seconds";
pub const SNAPSHOT_BYTES: &str = "notifications_snapshot_bytes";
pub const SNAPSHOT_LAST_SUCCESS: &str = "notifications_snapshot_last_success_timestamp_seconds";
pub const RESTORED: &str = "notifications_restored_total";
pub const SNAPSHOTS_REFUSED: &str = "notifications_snapshots_refused_total";
pub const STREAMS: &str = "notifications_streams";
pub const DELIVERY_SECONDS: &str = "notifications_delivery_seconds";
pub const FORWARDED: &str = "notifications_forwarded_total";

/// Describes every metric of a consumer.
pub fn describe() {
    service::ops::metrics::describe_service();
    event_log::metrics::describe_clients();
    event_log::metrics::describe_reader();
    describe_gauge!(
        PARTITIONS,
        "Partitions by their state on this instance: `unowned`, `rebuilding`, `behind` (it cannot follow its log), `live`; labels: state"
    );
    describe_gauge!(
        BEHIND_SECONDS,
        "For how long a partition of this instance has been behind its log, the longest of all; 0 while none is. Requests about its inboxes are answered 503; /partitions has the causes"
    );
    describe_gauge!(
        LAG,
        "Records in the log that are not applied yet, of partitions that are live or behind, without those that an unfinished transaction hides; absent while the log does not answer; labels: partition"
    );
    describe_gauge!(
        REBUILD_RECORDS,
        "Records of the partitions that are being rebuilt: `done`, `total`; labels: kind"
    );
    describe_histogram!(REBUILD_SECONDS, "From the assignment of a partition until it is live");
    describe_counter!(
        RECORDS_FOLDED,
        "Records read from the log, replays included: `applied`, `duplicate`, `conflict` (an Idempotency-Key reused with other content), `misplaced` (in a partition that is not its recipient's), `poison`; `topic` is `notifications` or `receipts`; labels: topic, outcome"
    );
    describe_gauge!(INBOXES, "Inboxes in memory");
    describe_gauge!(ENTRIES, "Notifications in memory that are not dismissed");
    describe_gauge!(ENTRY_BYTES, "Bytes of JSON of the notifications in memory");
    describe_counter!(
        EVICTED,
        "Notifications that left an inbox, replays included: `entries` (newer ones took their place), `age`; labels: reason"
    );
    describe_histogram!(SNAPSHOT_SECONDS, "Time that writing the snapshot of a partition took");
    describe_gauge!(
        SNAPSHOT_BYTES,
        "Bytes of the snapshots that this process wrote, the newest of each partition"
    );
    describe_gauge!(
        SNAPSHOT_LAST_SUCCESS,
        "Time at which a snapshot was last written, in seconds since 1970"
    );
    describe_counter!(RESTORED, "Notifications that came from snapshots instead of the log");
    describe_counter!(
        SNAPSHOTS_REFUSED,
        "Snapshots that were not used: `format` (another version of this program), `settings` (other topics, partitions, group or limits), `damaged`, `unreadable`, `log` (another log than the one that is there); labels: reason"
    );
    describe_gauge!(
        STREAMS,
        "Live streams open: `sse`, `ndjson`, `ws`, `forwarded` (passed on from their owner); long polls: `wait`; labels: kind"
    );
    describe_histogram!(
        DELIVERY_SECONDS,
        "From the time of a notification until it was `applied` to a live partition, and until it was `pushed` to a stream; labels: stage"
    );
    describe_counter!(
        FORWARDED,
        "Requests forwarded to an owner: `answered`, `misdirected` (it is not the owner any more), `failed`; labels: outcome"
    );
}
