//! A program around its work: `.env` file and settings, from `main` to the exit code, signals.

pub mod settings;
pub mod program;
pub mod shutdown;
