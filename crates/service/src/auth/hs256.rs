//! HS256 (RFC 7518, section 3.2) for builds without the feature `jwks`, whose C library aws-lc
//! provides it otherwise.

#[cfg(not(feature = "jwks"))]
mod provider {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use jsonwebtoken::{
        Algorithm, AlgorithmFamily,
        crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
        errors::{ErrorKind, Result, new_error},
        signature::{Error, Signer, Verifier},
    };
    use sha2::Sha256;

    pub(super) static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| {
            Ok(Box::new(HmacSha256::new(*algorithm, key.family(), key.as_bytes())?))
        },
        verifier_factory: |algorithm, key| {
            Ok(Box::new(HmacSha256::new(*algorithm, key.family(), key.try_get_as_bytes()?)?))
        },
        key_utils: KeyUtils::new_unimplemented(),
    };

    struct HmacSha256(Hmac<Sha256>);

    impl HmacSha256 {
        fn new(algorithm: Algorithm, family: AlgorithmFamily, key: &[u8]) -> Result<Self> {
            if algorithm != Algorithm::HS256 || family != AlgorithmFamily::Hmac {
                return Err(new_error(ErrorKind::UnsupportedAlgorithm));
            }
            let mac = Hmac::new_from_slice(key);
            mac.map(Self).map_err(|_| new_error(ErrorKind::InvalidKeyFormat))
        }
    }

    impl Signer<Vec<u8>> for HmacSha256 {
        fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
            Ok(self.0.clone().chain_update(message).finalize().into_bytes().to_vec())
        }
    }

    impl Verifier<Vec<u8>> for HmacSha256 {
        // `verify_slice` compares in constant time.
        fn verify(&self, message: &[u8], tag: &Vec<u8>) -> std::result::Result<(), Error> {
            self.0.clone().chain_update(message).verify_slice(tag).map_err(|_| Error::new())
        }
    }

    impl JwtSigner for HmacSha256 {
        fn algorithm(&self) -> Algorithm {
            Algorithm::HS256
        }
    }

    impl JwtVerifier for HmacSha256 {
        fn algorithm(&self) -> Algorithm {
            Algorithm::HS256
        }
    }
}

/// Gives `jsonwebtoken` its signatures, once a process. Must run before its first use.
pub fn install_provider() {
    #[cfg(not(feature = "jwks"))]
    // A second call finds the same provider installed.
    let _ = provider::PROVIDER.install_default();
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};

    use super::*;

    /// Test case 2 of RFC 4231.
    #[test]
    fn the_example_of_the_standard_is_signed_and_verified() {
        install_provider();
        let message = b"what do ya want for nothing?";
        let expected = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM";
        let signature = crypto::sign(message, &EncodingKey::from_secret(b"Jefe"), Algorithm::HS256);
        assert_eq!(signature.expect("a signature"), expected);
        let key = DecodingKey::from_secret(b"Jefe");
        let verify = |signature: &str, message: &[u8]| {
            crypto::verify(signature, message, &key, Algorithm::HS256).expect("an answer")
        };
        assert!(verify(expected, message));
        assert!(!verify(expected, b"another message"));
        assert!(!verify("W9zBRr9gdU5qBCQm", message));
    }
}
