//! Flags of TLS and SASL. They are checked here, files too, because librdkafka's own errors do not
//! name the flag.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{
    LogUnreachable,
    kafka::security::{Identity, Mechanism, Password, Sasl, Security, Tls},
};

/// TLS and SASL of the connections to Kafka.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct SecurityArgs {
    /// Security protocol: plaintext, TLS (encryption and the brokers' certificates), SASL (login), or
    /// both. All but plaintext, and PLAIN over sasl-plaintext, need a build with --features tls
    #[arg(long, env = "KAFKA_SECURITY", value_enum, default_value_t, value_name = "PROTOCOL")]
    pub kafka_security: Protocol,

    /// SASL mechanism; the brokers must have it enabled
    #[arg(
        long,
        env = "KAFKA_SASL_MECHANISM",
        value_enum,
        ignore_case = true,
        value_name = "MECHANISM"
    )]
    pub kafka_sasl_mechanism: Option<Mechanism>,

    /// SASL user name
    #[arg(long, env = "KAFKA_USERNAME", value_name = "NAME")]
    pub kafka_username: Option<String>,

    /// SASL password. Other users of this machine can see flags: prefer the environment variable or
    /// a file
    #[arg(long, env = "KAFKA_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub kafka_password: Option<Password>,

    /// File with the SASL password; a line break at its end is ignored
    #[arg(long, env = "KAFKA_PASSWORD_FILE", value_name = "FILE")]
    pub kafka_password_file: Option<PathBuf>,

    /// PEM file with the certificate authorities of the brokers' certificates
    /// [default: the system's]
    #[arg(long, env = "KAFKA_CA", value_name = "FILE")]
    pub kafka_ca: Option<PathBuf>,

    /// PEM file with the client certificate, for brokers that require one (mTLS); needs --kafka-key
    #[arg(long, env = "KAFKA_CERT", value_name = "FILE")]
    pub kafka_cert: Option<PathBuf>,

    /// PEM file with the key of the client certificate
    #[arg(long, env = "KAFKA_KEY", value_name = "FILE")]
    pub kafka_key: Option<PathBuf>,

    /// Password of the key, if it is encrypted; prefer the environment variable or a file
    #[arg(long, env = "KAFKA_KEY_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub kafka_key_password: Option<Password>,

    /// File with the password of the key
    #[arg(long, env = "KAFKA_KEY_PASSWORD_FILE", value_name = "FILE")]
    pub kafka_key_password_file: Option<PathBuf>,
}

/// The security protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// No encryption, no login.
    #[default]
    Plaintext,
    /// Encryption.
    #[value(alias = "ssl")]
    Tls,
    /// Login without encryption.
    #[value(alias = "sasl_plaintext")]
    SaslPlaintext,
    /// Login with encryption.
    #[value(aliases = ["sasl_ssl", "sasl-ssl"])]
    SaslTls,
}

impl Protocol {
    fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SaslTls)
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslTls)
    }
}

impl SecurityArgs {
    /// The settings that the flags ask for. An empty value counts as absent.
    ///
    /// # Errors
    /// [`LogUnreachable`], if flags contradict each other or a file cannot be read.
    pub fn to_security(&self) -> Result<Security, LogUnreachable> {
        self.reject_unused_flags()?;
        let tls = if self.kafka_security.has_tls() { Some(self.to_tls()?) } else { None };
        let sasl = if self.kafka_security.has_sasl() { Some(self.to_sasl()?) } else { None };
        Ok(Security { tls, sasl })
    }

    /// Fails if a password or a certificate is given that the security protocol does not use.
    fn reject_unused_flags(&self) -> Result<(), LogUnreachable> {
        let of_tls = [
            ("--kafka-ca", "KAFKA_CA", self.kafka_ca.is_some()),
            ("--kafka-cert", "KAFKA_CERT", self.kafka_cert.is_some()),
            ("--kafka-key", "KAFKA_KEY", self.kafka_key.is_some()),
            ("--kafka-key-password", "KAFKA_KEY_PASSWORD", is_given(&self.kafka_key_password)),
            (
                "--kafka-key-password-file",
                "KAFKA_KEY_PASSWORD_FILE",
                self.kafka_key_password_file.is_some(),
            ),
        ];
        let username = self.kafka_username.as_ref().is_some_and(|name| !name.is_empty());
        let of_sasl = [
            ("--kafka-sasl-mechanism", "KAFKA_SASL_MECHANISM", self.kafka_sasl_mechanism.is_some()),
            ("--kafka-username", "KAFKA_USERNAME", username),
            ("--kafka-password", "KAFKA_PASSWORD", is_given(&self.kafka_password)),
            ("--kafka-password-file", "KAFKA_PASSWORD_FILE", self.kafka_password_file.is_some()),
        ];
        for (used, flags, instead) in [
            (self.kafka_security.has_tls(), &of_tls[..], "tls or sasl-tls"),
            (self.kafka_security.has_sasl(), &of_sasl[..], "sasl-tls (or sasl-plaintext)"),
        ] {
            if let (false, Some((flag, variable, _))) = (used, flags.iter().find(|flag| flag.2)) {
                let security = self.kafka_security.to_possible_value();
                let security = security.as_ref().map_or("plaintext", |value| value.get_name());
                return Err(flag_error(format!(
                    "{flag} ({variable}) has no effect with --kafka-security {security} \
                     (KAFKA_SECURITY): use {instead}, or remove the flag"
                )));
            }
        }
        Ok(())
    }

    fn to_tls(&self) -> Result<Tls, LogUnreachable> {
        let password = read_password(
            ("--kafka-key-password", "KAFKA_KEY_PASSWORD", &self.kafka_key_password),
            (
                "--kafka-key-password-file",
                "KAFKA_KEY_PASSWORD_FILE",
                self.kafka_key_password_file.as_deref(),
            ),
        )?;
        let identity = match (&self.kafka_cert, &self.kafka_key) {
            (Some(certificate), Some(key)) => {
                check_file("--kafka-cert", "KAFKA_CERT", certificate)?;
                check_file("--kafka-key", "KAFKA_KEY", key)?;
                Some(Identity { certificate: certificate.clone(), key: key.clone(), password })
            }
            (Some(_), None) => {
                return Err(flag_error(
                    "--kafka-cert (KAFKA_CERT) needs the certificate's key: --kafka-key (KAFKA_KEY)",
                ));
            }
            (None, Some(_)) => {
                return Err(flag_error(
                    "--kafka-key (KAFKA_KEY) needs the certificate it belongs to: --kafka-cert \
                     (KAFKA_CERT)",
                ));
            }
            (None, None) if password.is_some() => {
                return Err(flag_error(
                    "a password for a key is given, but no key: --kafka-cert and --kafka-key \
                     (KAFKA_CERT, KAFKA_KEY)",
                ));
            }
            (None, None) => None,
        };
        if let Some(ca) = &self.kafka_ca {
            check_file("--kafka-ca", "KAFKA_CA", ca)?;
        }
        Ok(Tls { ca: self.kafka_ca.clone(), identity })
    }

    fn to_sasl(&self) -> Result<Sasl, LogUnreachable> {
        let missing = |what: &str| {
            flag_error(format!("logging in to Kafka (KAFKA_SECURITY) also needs {what}"))
        };
        let mechanism = self.kafka_sasl_mechanism.ok_or_else(|| {
            missing(
                "--kafka-sasl-mechanism (KAFKA_SASL_MECHANISM): PLAIN, SCRAM-SHA-256 or \
                 SCRAM-SHA-512, whichever the brokers have",
            )
        })?;
        let username = self.kafka_username.clone().filter(|name| !name.is_empty());
        let username = username.ok_or_else(|| missing("--kafka-username (KAFKA_USERNAME)"))?;
        let password = read_password(
            ("--kafka-password", "KAFKA_PASSWORD", &self.kafka_password),
            ("--kafka-password-file", "KAFKA_PASSWORD_FILE", self.kafka_password_file.as_deref()),
        )?;
        let password = password.ok_or_else(|| {
            missing("the user's password: KAFKA_PASSWORD, or --kafka-password-file")
        })?;
        if self.kafka_security == Protocol::SaslPlaintext {
            let what = match mechanism {
                Mechanism::Plain => "the password and all records",
                // An eavesdropper can guess passwords against it (RFC 5802 section 9).
                Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
                    "the proof of the password and all records"
                }
            };
            tracing::warn!(
                "{what} are sent to Kafka unencrypted: use --kafka-security sasl-tls on a network that \
                 others can read",
            );
        }
        Ok(Sasl { mechanism, username, password })
    }
}

/// The password of the flag, or of the file.
fn read_password(
    (flag, variable, given): (&str, &str, &Option<Password>),
    (file_flag, file_variable, file): (&str, &str, Option<&Path>),
) -> Result<Option<Password>, LogUnreachable> {
    match (given.clone().filter(|password| !password.is_empty()), file) {
        (Some(_), Some(_)) => Err(flag_error(format!(
            "{flag} ({variable}) and {file_flag} ({file_variable}) are both given: remove one"
        ))),
        (given, None) => Ok(given),
        (None, Some(path)) => {
            let text = fs::read_to_string(path)
                .map_err(|error| file_error(file_flag, file_variable, path, &error))?;
            // Editors and `echo` end a file with a line break.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text.is_empty() {
                let path = path.display();
                return Err(flag_error(format!("{file_flag} ({file_variable}): {path} is empty")));
            }
            Ok(Some(Password::from(text.to_owned())))
        }
    }
}

fn is_given(password: &Option<Password>) -> bool {
    password.as_ref().is_some_and(|password| !password.is_empty())
}

fn check_file(flag: &str, variable: &str, path: &Path) -> Result<(), LogUnreachable> {
    let opened = File::open(path).and_then(|file| file.metadata());
    match opened {
        Ok(file) if file.is_dir() => {
            Err(flag_error(format!("{flag} ({variable}): {} is a folder", path.display())))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(file_error(flag, variable, path, &error)),
    }
}

fn file_error(flag: &str, variable: &str, path: &Path, error: &std::io::Error) -> LogUnreachable {
    flag_error(format!("{flag} ({variable}): cannot read {}: {error}", path.display()))
}

fn flag_error(what: impl Into<String>) -> LogUnreachable {
    LogUnreachable(what.into())
}

#[cfg(test)]
mod tests;
