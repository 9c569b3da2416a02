//! `GET /partitions`: every partition, what it does here, and who owns it.

use axum::{Json, extract::State};
use serde::Serialize;

use super::App;
use crate::view::partition::Status;

#[derive(Serialize)]
pub(super) struct Partitions {
    partitions: Vec<Partition>,
}

#[derive(Serialize)]
struct Partition {
    partition: i32,
    #[serde(flatten)]
    status: Status,
    /// The URL of the instance that owns it, as far as this one knows.
    owner: Option<String>,
}

pub(super) async fn list(State(app): State<App>) -> Json<Partitions> {
    let partitions = app.view.partitions().map(|(partition, state)| Partition {
        partition,
        status: state.status(),
        owner: app.owners.of(partition).map(|claim| claim.url),
    });
    Json(Partitions { partitions: partitions.collect() })
}
