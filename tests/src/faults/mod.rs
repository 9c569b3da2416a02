//! The fault suite: real processes on a real Kafka and PostgreSQL, under steady load, while
//! something is killed, frozen, restarted or scaled; and a history of what was acknowledged and
//! what was shown, which says whether the promises held.
//!
//! A notification's way: [`load`] decides to send it, [`client`] does and tells the [`history`],
//! [`scenarios`] break things meanwhile, [`probe`] times how long until all is well again,
//! [`settle`] looks at what is there in the end, and [`report`] says what came of it.

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
