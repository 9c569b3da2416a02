//! Verifies and signs tokens.

use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{
    Algorithm, Header, Validation, decode, decode_header, encode, errors::ErrorKind,
};
use serde::Serialize;

use super::{
    Auth, AuthArgs, AuthState, TokenArgs,
    caller::{Caller, LEEWAY_SECONDS, TokenClaims, TokenRefusal},
    hs256::install_provider,
    keys::{KeyError, KeyMaterial},
};

const MAX_TOKEN_BYTES: usize = 8 << 10;

impl Auth {
    /// The caller that this token identifies.
    pub fn verify_token(&self, token: Option<&str>) -> Result<Caller, TokenRefusal> {
        match (&self.0, token) {
            (None, _) => Ok(Caller::Anybody),
            (Some(_), None) => Err(TokenRefusal::Missing),
            (Some(shared), Some(token)) => {
                shared.verify_signed(token).map(|claims| Caller::Token(claims.into()))
            }
        }
    }
}

impl AuthState {
    fn verify_signed(&self, token: &str) -> Result<TokenClaims, TokenRefusal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefusal::Invalid);
        }
        // `decode_header` knows no algorithm `none`.
        let header = decode_header(token).map_err(|_| TokenRefusal::Invalid)?;
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
        let keys = self.keys.read().clone();
        for key in keys.matching_keys(&header) {
            let error = match decode(token, key, &validation) {
                Ok(token) => return Ok(token.claims),
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
