//! The flags of authentication and of the `token` subcommand.

use std::{path::PathBuf, time::Duration};

use crate::cli::settings::{Secret, parse_positive_duration};

/// Without a key, authentication is off and the service listens on loopback only.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Authentication")]
pub struct AuthArgs {
    /// File with the secret that signs tokens (HS256), at least 32 bytes, as from
    /// `openssl rand -base64 32`. Turns authentication on
    #[arg(long, env = "AUTH_SECRET_FILE", value_name = "FILE", global = true)]
    pub auth_secret_file: Option<PathBuf>,
    /// The secret itself, instead of a file. Prefer the environment: other users of this machine can
    /// see flags
    #[arg(long, env = "AUTH_SECRET", hide_env_values = true, value_name = "SECRET", global = true)]
    #[arg(conflicts_with = "auth_secret_file")]
    pub auth_secret: Option<Secret>,
    /// File with the public keys that verify tokens, as a JSON Web Key Set (RFC 7517): RS256, ES256
    /// and EdDSA. Turns authentication on. Needs a build with --features full
    #[arg(long, env = "AUTH_JWKS_FILE", value_name = "FILE", global = true)]
    pub auth_jwks_file: Option<PathBuf>,
    /// Audience that tokens must have (`aud`)
    #[arg(long, env = "AUTH_AUDIENCE", value_name = "NAME", global = true)]
    #[arg(default_value = "notifications")]
    pub auth_audience: String,
    /// Issuer that tokens must have (`iss`) [default: any]
    #[arg(long, env = "AUTH_ISSUER", value_name = "NAME", global = true)]
    pub auth_issuer: Option<String>,
    /// Interval at which key files are read again: keys rotate without a restart
    #[arg(long, env = "AUTH_REREAD", default_value = "10s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub auth_reread: Duration,
}

impl AuthArgs {
    /// Returns true if callers must authenticate.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.auth_secret_file.is_some()
            || self.auth_secret.is_some()
            || self.auth_jwks_file.is_some()
    }
}

/// The claims of a token for development or for a service of your own.
#[derive(clap::Args, Clone, Debug)]
pub struct TokenArgs {
    /// User whose inbox the token opens; with the scope `send` it also sends as this user. Without
    /// a user, `send` sends as any user
    #[arg(long, value_name = "ID")]
    pub sub: Option<String>,
    /// Scope: send, admin (everything) or metrics; may be repeated
    #[arg(long, value_name = "SCOPE", value_parser = ["send", "admin", "metrics"])]
    pub scope: Vec<String>,
    /// Lifetime of the token
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_positive_duration)]
    pub expires: Duration,
}
