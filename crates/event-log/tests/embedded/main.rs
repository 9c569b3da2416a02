//! The embedded driver, from the outside.

mod harness;
mod opening;
mod appending;
mod reading;
mod following;
mod dlq;
mod durability;
mod forgetting;
mod measure;
