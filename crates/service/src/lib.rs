//! Everything a service needs around its own work. This crate knows nothing of notifications, Kafka
//! or SQL.

pub mod cli;
pub mod ops;
pub mod server;
pub mod extract;
pub mod auth;
pub mod problem;
pub mod openapi;

pub use problem::Problem;
