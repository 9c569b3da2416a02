//! Issues JWTs, valid and invalid ones.

use std::path::PathBuf;

#[cfg(feature = "full")]
use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
#[cfg(feature = "full")]
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A token issuer with one key.
pub struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    id: Option<String>,
}

impl Issuer {
    /// An issuer with a shared secret (HS256).
    pub fn with_secret(secret: &str) -> Self {
        service::auth::install_provider();
        let key = EncodingKey::from_secret(secret.as_bytes());
        Self { algorithm: Algorithm::HS256, key, id: None }
    }

    /// An issuer with a new private key for this algorithm and the key id `id`.
    #[cfg(feature = "full")]
    pub fn with_private_key(algorithm: Algorithm, id: &str) -> Self {
        let key = match algorithm {
            Algorithm::RS256 => {
                let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("DER");
                // PKCS #8 (RFC 5958) is a header, constant for this key size, before the PKCS #1
                // key.
                EncodingKey::from_rsa_der(&der.as_ref()[26..])
            }
            Algorithm::ES256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
                EncodingKey::from_ec_der(pair.to_pkcs8v1().expect("DER").as_ref())
            }
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::generate().expect("a key");
                EncodingKey::from_ed_der(pair.to_pkcs8v1().expect("DER").as_ref())
            }
            other => unreachable!("{other:?} is not for tests"),
        };
        Self { algorithm, key, id: Some(id.to_owned()) }
    }

    /// The public key as an entry of a key set (JWKS).
    #[cfg(feature = "full")]
    pub fn public_jwk(&self) -> Value {
        let mut key = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public key");
        key.common.key_id = self.id.clone();
        serde_json::to_value(key).expect("JSON")
    }

    /// A signed token with exactly these claims.
    pub fn sign_claims(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.id);
        encode(&header, claims, &self.key).expect("a token")
    }

    /// A valid token with this subject, if any, and these scopes.
    pub fn issue_token(&self, sub: Option<&str>, scope: &str) -> String {
        self.sign_claims(&valid_claims(sub, scope, 600))
    }
}

/// The claims of a token that is valid for `seconds`.
pub fn valid_claims(sub: Option<&str>, scope: &str, seconds: i64) -> Value {
    let exp = Timestamp::now().as_second() + seconds;
    let mut claims = json!({ "aud": "notifications", "scope": scope, "exp": exp });
    if let Some(sub) = sub {
        claims["sub"] = sub.into();
    }
    claims
}

/// A token with these claims and no signature (`alg: none`).
pub fn unsigned_token(claims: &Value) -> String {
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(claims))
}

/// A folder with the key files of a service.
pub struct KeyFiles(TempDir);

impl KeyFiles {
    /// An empty folder.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Writes a secret, and returns its path.
    pub fn write_secret(&self, secret: &str) -> String {
        self.replace_file("secret", &format!("{secret}\n"))
    }

    /// Replaces the key set by the public keys of these issuers, and returns its path.
    #[cfg(feature = "full")]
    pub fn write_key_set(&self, issuers: &[&Issuer]) -> String {
        let keys: Vec<_> = issuers.iter().map(|issuer| issuer.public_jwk()).collect();
        self.replace_file("keys.json", &json!({ "keys": keys }).to_string())
    }

    /// Replaces this file by a rename, and returns its path.
    pub fn replace_file(&self, name: &str, text: &str) -> String {
        // A reader sees either the old file or the new one.
        let path = self.0.path().join(name);
        let unfinished: PathBuf = path.with_extension("new");
        std::fs::write(&unfinished, text).expect("a file");
        std::fs::rename(&unfinished, &path).expect("its name");
        path.to_str().expect("a path in UTF-8").to_owned()
    }
}

impl Default for KeyFiles {
    fn default() -> Self {
        Self::new()
    }
}
