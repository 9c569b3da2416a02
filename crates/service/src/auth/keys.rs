//! The keys that verify tokens, and their files.

use std::{fs, path::Path, sync::Arc};

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{AuthArgs, remembered::RememberedTokens};

/// As long as the hash (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_KEYS: usize = 64;

/// Why keys cannot be loaded. Holds no content of the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(pub(super) String);

/// The content of the sources.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyMaterial {
    secret: Option<Vec<u8>>,
    key_set: Option<Vec<u8>>,
}

/// The keys that verify tokens, and the tokens that they have verified.
pub(super) struct VerificationKeys {
    keys: Vec<Key>,
    pub(super) remembered: RememberedTokens,
}

/// A key and its only algorithm: if a public key could serve as an HMAC secret, anyone could sign
/// (RFC 8725, section 2.1).
pub(super) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    source: KeySource,
    pub(super) decoding: DecodingKey,
    /// Cancelled once the key is withdrawn. What was opened with a token of this key waits for it.
    pub(super) withdrawn: Arc<CancellationToken>,
}

/// What a key was made from.
#[derive(PartialEq)]
enum KeySource {
    Secret(Vec<u8>),
    Public(AlgorithmParameters),
}

impl Key {
    /// Returns true if both verify the same tokens.
    fn is_same(&self, other: &Self) -> bool {
        (&self.id, self.algorithm, &self.source) == (&other.id, other.algorithm, &other.source)
    }
}

impl KeyMaterial {
    /// Reads the files that the settings name.
    pub(super) fn read(args: &AuthArgs) -> Result<Self, KeyError> {
        let secret = match (&args.auth_secret, &args.auth_secret_file) {
            (Some(secret), _) => Some(secret.expose().trim().as_bytes().to_vec()),
            // A line break at the end of the file is not part of the secret.
            (None, Some(path)) => {
                Some(read_key_file(path, "secret that signs tokens")?.trim_ascii().to_vec())
            }
            (None, None) => None,
        };
        let key_set = args.auth_jwks_file.as_ref();
        let key_set = key_set.map(|path| read_key_file(path, "keys that verify tokens"));
        Ok(Self { secret, key_set: key_set.transpose()? })
    }

    pub(super) fn secret(&self) -> Option<&[u8]> {
        self.secret.as_deref()
    }

    pub(super) fn signing_key(&self) -> Result<EncodingKey, KeyError> {
        match &self.secret {
            Some(secret) => check_secret(secret).map(EncodingKey::from_secret),
            None => Err(KeyError(
                "a token is signed with the secret of --auth-secret-file (AUTH_SECRET_FILE) or AUTH_SECRET, and none is \
                 given; make one with: openssl rand -base64 32 > secret"
                    .into(),
            )),
        }
    }

    pub(super) fn into_keys(self) -> Result<VerificationKeys, KeyError> {
        let mut keys = Vec::new();
        if let Some(secret) = &self.secret {
            keys.push(Key {
                id: None,
                algorithm: Algorithm::HS256,
                source: KeySource::Secret(secret.clone()),
                decoding: DecodingKey::from_secret(check_secret(secret)?),
                withdrawn: Arc::default(),
            });
        }
        if let Some(set) = &self.key_set {
            keys.extend(public_keys(set)?);
        }
        Ok(VerificationKeys { keys, remembered: RememberedTokens::default() })
    }
}

fn read_key_file(path: &Path, what: &str) -> Result<Vec<u8>, KeyError> {
    let unreadable = |why| KeyError(format!("cannot read {}, the {what}: {why}", path.display()));
    let size = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(unreadable(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    fs::read(path).map_err(|error| unreadable(error.to_string()))
}

fn check_secret(secret: &[u8]) -> Result<&[u8], KeyError> {
    if secret.len() >= MIN_SECRET_BYTES {
        return Ok(secret);
    }
    Err(KeyError(format!(
        "the secret that signs tokens has {} bytes, and must have at least {MIN_SECRET_BYTES}; \
         make one with: openssl rand -base64 32",
        secret.len()
    )))
}

fn public_keys(set: &[u8]) -> Result<Vec<Key>, KeyError> {
    /// Parsed one by one: a key of an unknown kind must be ignored (RFC 7517, section 5).
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let flag = "--auth-jwks-file (AUTH_JWKS_FILE)";
    if !cfg!(feature = "jwks") {
        return Err(KeyError(format!(
            "{flag}: this build verifies HS256 only; build with --features full for RS256, ES256 and EdDSA"
        )));
    }
    let set: Set = serde_json::from_slice(set).map_err(|error| {
        KeyError(format!("the file of {flag} is not a JSON Web Key Set, {{\"keys\":[…]}}: {error}"))
    })?;
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
        return Err(KeyError(format!(
            "the file of {flag} has no key for RS256, ES256 or EdDSA: {why}"
        )));
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
        // A symmetric key in a public key set is a mistake.
        _ => return Err("is not RSA, P-256 or Ed25519".into()),
    };
    if key.common.key_algorithm.is_some_and(|meant| meant != name) {
        return Err("is for another algorithm".into());
    }
    let decoding = DecodingKey::from_jwk(&key).map_err(|error| format!("is broken: {error}"))?;
    let source = KeySource::Public(key.algorithm);
    Ok(Key { id: key.common.key_id, algorithm, source, decoding, withdrawn: Arc::default() })
}

impl VerificationKeys {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys that may have signed a token with this header.
    pub(super) fn matching_keys(&self, header: &Header) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(|key| {
            let same = match (&key.id, &header.kid) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            };
            same && key.algorithm == header.alg
        })
    }

    /// Continues the keys of `earlier` that are here too.
    pub(super) fn continue_from(&mut self, earlier: &Self) {
        for key in &mut self.keys {
            if let Some(same) = earlier.keys.iter().find(|other| other.is_same(key)) {
                key.withdrawn = Arc::clone(&same.withdrawn);
            }
        }
    }

    /// Withdraws every key that `later` does not have.
    pub(super) fn withdraw_missing(&self, later: &Self) {
        for key in &self.keys {
            if !later.keys.iter().any(|other| other.is_same(key)) {
                key.withdrawn.cancel();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 8037, appendix A.2.
    #[test]
    fn a_key_set_is_usable_or_refused_with_the_feature_that_is_missing() {
        let set = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let keys = KeyMaterial { secret: None, key_set: Some(set.into()) }.into_keys();
        if cfg!(feature = "jwks") {
            assert_eq!(keys.map(|keys| keys.len()), Ok(1));
        } else {
            let error = keys.map(|keys| keys.len()).expect_err("no such algorithms").to_string();
            assert!(error.contains("--auth-jwks-file") && error.contains("--features"), "{error}");
        }
    }
}
