//! Runs a program: `.env`, settings, logs, runtime, exit code. Errors are one line on standard
//! error.

use std::{error::Error, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    auth::{AuthArgs, TokenArgs},
    cli::settings,
    ops::health,
    ops::telemetry::{self, TelemetryArgs},
    ops::trace,
};

/// The flags that every program has. Each names its own variable by `mut_arg("insecure", …)`.
#[derive(Args, Clone, Debug)]
pub struct ServiceArgs {
    /// Allow addresses other than loopback while authentication is off
    #[arg(long, help_heading = "Authentication")]
    pub insecure: bool,

    /// Logs and traces
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

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

/// Parses the settings `C` and runs `program` with them. `shared` selects the shared ones.
/// Call it first in `main`: a `.env` file may only be loaded while there is a single thread.
#[allow(clippy::print_stderr)] // The final error message.
pub fn run_program<C, F>(
    name: &str,
    shared: impl FnOnce(&C) -> &ServiceArgs,
    program: impl FnOnce(C) -> F,
) -> ExitCode
where
    C: Parser,
    F: Future<Output = Result<(), Box<dyn Error>>>,
{
    let run = || -> Result<(), Box<dyn Error>> {
        settings::load_dotenv()?;
        let cli = C::parse();
        let logs = shared(&cli).telemetry.clone();
        telemetry::init_logging(&logs)?;
        trace::init_exporter(name, &logs.trace)?;
        // Each stream is an open file, and many systems allow 1024 by default.
        if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
            tracing::debug!(%error, "cannot raise the limit of open files");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(program(cli));
        drop(runtime);
        trace::flush_spans();
        ended
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}
