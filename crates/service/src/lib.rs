//! What any process here needs around its own work, and nothing of what that work is: this crate
//! does not know what a notification is, nor Kafka, nor SQL.
//!
//! The modules in the order in which a process, and then a request, meets them:
//! - [`cli`]: settings, `main`, signals;
//! - [`ops`]: logs, traces, metrics, health, canary;
//! - [`server`]: listening, connections, limits, request log;
//! - [`extract`]: what a handler takes from a request;
//! - [`auth`]: who asks;
//! - [`problem`]: the one body of every error;
//! - [`openapi`]: `/openapi.json` and `/docs`.

pub mod cli;
pub mod ops;
pub mod server;
pub mod extract;
pub mod auth;
pub mod problem;
pub mod openapi;

pub use problem::Problem;
