//! The embedded driver, from the outside.

mod harness;
mod measure;
