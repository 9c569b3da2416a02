//! What a notification is: who, to whom, what; how it looks as a record of the log; where in the
//! log it is; and which partition is its recipient's home.
//!
//! This crate knows serde and the wire formats. It does no I/O and names no Kafka client, no SQL
//! and no HTTP.
//!
//! The modules in the order in which a notification meets them:
//! - [`user`]: the two people;
//! - [`content`]: what may be said: a message, a category, a link, data;
//! - `ijson`: whether every program can read that data;
//! - [`notification`]: the value of a record, the JSON of the ancestor tutorial, field for field;
//! - [`headers`]: the record's headers, CloudEvents 1.0 in binary mode;
//! - [`receipt`]: the value of the other kind of record: what a recipient did;
//! - [`record`]: value and headers together, encoded and decoded;
//! - [`partitioner`]: key → partition;
//! - [`cursor`]: partition and offset, the name of a place in the log;
//! - [`topics`]: the names of the topics.

pub mod user;
pub mod content;
mod ijson;
pub mod notification;
pub mod headers;
pub mod receipt;
pub mod record;
pub mod partitioner;
pub mod cursor;
pub mod topics;

pub use content::{Category, Data, Link, Message};
pub use cursor::Cursor;
pub use headers::{Fingerprint, Headers, NotificationId};
pub use notification::Notification;
pub use partitioner::Partitioner;
pub use receipt::{Action, Receipt};
pub use topics::TopicNames;
pub use user::{User, UserId, UserName};
