//! Flags of TLS and SASL. They are checked here, files too, because librdkafka's own errors do not
//! name the flag.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use crate::LogUnreachable;

type Properties = Vec<(String, String)>;

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

/// SASL mechanisms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mechanism {
    /// The client sends the password to the broker.
    #[value(name = "PLAIN")]
    Plain,
    /// The client proves that it knows the password (RFC 7677).
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
}

/// A password, which its `Debug` output hides.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl From<String> for Password {
    fn from(password: String) -> Self {
        Self(password)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl SecurityArgs {
    /// The librdkafka properties that the flags ask for. An empty value counts as absent. Fails if
    /// flags contradict each other or a file cannot be read.
    pub fn to_properties(&self) -> Result<Vec<(String, String)>, LogUnreachable> {
        let (protocol, has_tls, has_sasl) = match self.kafka_security {
            Protocol::Plaintext => ("plaintext", false, false),
            Protocol::Tls => ("ssl", true, false),
            Protocol::SaslPlaintext => ("sasl_plaintext", false, true),
            Protocol::SaslTls => ("sasl_ssl", true, true),
        };
        self.reject_unused_flags(has_tls, has_sasl)?;
        let mut properties = Properties::new();
        if has_tls || has_sasl {
            push(&mut properties, "security.protocol", protocol);
        }
        if has_tls {
            self.add_tls(&mut properties)?;
        }
        if has_sasl {
            self.add_sasl(&mut properties)?;
        }
        Ok(properties)
    }

    /// Fails if a password or a certificate is given that the security protocol does not use.
    fn reject_unused_flags(&self, has_tls: bool, has_sasl: bool) -> Result<(), LogUnreachable> {
        let of_tls = [
            ("--kafka-ca", self.kafka_ca.is_some()),
            ("--kafka-cert", self.kafka_cert.is_some()),
            ("--kafka-key", self.kafka_key.is_some()),
            ("--kafka-key-password", given(self.kafka_key_password.as_ref()).is_some()),
            ("--kafka-key-password-file", self.kafka_key_password_file.is_some()),
        ];
        let of_sasl = [
            ("--kafka-sasl-mechanism", self.kafka_sasl_mechanism.is_some()),
            ("--kafka-username", self.kafka_username.as_ref().is_some_and(|name| !name.is_empty())),
            ("--kafka-password", given(self.kafka_password.as_ref()).is_some()),
            ("--kafka-password-file", self.kafka_password_file.is_some()),
        ];
        for (used, flags, instead) in [
            (has_tls, &of_tls[..], "tls or sasl-tls"),
            (has_sasl, &of_sasl[..], "sasl-tls (or sasl-plaintext)"),
        ] {
            if let (false, Some((flag, _))) = (used, flags.iter().find(|flag| flag.1)) {
                let security = self.kafka_security.to_possible_value();
                let security = security.as_ref().map_or("plaintext", |value| value.get_name());
                let what = format!(
                    "has no effect with --kafka-security {security} (KAFKA_SECURITY): use \
                     {instead}, or remove the flag"
                );
                return Err(LogUnreachable(format!("{} {what}", full_name(flag))));
            }
        }
        Ok(())
    }

    fn add_tls(&self, properties: &mut Properties) -> Result<(), LogUnreachable> {
        // The defaults of this librdkafka, but not of older ones.
        push(properties, "enable.ssl.certificate.verification", "true");
        push(properties, "ssl.endpoint.identification.algorithm", "https");
        let file = self.kafka_key_password_file.as_deref();
        let password =
            read_password("--kafka-key-password", self.kafka_key_password.as_ref(), file)?;
        let lacks = match (&self.kafka_cert, &self.kafka_key, &password) {
            (Some(_), Some(_), _) | (None, None, None) => "",
            (Some(_), None, _) => {
                "--kafka-cert (KAFKA_CERT) needs the certificate's key: --kafka-key (KAFKA_KEY)"
            }
            (None, Some(_), _) => {
                "--kafka-key (KAFKA_KEY) needs the certificate it belongs to: --kafka-cert \
                 (KAFKA_CERT)"
            }
            (None, None, Some(_)) => {
                "a password for a key is given, but no key: --kafka-cert and --kafka-key \
                 (KAFKA_CERT, KAFKA_KEY)"
            }
        };
        if !lacks.is_empty() {
            return Err(LogUnreachable(lacks.into()));
        }
        for (flag, name, path) in [
            ("--kafka-cert", "ssl.certificate.location", &self.kafka_cert),
            ("--kafka-key", "ssl.key.location", &self.kafka_key),
            ("--kafka-ca", "ssl.ca.location", &self.kafka_ca),
        ] {
            if let Some(path) = path {
                check_file(flag, path)?;
                push(properties, name, path.to_string_lossy());
            }
        }
        if let Some(password) = password {
            push(properties, "ssl.key.password", password);
        }
        Ok(())
    }

    fn add_sasl(&self, properties: &mut Properties) -> Result<(), LogUnreachable> {
        let missing = |what: &str| {
            LogUnreachable(format!("logging in to Kafka (KAFKA_SECURITY) also needs {what}"))
        };
        let mechanism = self.kafka_sasl_mechanism.ok_or_else(|| {
            missing(
                "--kafka-sasl-mechanism (KAFKA_SASL_MECHANISM): PLAIN, SCRAM-SHA-256 or \
                 SCRAM-SHA-512, whichever the brokers have",
            )
        })?;
        let username = self.kafka_username.as_ref().filter(|name| !name.is_empty());
        let username = username.ok_or_else(|| missing("--kafka-username (KAFKA_USERNAME)"))?;
        let file = self.kafka_password_file.as_deref();
        let password = read_password("--kafka-password", self.kafka_password.as_ref(), file)?;
        let password = password.ok_or_else(|| {
            missing("the user's password: KAFKA_PASSWORD, or --kafka-password-file")
        })?;
        let (mechanism, sent) = match mechanism {
            Mechanism::Plain => ("PLAIN", "the password and all records"),
            // An eavesdropper can guess passwords against it (RFC 5802 section 9).
            Mechanism::ScramSha256 => {
                ("SCRAM-SHA-256", "the proof of the password and all records")
            }
            Mechanism::ScramSha512 => {
                ("SCRAM-SHA-512", "the proof of the password and all records")
            }
        };
        if self.kafka_security == Protocol::SaslPlaintext {
            tracing::warn!(
                "{sent} are sent to Kafka unencrypted: use --kafka-security sasl-tls on a network that \
                 others can read",
            );
        }
        push(properties, "sasl.mechanism", mechanism);
        push(properties, "sasl.username", username);
        push(properties, "sasl.password", password);
        Ok(())
    }
}

/// The password of `flag`, or of the file that `flag` with the suffix `-file` names.
fn read_password(
    flag: &str,
    password: Option<&Password>,
    file: Option<&Path>,
) -> Result<Option<String>, LogUnreachable> {
    let file_flag = format!("{flag}-file");
    match (given(password), file) {
        (Some(_), Some(_)) => Err(LogUnreachable(format!(
            "{} and {} are both given: remove one",
            full_name(flag),
            full_name(&file_flag),
        ))),
        (given, None) => Ok(given.map(|password| password.0.clone())),
        (None, Some(path)) => {
            let text = fs::read_to_string(path).map_err(|e| file_error(&file_flag, path, &e))?;
            // Editors and `echo` end a file with a line break.
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text.is_empty() {
                let (flag, path) = (full_name(&file_flag), path.display());
                return Err(LogUnreachable(format!("{flag}: {path} is empty")));
            }
            Ok(Some(text.to_owned()))
        }
    }
}

fn given(password: Option<&Password>) -> Option<&Password> {
    password.filter(|password| !password.0.is_empty())
}

fn push(properties: &mut Properties, name: &str, value: impl Into<String>) {
    properties.push((name.to_owned(), value.into()));
}

fn check_file(flag: &str, path: &Path) -> Result<(), LogUnreachable> {
    match File::open(path).and_then(|file| file.metadata()) {
        Ok(file) if file.is_dir() => {
            Err(LogUnreachable(format!("{}: {} is a folder", full_name(flag), path.display())))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(file_error(flag, path, &error)),
    }
}

fn file_error(flag: &str, path: &Path, error: &std::io::Error) -> LogUnreachable {
    let (flag, path) = (full_name(flag), path.display());
    LogUnreachable(format!("{flag}: cannot read {path}: {error}"))
}

/// The flag with its environment variable: `--kafka-ca (KAFKA_CA)`.
fn full_name(flag: &str) -> String {
    format!("{flag} ({})", flag.trim_start_matches('-').replace('-', "_").to_uppercase())
}

#[cfg(test)]
mod tests;
