//! `GET /partitions`: the state of every partition on this instance, and its owner.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::Serialize;
use service::openapi::CommonProblems;
use utoipa::ToSchema;

use super::app::App;
use crate::view::PartitionStatus;

/// Time for the log to return the end offsets; without them the lag is left out.
const END_OFFSETS_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Serialize, ToSchema)]
#[schema(as = Partitions)]
pub(super) struct PartitionsBody {
    partitions: Vec<PartitionRow>,
}

/// A partition on this instance.
#[derive(Serialize, ToSchema)]
#[schema(as = Partition)]
struct PartitionRow {
    partition: i32,
    /// `state`: `unowned`, `rebuilding` (with its progress), `live` (with `users`, `position`), or
    /// `behind` (it cannot follow its log, so its users are answered 503; with `since`, `cause`,
    /// `position`).
    #[serde(flatten)]
    #[schema(value_type = Object)]
    status: PartitionStatus,
    /// Records in the log that this instance has not applied yet, without those that an unfinished
    /// transaction hides. Null if the partition is neither live nor behind here, or the log does not
    /// answer.
    lag: Option<i64>,
    /// URL of the instance that owns the partition, as far as this one knows.
    owner: Option<String>,
}

/// Every partition: its state on this instance, and its owner
#[utoipa::path(get, path = "/partitions", tag = "operation", operation_id = "partitions",
    responses((status = 200, description = "All partitions", body = PartitionsBody), CommonProblems))]
pub(super) async fn list_partitions(State(app): State<Arc<App>>) -> Json<PartitionsBody> {
    let lags = fetch_lags(&app).await;
    let partitions = app.view.partitions().map(|(partition, state)| PartitionRow {
        partition,
        status: state.status(),
        lag: lags.get(&partition).copied(),
        owner: app.ownership.find_owner(partition).map(|claim| claim.url),
    });
    Json(PartitionsBody { partitions: partitions.collect() })
}

/// The number of records in the log that are not in the view, by partition that is live or behind
/// here. Empty
/// if the log does not answer in time.
pub(super) async fn fetch_lags(app: &App) -> BTreeMap<i32, i64> {
    let live = app.view.partitions().filter_map(|(number, partition)| match partition.status() {
        PartitionStatus::Live { position, .. } | PartitionStatus::Behind { position, .. } => {
            Some((number, position))
        }
        PartitionStatus::Unowned | PartitionStatus::Rebuilding(_) => None,
    });
    let (numbers, positions): (Vec<_>, Vec<_>) = live.unzip();
    let ends = app.log.fetch_end_offsets(&app.topic, &numbers, END_OFFSETS_TIMEOUT).await;
    let ends = ends.unwrap_or_default().into_iter().zip(positions);
    numbers.into_iter().zip(ends.map(|(end, position)| (end - 1 - position).max(0))).collect()
}
