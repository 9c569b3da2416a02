//! The specification, end to end: whole services on free ports, tested over HTTP.
//!
//! The tests in [`every_log`] run on the embedded log, on librdkafka's in-memory broker, and on a real
//! Apache Kafka with a real PostgreSQL. A plain `cargo test` ignores the tests that need more:
//!
//! - a real Kafka and PostgreSQL: `task test:real`; those in `secured` need the feature `tls` as well
//! - Chromium, in [`browser`]: `task test:browser`
//! - curl, in [`commands`]: `task docs:commands`
//! - the machine to itself, in [`overload`]: `task test:overload`

mod documentation;
mod every_log;
mod commands;
mod standalone;
mod trouble;
mod behind;
mod group;
mod cut;
mod peers;
mod guarded;
mod attacks;
mod key_rotation;
mod sockets;
#[cfg(unix)]
mod containers;
mod overload;
#[cfg(feature = "full")]
mod traced;
mod real;
mod recreated;
mod three_brokers;
mod full_disk;
#[cfg(feature = "tls")]
mod secured;
mod browser;
