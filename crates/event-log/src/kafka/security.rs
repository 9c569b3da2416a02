//! How a client and a broker make sure of each other: TLS and SASL, as librdkafka's settings. What
//! flags there are for it is for [`crate::settings`].

use std::{fmt, path::PathBuf};

use clap::ValueEnum;
use rdkafka::ClientConfig;

/// How to speak with the brokers. The default is neither TLS nor SASL.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Encrypt, and make sure that the broker is who it should be.
    pub tls: Option<Tls>,
    /// Say who we are, with a password.
    pub sasl: Option<Sasl>,
}

/// TLS. The brokers' certificates are always checked, and so are their names.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// PEM file with the authorities that may have signed the brokers' certificates; none: those
    /// that the system trusts.
    pub ca: Option<PathBuf>,
    /// Who we are, for brokers that ask for a certificate.
    pub identity: Option<Identity>,
}

/// A certificate of our own.
#[derive(Clone, Debug)]
pub struct Identity {
    /// PEM file with the certificate, and with those between it and the authority.
    pub certificate: PathBuf,
    /// PEM file with its key.
    pub key: PathBuf,
    /// What the key is encrypted with.
    pub password: Option<Password>,
}

/// SASL.
#[derive(Clone, Debug)]
pub struct Sasl {
    /// How the password is proven.
    pub mechanism: Mechanism,
    /// Who we are.
    pub username: String,
    /// That it is us.
    pub password: Password,
}

/// How SASL proves that a client knows its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mechanism {
    /// It is told to the broker.
    #[value(name = "PLAIN")]
    Plain,
    /// It is never told.
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
}

/// A password, which shows itself to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl From<String> for Password {
    fn from(password: String) -> Self {
        Self(password)
    }
}

impl Password {
    /// Whether there is nothing in it.
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
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Security {
    pub(crate) fn configure(&self, config: &mut ClientConfig) {
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => return,
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.tls {
            tls.configure(config);
        }
        if let Some(sasl) = &self.sasl {
            config
                .set("sasl.mechanism", sasl.mechanism.name())
                .set("sasl.username", &sasl.username)
                .set("sasl.password", &sasl.password.0);
        }
    }
}

impl Tls {
    fn configure(&self, config: &mut ClientConfig) {
        // The defaults of this librdkafka, but not of every one before it: a certificate counts only
        // for the broker whose name it has.
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
