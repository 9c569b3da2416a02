//! The specification, end to end: whole services on free ports, tested over HTTP.
//!
//! The tests of [`every_log`] run on the embedded log, on librdkafka's in-memory broker, and on a
//! real Apache Kafka with a real PostgreSQL. `task test:real` runs the latter, which a plain `cargo
//! test` ignores; those of `secured` also need the feature `tls`. Those of [`browser`] need
//! Chromium, and `task test:browser` runs them.

mod documentation;
mod every_log;
mod standalone;
mod trouble;
mod group;
mod guarded;
mod overload;
#[cfg(feature = "full")]
mod traced;
mod real;
#[cfg(feature = "tls")]
mod secured;
mod browser;
