//! What any process here needs around its own work, and nothing of what that work is: this crate
//! does not know what a notification is, nor Kafka, nor SQL.
//!
//! The modules in the order in which a process, and then a request, meets them:
//! - [`settings`]: `.env`, secrets, durations;
//! - [`telemetry`]: logs on standard error;
//! - [`trace`]: spans for a collector, and the context that goes from one process to the next;
//! - [`program`]: from the first line of `main` to its exit code;
//! - [`shutdown`]: the token that SIGINT and SIGTERM cancel;
//! - [`listen`]: which addresses may be listened on, and what it says when one cannot;
//! - [`http`]: the server: connections, limits, drain;
//! - [`metrics`]: what is counted, as text for Prometheus;
//! - [`endless`]: responses that may go on for ever, outside hyper;
//! - [`admission`]: who is let in while there is much to do;
//! - [`extract`]: what a handler takes from a request;
//! - `gate`: a check in front of handlers;
//! - [`auth`]: who asks;
//! - [`origin`]: which page made a browser ask;
//! - [`problem`]: what it answers when it cannot;
//! - [`fallback`]: the same answer for what never reaches a handler, or leaves it by a panic;
//! - [`openapi`]: `/openapi.json` and `/docs`;
//! - [`health`]: `/livez`, `/readyz` and the probe that asks them;
//! - [`canary`]: tries the whole way again and again.

pub mod settings;
pub mod telemetry;
pub mod trace;
pub mod program;
pub mod shutdown;
pub mod listen;
pub mod http;
pub mod metrics;
pub mod endless;
mod request_log;
pub mod admission;
pub mod extract;
mod gate;
pub mod auth;
pub mod origin;
pub mod problem;
pub mod fallback;
pub mod openapi;
pub mod health;
pub mod canary;

pub use problem::Problem;
