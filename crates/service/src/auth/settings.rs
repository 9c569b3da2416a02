//! Where the keys are, and what a token of one's own says.

use std::{path::PathBuf, time::Duration};

use crate::cli::settings::{Secret, parse_positive_duration};

/// Who may ask. Without a key nobody is asked who they are, and the service listens on loopback
/// only.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Authentication")]
pub struct AuthArgs {
    /// File with the secret that signs tokens (HS256), at least 32 bytes, as from
    /// `openssl rand -base64 32`
    #[arg(long, env = "AUTH_SECRET_FILE", value_name = "FILE", global = true)]
    pub auth_secret_file: Option<PathBuf>,
    /// The secret itself; rather in the environment than on a command line, which others can see
    #[arg(
        long,
        env = "AUTH_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        global = true,
        conflicts_with = "auth_secret_file"
    )]
    pub auth_secret: Option<Secret>,
    /// File with the public keys that verify tokens, as a JSON Web Key Set (RFC 7517): RS256,
    /// ES256 and EdDSA
    #[arg(long, env = "AUTH_JWKS_FILE", value_name = "FILE", global = true)]
    pub auth_jwks_file: Option<PathBuf>,
    /// Whom tokens must be for (their `aud`)
    #[arg(
        long,
        env = "AUTH_AUDIENCE",
        default_value = "notifications",
        value_name = "NAME",
        global = true
    )]
    pub auth_audience: String,
    /// Who must have issued them (their `iss`); anybody with the key, if not given
    #[arg(long, env = "AUTH_ISSUER", value_name = "NAME", global = true)]
    pub auth_issuer: Option<String>,
    /// How often the files are read again: keys are rotated without a restart
    #[arg(long, env = "AUTH_REREAD", default_value = "10s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub auth_reread: Duration,
}

impl AuthArgs {
    /// Whether callers are to be asked who they are.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.auth_secret_file.is_some()
            || self.auth_secret.is_some()
            || self.auth_jwks_file.is_some()
    }
}

/// What a token for development or for a service of one's own says.
#[derive(clap::Args, Clone, Debug)]
pub struct TokenArgs {
    /// The user whose token it is: it opens their inbox, and with the scope `send` it sends as
    /// them. Without a user, `send` sends as anybody
    #[arg(long, value_name = "ID")]
    pub sub: Option<String>,
    /// What it is for besides: send, admin (everything) or metrics; may be repeated
    #[arg(long, value_name = "SCOPE", value_parser = ["send", "admin", "metrics"])]
    pub scope: Vec<String>,
    /// How long it is good
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_positive_duration)]
    pub expires: Duration,
}
