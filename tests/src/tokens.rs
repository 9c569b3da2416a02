//! Those who issue tokens, good ones and bad ones.

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

/// Somebody with a key.
pub struct Issuer {
    algorithm: Algorithm,
    key: EncodingKey,
    id: Option<String>,
}

impl Issuer {
    /// Signs with a secret (HS256).
    pub fn secret(secret: &str) -> Self {
        service::auth::install_provider();
        let key = EncodingKey::from_secret(secret.as_bytes());
        Self { algorithm: Algorithm::HS256, key, id: None }
    }

    /// Signs with a new private key of this kind, named `id`.
    #[cfg(feature = "full")]
    pub fn private(algorithm: Algorithm, id: &str) -> Self {
        let key = match algorithm {
            Algorithm::RS256 => {
                let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
                let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("DER");
                // What is inside of PKCS #8 (RFC 5958), behind a head that is the same for all of
                // this size, is PKCS #1.
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

    /// The public key, as a key set has it.
    #[cfg(feature = "full")]
    pub fn public(&self) -> Value {
        let mut key = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public key");
        key.common.key_id = self.id.clone();
        serde_json::to_value(key).expect("JSON")
    }

    /// A token that says this, of anybody and for anybody.
    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.id);
        encode(&header, claims, &self.key).expect("a token")
    }

    /// A good token for this user, if any, with these scopes.
    pub fn token(&self, sub: Option<&str>, scope: &str) -> String {
        self.sign(&claims(sub, scope, 600))
    }
}

/// What a token of ours says. It is good for so many seconds.
pub fn claims(sub: Option<&str>, scope: &str, seconds: i64) -> Value {
    let exp = Timestamp::now().as_second() + seconds;
    let mut claims = json!({ "aud": "notifications", "scope": scope, "exp": exp });
    if let Some(sub) = sub {
        claims["sub"] = sub.into();
    }
    claims
}

/// A token that says this and is signed by nobody.
pub fn unsigned(claims: &Value) -> String {
    let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.", part(&json!({ "alg": "none", "typ": "JWT" })), part(claims))
}

/// A folder with the files that a service reads its keys from.
pub struct KeyFiles(TempDir);

impl KeyFiles {
    /// An empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Writes a secret, and returns where.
    pub fn secret(&self, secret: &str) -> String {
        self.write("secret", &format!("{secret}\n"))
    }

    /// Writes the public keys of these issuers in place of those of before, and returns where.
    #[cfg(feature = "full")]
    pub fn key_set(&self, issuers: &[&Issuer]) -> String {
        let keys: Vec<_> = issuers.iter().map(|issuer| issuer.public()).collect();
        self.write("keys.json", &json!({ "keys": keys }).to_string())
    }

    /// Writes this text in place of the key set.
    pub fn write(&self, name: &str, text: &str) -> String {
        // As it should be done: whoever reads sees the old file or the new one.
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
