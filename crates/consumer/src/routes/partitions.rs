//! `GET /partitions`: every partition, what it does here, and who owns it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use serde::Serialize;
use service::openapi::Refused;
use utoipa::ToSchema;

use super::App;
use crate::view::PartitionStatus;

/// How long the log may take to say where its partitions end; after that the lag is left out.
const DEADLINE: Duration = Duration::from_secs(1);

#[derive(Serialize, ToSchema)]
pub(super) struct Partitions {
    partitions: Vec<Partition>,
}

/// What a partition does here.
#[derive(Serialize, ToSchema)]
struct Partition {
    partition: i32,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    status: PartitionStatus,
    /// Records that the log has and this instance has not folded yet; none where it owns nothing,
    /// or the log does not say.
    lag: Option<i64>,
    /// The URL of the instance that owns it, as far as this one knows.
    owner: Option<String>,
}

/// Every partition: what it does here, and who owns it
#[utoipa::path(get, path = "/partitions", tag = "operation", operation_id = "partitions",
    responses((status = 200, description = "All of them", body = Partitions), Refused))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Json<Partitions> {
    let lags = lags(&app).await;
    let partitions = app.view.partitions().map(|(partition, state)| Partition {
        partition,
        status: state.status(),
        lag: lags.get(&partition).copied(),
        owner: app.owners.of(partition).map(|claim| claim.url),
    });
    Json(Partitions { partitions: partitions.collect() })
}

/// How many records each partition that is live here has in the log and not in the view. None where
/// the log does not say.
pub(super) async fn lags(app: &App) -> BTreeMap<i32, i64> {
    let live: Vec<_> = app
        .view
        .partitions()
        .filter_map(|(number, partition)| match partition.status() {
            PartitionStatus::Live { position, .. } => Some((number, position)),
            PartitionStatus::Unowned | PartitionStatus::Rebuilding(_) => None,
        })
        .collect();
    let numbers: Vec<_> = live.iter().map(|(number, _)| *number).collect();
    let ends = app.log.fetch_end_offsets(&app.topic, &numbers, DEADLINE).await.unwrap_or_default();
    let lag =
        |((number, position), end): (&(i32, i64), i64)| (*number, (end - 1 - position).max(0));
    live.iter().zip(ends).map(lag).collect()
}
