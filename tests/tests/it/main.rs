//! The specification, end to end: whole services on free ports, asked over HTTP.
//!
//! What is in [`every_log`] runs on the embedded log, on librdkafka's in-memory broker and on a real
//! Apache Kafka with a real PostgreSQL. The latter needs both to be there, so it is left out of a
//! plain `cargo test` and run by `task test:real`; what is in `secured` also needs the feature `tls`. What is in [`browser`] needs Chromium, and is run
//! by `task test:browser`.

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
