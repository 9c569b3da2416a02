//! Everything a service needs around its own work. This crate knows nothing of notifications, Kafka
//! or SQL.
//!
//! The modules in the order in which a process, and then a request, meets them:
//!
//! - [`cli`]: settings, `main`, signals;
//! - [`ops`]: logs, traces, metrics, health, canary;
//! - [`server`]: listener, connections, limits, request log;
//! - [`extract`]: extractors for bodies, paths and queries;
//! - [`auth`]: authentication by JSON Web Tokens;
//! - [`problem`]: the body of every error;
//! - [`openapi`]: `/openapi.json` and `/docs`.

pub mod cli;
pub mod ops;
pub mod server;
pub mod extract;
pub mod auth;
pub mod problem;
pub mod openapi;

pub use problem::Problem;
