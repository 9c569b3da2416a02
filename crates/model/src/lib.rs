//! The notification: its fields, its form as a Kafka record, its cursor and its partition.
//!
//! This crate knows serde and the wire formats. It does no I/O and names no Kafka client, no SQL
//! and no HTTP.
//!
//! - `text`: length and character rules of texts;
//! - [`user`]: ids and names of users;
//! - `ijson`: the I-JSON check of a notification's data;
//! - [`content`]: a notification's message, category, link and data;
//! - [`cursor`]: partition and offset of a record;
//! - [`headers`]: a record's headers, CloudEvents 1.0 in binary mode;
//! - [`notification`]: the value of a notification's record, JSON;
//! - [`receipt`]: the value of a receipt's record, JSON;
//! - [`record`]: key, value and headers together, encoded and decoded;
//! - [`partitioner`]: the hash from key to partition;
//! - [`topics`]: the names of the topics.

mod text;
pub mod user;
mod ijson;
pub mod content;
pub mod cursor;
pub mod headers;
pub mod notification;
pub mod receipt;
pub mod record;
pub mod partitioner;
pub mod topics;

pub use content::{Category, Data, Link, Message};
pub use cursor::Cursor;
pub use headers::{Fingerprint, Headers, NotificationId};
pub use notification::Notification;
pub use partitioner::Partitioner;
pub use receipt::{Action, Receipt};
pub use text::InvalidText;
pub use topics::TopicNames;
pub use user::{User, UserId, UserName};
