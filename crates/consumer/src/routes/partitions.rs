//! `GET /partitions`: what this instance owns, and how far it is.

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
}

pub(super) async fn list(State(app): State<App>) -> Json<Partitions> {
    let partitions = app
        .view
        .partitions()
        .map(|(partition, state)| Partition { partition, status: state.status() })
        .collect();
    Json(Partitions { partitions })
}
