//! The fault suite: real processes on a real Kafka and PostgreSQL, under steady load, while
//! processes are killed, frozen, restarted or scaled, networks are cut, disks are full and topics are
//! made again. A history of all acknowledgements and answers
//! is checked against the promises.
//!
//! The way of a notification: [`load`] decides to send it, [`client`] sends it and records it in
//! the [`history`], [`streams`] are told of it, [`scenarios`] cause faults meanwhile, [`probe`] times the recovery, [`settle`]
//! checks the final inboxes, and [`report`] writes the result.

pub mod random;
pub mod history;
pub mod journal;
pub mod disk;
pub mod kafka;
pub mod cluster;
pub mod client;
pub mod load;
pub mod streams;
pub mod probe;
pub mod settle;
pub mod scenario;
pub mod scenarios;
pub mod report;
