//! The fault suite: real processes on a real Kafka and PostgreSQL, under steady load, while
//! processes are killed, frozen, restarted or scaled. A history of all acknowledgements and answers
//! is checked against the promises.
//!
//! The way of a notification: [`load`] decides to send it, [`client`] sends it and records it in
//! the [`history`], [`scenarios`] cause faults meanwhile, [`probe`] times the recovery, [`settle`]
//! checks the final inboxes, and [`report`] writes the result.

pub mod random;
pub mod history;
pub mod journal;
pub mod cluster;
pub mod client;
pub mod load;
pub mod probe;
pub mod settle;
pub mod scenarios;
pub mod report;
