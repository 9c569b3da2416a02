//! The harness of the end-to-end tests: whole services on free ports, and verbs to speak of them.
//!
//! A [`World`] is one installation: a log, a directory, a producer and any number of
//! consumers. The same test runs on every kind of log, see [`backend`].

pub mod until;
pub mod backend;
pub mod world;
pub mod stream_client;
pub mod tokens;
pub mod scrape;
pub mod browser;
pub mod process;
pub mod service_process;
pub mod real;
pub mod tcp_proxy;
pub mod faults;

pub use until::until;
pub use world::World;
