//! Verifies and signs tokens.

use std::{
    io::Write as _,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{
    Algorithm, Header, Validation, decode, decode_header, encode, errors::ErrorKind,
};
use serde::Serialize;

use super::{
    Auth, AuthArgs, AuthState, TokenArgs,
    caller::{Caller, LEEWAY_SECONDS, TokenRefusal, VerifiedToken},
    hs256::install_provider,
    keys::{KeyError, KeyMaterial, VerificationKeys},
    remembered::TokenHash,
};

const MAX_TOKEN_BYTES: usize = 8 << 10;

impl Auth {
    /// The caller that this token identifies.
    pub fn verify_token(&self, token: Option<&str>) -> Result<Caller, TokenRefusal> {
        match (&self.0, token) {
            (None, _) => Ok(Caller::Anybody),
            (Some(_), None) => Err(TokenRefusal::Missing),
            (Some(shared), Some(token)) => shared.verify_signed(token).map(Caller::Token),
        }
    }
}

impl AuthState {
    /// Verifies a token, or finds it among those that these keys have verified.
    fn verify_signed(&self, token: &str) -> Result<Arc<VerifiedToken>, TokenRefusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefusal::Invalid);
        }
        let keys = Arc::clone(&self.keys.read());
        let hash = TokenHash::of(token);
        if let Some(known) = keys.remembered.find(&hash) {
            return Ok(known);
        }
        let verified = Arc::new(self.verify_with(&keys, token)?);
        keys.remembered.insert(hash, Arc::clone(&verified));
        Ok(verified)
    }

    fn verify_with(
        &self,
        keys: &VerificationKeys,
        token: &str,
    ) -> Result<VerifiedToken, TokenRefusal> {
        // `decode_header` knows no algorithm `none`.
        let header = decode_header(token).map_err(|_| TokenRefusal::Invalid)?;
        // No extension is understood here, so a token that demands one is invalid (RFC 7515,
        // section 4.1.11).
        if header.crit.is_some() {
            return Err(TokenRefusal::Invalid);
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.args.auth_audience]);
        let mut required = vec!["exp", "aud"];
        if let Some(issuer) = &self.args.auth_issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        for key in keys.matching_keys(&header) {
            let error = match decode(token, &key.decoding, &validation) {
                Ok(token) => {
                    let key_withdrawn = Arc::clone(&key.withdrawn);
                    return Ok(VerifiedToken { claims: token.claims, key_withdrawn });
                }
                Err(error) => error,
            };
            return Err(match error.kind() {
                ErrorKind::ExpiredSignature => TokenRefusal::Expired,
                ErrorKind::ImmatureSignature => TokenRefusal::Early,
                ErrorKind::InvalidAudience => TokenRefusal::Audience,
                ErrorKind::InvalidIssuer => TokenRefusal::Issuer,
                // Another key may have signed it.
                ErrorKind::InvalidSignature => continue,
                _ => TokenRefusal::Invalid,
            });
        }
        Err(TokenRefusal::Invalid)
    }
}

impl TokenArgs {
    /// Prints a [new token](Self::mint_token).
    pub fn print_token(&self, args: &AuthArgs) -> Result<(), KeyError> {
        let token = self.mint_token(args)?;
        writeln!(std::io::stdout(), "{token}")
            .map_err(|error| KeyError(format!("cannot sign a token: {error}")))
    }

    /// Signs a token of these claims with the configured secret.
    pub fn mint_token(&self, args: &AuthArgs) -> Result<String, KeyError> {
        #[derive(Serialize)]
        struct Minted<'m> {
            #[serde(skip_serializing_if = "Option::is_none")]
            sub: Option<&'m str>,
            #[serde(skip_serializing_if = "String::is_empty")]
            scope: String,
            aud: &'m str,
            #[serde(skip_serializing_if = "Option::is_none")]
            iss: Option<&'m str>,
            iat: u64,
            exp: u64,
        }
        install_provider();
        let key = KeyMaterial::read(args)?.signing_key()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Minted {
            sub: self.sub.as_deref(),
            scope: self.scope.join(" "),
            aud: &args.auth_audience,
            iss: args.auth_issuer.as_deref(),
            iat: now,
            exp: now.saturating_add(self.expires.as_secs().max(1)),
        };
        encode(&Header::new(Algorithm::HS256), &claims, &key)
            .map_err(|error| KeyError(format!("cannot sign a token: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jsonwebtoken::EncodingKey;
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "a secret of more than thirty-two bytes, for tests alone";

    fn auth() -> Auth {
        let args = AuthArgs {
            auth_secret_file: None,
            auth_secret: Some(SECRET.to_owned().into()),
            auth_jwks_file: None,
            auth_audience: "notifications".into(),
            auth_issuer: None,
            auth_reread: Duration::from_secs(10),
        };
        Auth::from_args("test", &args).expect("a strong secret")
    }

    fn verify(header: &Header, more_claims: &[(&str, Value)]) -> Result<Caller, TokenRefusal> {
        let mut claims = json!({ "aud": "notifications", "exp": 4_000_000_000_u64 });
        more_claims.iter().for_each(|(name, value)| claims[*name] = value.clone());
        let auth = auth();
        let token = encode(header, &claims, &EncodingKey::from_secret(SECRET.as_bytes()));
        auth.verify_token(Some(&token.expect("a token")))
    }

    #[test]
    fn a_token_that_demands_an_extension_is_refused() {
        let plain = Header::new(Algorithm::HS256);
        assert!(verify(&plain, &[]).is_ok());
        let critical = |crit: &[&str]| Header {
            crit: Some(crit.iter().map(|&name| name.to_owned()).collect()),
            ..plain.clone()
        };
        for crit in [&["b64"][..], &["exp"], &[]] {
            assert_eq!(verify(&critical(crit), &[]).err(), Some(TokenRefusal::Invalid), "{crit:?}");
        }
    }

    #[test]
    fn a_token_is_refused_once_it_has_expired_or_its_key_is_gone_even_if_it_was_verified_before() {
        let auth = auth();
        let shared = auth.0.as_ref().expect("authentication is on");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let sign = |exp: u64| {
            let claims = json!({ "aud": "notifications", "exp": exp });
            let key = EncodingKey::from_secret(SECRET.as_bytes());
            encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
        };
        let (lasting, ending) = (sign(now + 3600), sign(now - LEEWAY_SECONDS + 2));
        for token in [&lasting, &lasting, &ending] {
            assert!(auth.verify_token(Some(token)).is_ok());
        }
        assert_eq!(shared.keys.read().remembered.len(), 2);
        let begun = std::time::Instant::now();
        let mut answer = Ok(());
        while answer.is_ok() && begun.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
            answer = auth.verify_token(Some(&ending)).map(|_| ());
        }
        assert_eq!(answer, Err(TokenRefusal::Expired));
        assert!(auth.verify_token(Some(&lasting)).is_ok());
        let other = KeyMaterial::read(&AuthArgs {
            auth_secret: Some("another secret of more than thirty-two bytes".to_owned().into()),
            ..shared.args.clone()
        });
        *shared.keys.write() = Arc::new(other.and_then(KeyMaterial::into_keys).expect("keys"));
        assert_eq!(auth.verify_token(Some(&lasting)).err(), Some(TokenRefusal::Invalid));
    }

    #[test]
    fn a_subject_is_a_text_or_absent_and_never_null() {
        let header = Header::new(Algorithm::HS256);
        let subject = |value: Value| {
            let caller = verify(&header, &[("scope", json!("send")), ("sub", value)]);
            caller.map(|caller| caller.subject().map(str::to_owned))
        };
        assert_eq!(subject(json!("1")), Ok(Some("1".into())));
        for wrong in [Value::Null, json!(1), json!(["1"])] {
            assert_eq!(subject(wrong.clone()), Err(TokenRefusal::Invalid), "{wrong}");
        }
    }
}
