//! Runs a program: `.env`, settings, logs, runtime, exit code. Errors are one line on standard
//! error.

use std::{error::Error, fmt::Display, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    auth::{AuthArgs, TokenArgs},
    cli::settings,
    ops::health,
    ops::telemetry::{self, TelemetryArgs},
    ops::trace,
};

/// The subcommands that every program has.
#[derive(Subcommand, Clone, Debug)]
pub enum ServiceCommand {
    /// Print a token for development or for a service of your own, signed with the secret
    Token(TokenArgs),
    /// Check that the instance on this machine is alive; for container health checks
    Healthcheck,
}

impl ServiceCommand {
    /// Prints the token, or checks every one of these addresses.
    ///
    /// # Errors
    /// The token cannot be signed, or an address does not answer.
    pub async fn execute(&self, auth: &AuthArgs, addresses: &[&str]) -> Result<(), Box<dyn Error>> {
        match self {
            Self::Token(token) => token.print_token(auth)?,
            Self::Healthcheck => {
                for address in addresses {
                    health::check_liveness(address).await?;
                }
            }
        }
        Ok(())
    }
}

/// Parses the settings `C` and runs `program` with them. `logs` selects the telemetry's settings.
/// Call it first in `main`: a `.env` file may only be loaded while there is a single thread.
pub fn run_program<C, F>(
    name: &str,
    logs: impl FnOnce(&C) -> &TelemetryArgs,
    program: impl FnOnce(C) -> F,
) -> ExitCode
where
    C: Parser,
    F: Future<Output = Result<(), Box<dyn Error>>>,
{
    if let Err(error) = settings::load_dotenv() {
        return exit_with_error(name, error);
    }
    let cli = C::parse();
    let logs = logs(&cli).clone();
    if let Err(error) = telemetry::init_logging(&logs) {
        return exit_with_error(name, error);
    }
    if let Err(error) = trace::init_exporter(name, &logs.trace) {
        return exit_with_error(name, error);
    }
    // Each stream is an open file, and many systems allow 1024 by default.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit_with_error(name, error),
    };
    let ended = runtime.block_on(program(cli));
    drop(runtime);
    trace::flush_spans();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_with_error(name, error),
    }
}

#[allow(clippy::print_stderr)] // The final error message.
fn exit_with_error(name: &str, error: impl Display) -> ExitCode {
    eprintln!("{name}: {error}");
    ExitCode::FAILURE
}
