//! TLS and SASL, as librdkafka's settings. Their flags are in [`crate::settings`].

use std::{fmt, path::PathBuf};

use clap::ValueEnum;
use rdkafka::ClientConfig;

/// TLS and SASL. The default is neither.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Encrypts, and authenticates the broker.
    pub tls: Option<Tls>,
    /// Authenticates the client with a password.
    pub sasl: Option<Sasl>,
}

/// TLS. The brokers' certificates and host names are always verified.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM file with the trusted certificate authorities; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The client certificate, for brokers that require one.
    pub identity: Option<Identity>,
}

/// A client certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM file with the certificate and its intermediate certificates.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
    /// The password of an encrypted key.
    pub password: Option<Password>,
}

/// A SASL login.
#[derive(Clone, Debug)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Password,
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

impl Password {
    /// Returns true if it is the empty text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Mechanism {
    fn sasl_name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Security {
    pub(crate) fn add_to(&self, config: &mut ClientConfig) {
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => return,
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            tls.add_to(config);
        }
        if let Some(sasl) = &self.sasl {
            config
                .set("sasl.mechanism", sasl.mechanism.sasl_name())
                .set("sasl.username", &sasl.username)
                .set("sasl.password", &sasl.password.0);
        }
    }
}

impl Tls {
    fn add_to(&self, config: &mut ClientConfig) {
        // The defaults of this librdkafka, but not of older ones.
        config
            .set("enable.ssl.certificate.verification", "true")
            .set("ssl.endpoint.identification.algorithm", "https");
        if let Some(ca) = &self.ca {
            config.set("ssl.ca.location", ca.to_string_lossy());
        }
        if let Some(identity) = &self.identity {
            config
                .set("ssl.certificate.location", identity.certificate.to_string_lossy())
                .set("ssl.key.location", identity.key.to_string_lossy());
            if let Some(password) = &identity.password {
                config.set("ssl.key.password", &password.0);
            }
        }
    }
}
