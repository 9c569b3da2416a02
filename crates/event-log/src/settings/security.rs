//! The flags of TLS and SASL, and what of them belongs together. Files are looked into here, before
//! a client finds out about them with less helpful words.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::{
    LogUnreachable,
    kafka::security::{Identity, Mechanism, Password, Sasl, Security, Tls},
};

/// How to speak with Kafka.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct SecurityArgs {
    /// How to speak with the brokers: openly, with TLS (encrypted, the broker shows a certificate),
    /// with SASL (we log in), or with both. Everything but plaintext and PLAIN over sasl-plaintext
    /// needs a build with --features tls
    #[arg(long, env = "KAFKA_SECURITY", value_enum, default_value_t, value_name = "HOW")]
    pub kafka_security: Protocol,

    /// How to log in with SASL, as the brokers have it
    #[arg(
        long,
        env = "KAFKA_SASL_MECHANISM",
        value_enum,
        ignore_case = true,
        value_name = "MECHANISM"
    )]
    pub kafka_sasl_mechanism: Option<Mechanism>,

    /// User to log in as with SASL
    #[arg(long, env = "KAFKA_USERNAME", value_name = "NAME")]
    pub kafka_username: Option<String>,

    /// That user's password. Others on this machine can see flags: better in the environment, or in
    /// a file
    #[arg(long, env = "KAFKA_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub kafka_password: Option<Password>,

    /// File with that user's password, instead; a line break at its end does not count
    #[arg(long, env = "KAFKA_PASSWORD_FILE", value_name = "FILE")]
    pub kafka_password_file: Option<PathBuf>,

    /// PEM file with the authorities that may have signed the brokers' certificates
    /// [default: those that the system trusts]
    #[arg(long, env = "KAFKA_CA", value_name = "FILE")]
    pub kafka_ca: Option<PathBuf>,

    /// PEM file with our own certificate, for brokers that ask for one (mTLS); needs --kafka-key
    #[arg(long, env = "KAFKA_CERT", value_name = "FILE")]
    pub kafka_cert: Option<PathBuf>,

    /// PEM file with that certificate's key
    #[arg(long, env = "KAFKA_KEY", value_name = "FILE")]
    pub kafka_key: Option<PathBuf>,

    /// Password that the key is encrypted with, if it is; better in the environment, or in a file
    #[arg(long, env = "KAFKA_KEY_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub kafka_key_password: Option<Password>,

    /// File with the password that the key is encrypted with, instead
    #[arg(long, env = "KAFKA_KEY_PASSWORD_FILE", value_name = "FILE")]
    pub kafka_key_password_file: Option<PathBuf>,
}

/// What is spoken with the brokers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Neither encrypted nor logged in.
    #[default]
    Plaintext,
    /// Encrypted.
    #[value(alias = "ssl")]
    Tls,
    /// Logged in, not encrypted.
    #[value(alias = "sasl_plaintext")]
    SaslPlaintext,
    /// Logged in and encrypted.
    #[value(aliases = ["sasl_ssl", "sasl-ssl"])]
    SaslTls,
}

impl Protocol {
    fn tls(self) -> bool {
        matches!(self, Self::Tls | Self::SaslTls)
    }

    fn sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslTls)
    }
}

impl SecurityArgs {
    /// What the flags ask for, all of it there. An empty text is as good as none.
    ///
    /// # Errors
    /// [`Unreachable`], when they do not fit together or a file cannot be read.
    pub fn security(&self) -> Result<Security, LogUnreachable> {
        self.nothing_is_in_vain()?;
        let tls = if self.kafka_security.tls() { Some(self.tls()?) } else { None };
        let sasl = if self.kafka_security.sasl() { Some(self.sasl()?) } else { None };
        Ok(Security { tls, sasl })
    }

    /// Whoever gave a password or a certificate believes that it is used.
    fn nothing_is_in_vain(&self) -> Result<(), LogUnreachable> {
        let of_tls = [
            ("--kafka-ca", "KAFKA_CA", self.kafka_ca.is_some()),
            ("--kafka-cert", "KAFKA_CERT", self.kafka_cert.is_some()),
            ("--kafka-key", "KAFKA_KEY", self.kafka_key.is_some()),
            ("--kafka-key-password", "KAFKA_KEY_PASSWORD", given(&self.kafka_key_password)),
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
            ("--kafka-password", "KAFKA_PASSWORD", given(&self.kafka_password)),
            ("--kafka-password-file", "KAFKA_PASSWORD_FILE", self.kafka_password_file.is_some()),
        ];
        for (used, flags, instead) in [
            (self.kafka_security.tls(), &of_tls[..], "tls or sasl-tls"),
            (self.kafka_security.sasl(), &of_sasl[..], "sasl-tls (or sasl-plaintext)"),
        ] {
            if let (false, Some((flag, variable, _))) = (used, flags.iter().find(|flag| flag.2)) {
                let security = self.kafka_security.to_possible_value();
                let security = security.as_ref().map_or("plaintext", |value| value.get_name());
                return Err(wrong(format!(
                    "{flag} ({variable}) is of no use with --kafka-security {security} \
                     (KAFKA_SECURITY): make that {instead}, or leave the flag out"
                )));
            }
        }
        Ok(())
    }

    fn tls(&self) -> Result<Tls, LogUnreachable> {
        let password = password(
            ("--kafka-key-password", "KAFKA_KEY_PASSWORD", &self.kafka_key_password),
            (
                "--kafka-key-password-file",
                "KAFKA_KEY_PASSWORD_FILE",
                self.kafka_key_password_file.as_deref(),
            ),
        )?;
        let identity = match (&self.kafka_cert, &self.kafka_key) {
            (Some(certificate), Some(key)) => {
                readable("--kafka-cert", "KAFKA_CERT", certificate)?;
                readable("--kafka-key", "KAFKA_KEY", key)?;
                Some(Identity { certificate: certificate.clone(), key: key.clone(), password })
            }
            (Some(_), None) => {
                return Err(wrong(
                    "--kafka-cert (KAFKA_CERT) needs the certificate's key: --kafka-key (KAFKA_KEY)",
                ));
            }
            (None, Some(_)) => {
                return Err(wrong(
                    "--kafka-key (KAFKA_KEY) needs the certificate it belongs to: --kafka-cert \
                     (KAFKA_CERT)",
                ));
            }
            (None, None) if password.is_some() => {
                return Err(wrong(
                    "a password for a key is given, but no key: --kafka-cert and --kafka-key \
                     (KAFKA_CERT, KAFKA_KEY)",
                ));
            }
            (None, None) => None,
        };
        if let Some(ca) = &self.kafka_ca {
            readable("--kafka-ca", "KAFKA_CA", ca)?;
        }
        Ok(Tls { ca: self.kafka_ca.clone(), identity })
    }

    fn sasl(&self) -> Result<Sasl, LogUnreachable> {
        let missing =
            |what: &str| wrong(format!("logging in to Kafka (KAFKA_SECURITY) also needs {what}"));
        let mechanism = self.kafka_sasl_mechanism.ok_or_else(|| {
            missing(
                "--kafka-sasl-mechanism (KAFKA_SASL_MECHANISM): PLAIN, SCRAM-SHA-256 or \
                 SCRAM-SHA-512, whichever the brokers have",
            )
        })?;
        let username = self.kafka_username.clone().filter(|name| !name.is_empty());
        let username = username.ok_or_else(|| missing("--kafka-username (KAFKA_USERNAME)"))?;
        let password = password(
            ("--kafka-password", "KAFKA_PASSWORD", &self.kafka_password),
            ("--kafka-password-file", "KAFKA_PASSWORD_FILE", self.kafka_password_file.as_deref()),
        )?;
        let password = password.ok_or_else(|| {
            missing("the user's password: KAFKA_PASSWORD, or --kafka-password-file")
        })?;
        if self.kafka_security == Protocol::SaslPlaintext {
            let what = match mechanism {
                Mechanism::Plain => "the password and all records",
                // Not the password itself, but enough to try passwords on.
                Mechanism::ScramSha256 | Mechanism::ScramSha512 => {
                    "the proof of the password and all records"
                }
            };
            tracing::warn!(
                "{what} travel to Kafka in the clear: use --kafka-security sasl-tls where anybody \
                 could listen",
            );
        }
        Ok(Sasl { mechanism, username, password })
    }
}

/// The password itself, or what the file says.
fn password(
    (flag, variable, given): (&str, &str, &Option<Password>),
    (file_flag, file_variable, file): (&str, &str, Option<&Path>),
) -> Result<Option<Password>, LogUnreachable> {
    match (given.clone().filter(|password| !password.is_empty()), file) {
        (Some(_), Some(_)) => Err(wrong(format!(
            "{flag} ({variable}) and {file_flag} ({file_variable}) are both given: leave one out"
        ))),
        (given, None) => Ok(given),
        (None, Some(path)) => {
            let text = fs::read_to_string(path)
                .map_err(|error| unreadable(file_flag, file_variable, path, &error))?;
            // Editors and `echo` end a file with a line break.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text.is_empty() {
                let path = path.display();
                return Err(wrong(format!("{file_flag} ({file_variable}): {path} is empty")));
            }
            Ok(Some(Password::from(text.to_owned())))
        }
    }
}

fn given(password: &Option<Password>) -> bool {
    password.as_ref().is_some_and(|password| !password.is_empty())
}

fn readable(flag: &str, variable: &str, path: &Path) -> Result<(), LogUnreachable> {
    let opened = File::open(path).and_then(|file| file.metadata());
    match opened {
        Ok(file) if file.is_dir() => {
            Err(wrong(format!("{flag} ({variable}): {} is a folder", path.display())))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(unreadable(flag, variable, path, &error)),
    }
}

fn unreadable(flag: &str, variable: &str, path: &Path, error: &std::io::Error) -> LogUnreachable {
    wrong(format!("{flag} ({variable}): cannot read {}: {error}", path.display()))
}

fn wrong(what: impl Into<String>) -> LogUnreachable {
    LogUnreachable(what.into())
}

#[cfg(test)]
mod tests;
