//! Queries and connection options for PostgreSQL.

use std::{fs::File, io::ErrorKind};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use super::error::{ANSWER_TIMEOUT, DirectoryOpenError};

pub(super) const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "users", include_str!("../../../../migrations/postgres/0001_users.sql")),
    (2, "users changed", include_str!("../../../../migrations/postgres/0002_users_changed.sql")),
];

const INVALID_URL: &str = "--database-url (DATABASE_URL) is not a PostgreSQL URL such as postgres://user:password@host:5432/database?sslmode=verify-full; sslmode is disable, prefer, require, verify-ca or verify-full";
pub(super) const SELECT_USERS: &str = "SELECT id, name FROM users WHERE id = ANY($1)";
/// Returns true if the row is new. An updated row has the updating transaction in `xmax`.
pub(super) const UPSERT_USER: &str = "INSERT INTO users (id, name) VALUES ($1, $2) \
     ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING xmax = 0";

pub(super) fn open_pool(url: &str, connections: u32) -> Result<PgPool, DirectoryOpenError> {
    let options = parse_options(url)?;
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ANSWER_TIMEOUT)
        // Detects a connection that a restarted server closed before a send fails on it. Costs a
        // round trip (26k instead of 35k look-ups/s).
        .test_before_acquire(true)
        .connect_lazy_with(options.application_name("notifications-producer"));
    Ok(pool)
}

/// Parses the URL. Reports unusable options at startup instead of at every connection.
fn parse_options(url: &str) -> Result<PgConnectOptions, DirectoryOpenError> {
    let invalid = |_| DirectoryOpenError(INVALID_URL.into());
    let mut options: PgConnectOptions = url.parse().map_err(invalid)?;
    let files = certificate_files(url);
    for (parameter, path) in &files {
        // The parameter may hold the certificate itself.
        if !path.trim().starts_with("-----BEGIN") {
            File::open(path).map_err(|error| {
                let why = format!("the database URL, {parameter}: cannot read {path}: {error}");
                DirectoryOpenError(why)
            })?;
        }
    }
    let has = |name| files.iter().any(|(parameter, _)| *parameter == name);
    if has("sslcert") != has("sslkey") {
        let why = "the database URL, sslcert and sslkey: a certificate and its key must be given together";
        return Err(DirectoryOpenError(why.into()));
    }
    // libpq verifies the certificate if sslrootcert is given; sqlx does not.
    if matches!(options.get_ssl_mode(), PgSslMode::Require) && has("sslrootcert") {
        options = options.ssl_mode(PgSslMode::VerifyCa);
    }
    if !cfg!(feature = "tls") {
        let mode = match options.get_ssl_mode() {
            PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer => return Ok(options),
            PgSslMode::Require => "require",
            PgSslMode::VerifyCa => "verify-ca",
            PgSslMode::VerifyFull => "verify-full",
        };
        return Err(DirectoryOpenError(format!(
            "the database URL requires TLS (sslmode={mode}), which this build does not support: build with --features tls"
        )));
    }
    Ok(options)
}

/// Returns the certificate and key parameters of the URL, under libpq's names.
fn certificate_files(url: &str) -> Vec<(&'static str, String)> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let files = form_urlencoded::parse(query.as_bytes()).filter_map(|(name, path)| {
        let name = match &*name {
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => "sslrootcert",
            "sslcert" | "ssl-cert" => "sslcert",
            "sslkey" | "ssl-key" => "sslkey",
            _ => return None,
        };
        Some((name, path.into_owned()))
    });
    files.collect()
}

/// Returns the reason why the server rejects the connection, without the driver's error text.
pub(super) fn refusal_reason(error: &sqlx::Error) -> Option<&'static str> {
    match error {
        sqlx::Error::Database(error) => match error.code().as_deref() {
            Some("28P01" | "28000") => {
                Some("it refuses the user: check the name and the password in the database URL")
            }
            Some("3D000") => Some("it has no such database"),
            _ => None,
        },
        sqlx::Error::Tls(_) => Some("TLS handshake failed: check sslmode in the database URL"),
        // sqlx reports errors of rustls as InvalidData.
        sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            Some("its certificate is not trusted: check sslrootcert and the host in the URL")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(query: &str) -> String {
        let url = format!("postgres://u:hunter2@h/d?{query}");
        let error = parse_options(&url).expect_err("a wrong URL").to_string();
        assert!(!error.contains("hunter2"), "{error}");
        error
    }

    #[test]
    fn a_build_without_tls_says_so_at_once() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let opened = parse_options(&format!("postgres://u:hunter2@h/d?sslmode={mode}"));
            if cfg!(feature = "tls") {
                assert!(opened.is_ok(), "{mode}");
            } else {
                let error = opened.expect_err("no TLS in this build").to_string();
                assert!(error.contains(mode) && error.contains("--features tls"), "{error}");
            }
        }
        for mode in ["disable", "prefer"] {
            assert!(parse_options(&format!("postgres://u@h/d?sslmode={mode}")).is_ok(), "{mode}");
        }
        assert!(error("sslmode=always").contains("verify-full"));
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = file.path().to_str().expect("a readable path");
        assert!(
            error("sslrootcert=/no/such.pem").contains("sslrootcert: cannot read /no/such.pem")
        );
        assert!(error(&format!("sslcert={path}")).contains("together"));
        assert!(parse_options(&format!("postgres://u@h/d?sslcert={path}&sslkey={path}")).is_ok());
        assert!(parse_options("postgres://u@h/d?ssl-ca=-----BEGIN%20CERTIFICATE-----").is_ok());
    }

    #[cfg(feature = "tls")]
    #[test]
    fn who_names_an_authority_wants_it_to_be_asked() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let path = file.path().to_str().expect("a readable path");
        let opened = parse_options(&format!("postgres://u@h/d?sslmode=require&sslrootcert={path}"));
        assert!(matches!(opened.expect("a right URL").get_ssl_mode(), PgSslMode::VerifyCa));
    }
}
