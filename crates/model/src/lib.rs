//! The notification: its fields, its form as a Kafka record, its cursor and its partition.
//!
//! This crate knows serde and the wire formats. It does no I/O and names no Kafka client, no SQL
//! and no HTTP.

mod text;
pub mod user;
mod ijson;
pub mod object;
mod content;
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
pub use topics::TopicNames;
pub use user::{User, UserId, UserName};
