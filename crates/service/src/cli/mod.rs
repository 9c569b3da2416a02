//! The frame of a program: `.env` file, settings, `main`, exit code, signals.

pub mod settings;
pub mod program;
pub mod shutdown;
