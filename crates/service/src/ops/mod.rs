//! Everything for operators: logs, traces, metrics, health, canary.

pub mod printable;
pub mod telemetry;
pub mod trace;
pub mod metrics;
pub mod health;
pub mod canary;
