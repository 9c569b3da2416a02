//! The keys that verify tokens, and the files they are read from.

use std::{io, path::PathBuf};

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::AuthArgs;

/// The least length of a secret: as long as its hash (RFC 7518, section 3.2).
const MIN_SECRET: usize = 32;
/// The largest file and the most keys that make sense.
const MAX_FILE: u64 = 1 << 20;
const MAX_KEYS: usize = 64;

/// Why there are no keys. Holds nothing of what the files say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read.
    #[error("cannot read {}, the {what}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the system says.
        why: String,
    },
    /// The secret can be guessed.
    #[error(
        "the secret that signs tokens has {0} bytes, and must have at least 32; make one with: openssl rand -base64 32"
    )]
    Weak(usize),
    /// The key set is not one.
    #[error(
        "the file of --auth-jwks-file (AUTH_JWKS_FILE) is not a JSON Web Key Set, {{\"keys\":[…]}}: {0}"
    )]
    NotASet(String),
    /// The key set has no key of a kind that is understood.
    #[error(
        "the file of --auth-jwks-file (AUTH_JWKS_FILE) has no key for RS256, ES256 or EdDSA: {0}"
    )]
    NoKey(String),
    /// This build verifies no public-key signatures.
    #[error(
        "--auth-jwks-file (AUTH_JWKS_FILE): this build verifies HS256 only; build with --features full for RS256, ES256 and EdDSA"
    )]
    NoJwks,
    /// A token is to be made, and there is no secret.
    #[error(
        "a token is signed with the secret of --auth-secret-file (AUTH_SECRET_FILE) or AUTH_SECRET, and none is given; make one with: openssl rand -base64 32 > secret"
    )]
    NoSecret,
    /// A token could not be signed.
    #[error("cannot sign a token: {0}")]
    Signing(String),
}

/// Where the keys are.
pub(super) struct Sources {
    secret: Option<Secret>,
    key_set: Option<PathBuf>,
}

enum Secret {
    Given(crate::cli::settings::Secret),
    File(PathBuf),
}

/// What the sources hold.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    secret: Option<Vec<u8>>,
    key_set: Option<Vec<u8>>,
}

/// What tokens are verified with.
pub(super) struct Keys(Vec<Key>);

/// One key, and the only algorithm it is for: a public key that is taken for an HMAC secret would
/// let anybody sign (RFC 8725, section 2.1).
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Sources {
    /// None, if the settings name none.
    pub(super) fn of(args: &AuthArgs) -> Option<Self> {
        let secret = match (&args.auth_secret, &args.auth_secret_file) {
            (Some(secret), _) => Some(Secret::Given(secret.clone())),
            (None, Some(path)) => Some(Secret::File(path.clone())),
            (None, None) => None,
        };
        let key_set = args.auth_jwks_file.clone();
        (secret.is_some() || key_set.is_some()).then_some(Self { secret, key_set })
    }

    /// Reads what they hold now.
    pub(super) fn read(&self) -> Result<Material, KeyError> {
        let secret = match &self.secret {
            Some(Secret::Given(secret)) => Some(secret.expose().trim().as_bytes().to_vec()),
            // Editors and `echo` end a file with a line's end, which is no part of the secret.
            Some(Secret::File(path)) => {
                Some(read(path, "secret that signs tokens")?.trim_ascii().to_vec())
            }
            None => None,
        };
        let key_set = self.key_set.as_ref().map(|path| read(path, "keys that verify tokens"));
        Ok(Material { secret, key_set: key_set.transpose()? })
    }
}

fn read(path: &PathBuf, what: &'static str) -> Result<Vec<u8>, KeyError> {
    let unreadable =
        |why: io::Error| KeyError::Unreadable { path: path.clone(), what, why: why.to_string() };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(unreadable(io::Error::other(format!("it is larger than {MAX_FILE} bytes"))));
    }
    std::fs::read(path).map_err(unreadable)
}

impl Material {
    /// The secret, for signing.
    pub(super) fn signing_key(&self) -> Result<EncodingKey, KeyError> {
        let secret = self.secret.as_ref().ok_or(KeyError::NoSecret)?;
        strong(secret).map(EncodingKey::from_secret)
    }

    pub(super) fn into_keys(self) -> Result<Keys, KeyError> {
        let mut keys = Vec::new();
        if let Some(secret) = &self.secret {
            let key = DecodingKey::from_secret(strong(secret)?);
            keys.push(Key { id: None, algorithm: Algorithm::HS256, key });
        }
        if let Some(set) = &self.key_set {
            if !cfg!(feature = "jwks") {
                return Err(KeyError::NoJwks);
            }
            keys.extend(public_keys(set)?);
        }
        Ok(Keys(keys))
    }
}

fn strong(secret: &[u8]) -> Result<&[u8], KeyError> {
    if secret.len() < MIN_SECRET { Err(KeyError::Weak(secret.len())) } else { Ok(secret) }
}

fn public_keys(set: &[u8]) -> Result<Vec<Key>, KeyError> {
    /// One by one, so that a key of an unknown kind does not spoil the others (RFC 7517, section 5).
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set =
        serde_json::from_slice(set).map_err(|error| KeyError::NotASet(error.to_string()))?;
    let mut keys = Vec::new();
    let mut reasons = Vec::new();
    for (number, key) in set.keys.into_iter().take(MAX_KEYS).enumerate() {
        match public_key(key) {
            Ok(key) => keys.push(key),
            Err(why) => {
                tracing::warn!(key = number, why, "a key of the key set cannot be used");
                reasons.push(format!("key {number} {why}"));
            }
        }
    }
    if keys.is_empty() {
        let why = if reasons.is_empty() { "it has none at all".into() } else { reasons.join(", ") };
        return Err(KeyError::NoKey(why));
    }
    Ok(keys)
}

fn public_key(key: Value) -> Result<Key, String> {
    let key: Jwk = serde_json::from_value(key).map_err(|error| format!("is no key: {error}"))?;
    if key.common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
        return Err("is not for signatures".into());
    }
    let (algorithm, name) = match &key.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        // A secret among public keys is a mistake: key sets are made to be shown.
        _ => return Err("is not RSA, P-256 or Ed25519".into()),
    };
    if key.common.key_algorithm.is_some_and(|meant| meant != name) {
        return Err("is for another algorithm".into());
    }
    let decoding = DecodingKey::from_jwk(&key).map_err(|error| format!("is broken: {error}"))?;
    Ok(Key { id: key.common.key_id, algorithm, key: decoding })
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Those that may have signed a token with this header.
    pub(super) fn candidates(&self, header: &Header) -> impl Iterator<Item = &DecodingKey> {
        self.0
            .iter()
            .filter(|key| {
                let same = match (&key.id, &header.kid) {
                    (Some(ours), Some(theirs)) => ours == theirs,
                    _ => true,
                };
                same && key.algorithm == header.alg
            })
            .map(|key| &key.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 8037, appendix A.2.
    #[test]
    fn a_key_set_is_usable_or_refused_with_the_feature_that_is_missing() {
        let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let keys = Material { secret: None, key_set: Some(set.into()) }.into_keys();
        if cfg!(feature = "jwks") {
            assert_eq!(keys.map(|keys| keys.len()), Ok(1));
        } else {
            let error = keys.map(|keys| keys.len()).expect_err("no such algorithms").to_string();
            assert!(error.contains("--auth-jwks-file") && error.contains("--features"), "{error}");
        }
    }
}
