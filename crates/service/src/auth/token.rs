//! One token: verified, or made.

use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{
    Algorithm, Header, Validation, decode, decode_header, encode, errors::ErrorKind,
};
use serde::{Deserialize, Serialize};

use super::{
    Auth, AuthArgs, Shared, TokenArgs,
    caller::{Caller, Known},
    hs256::install_provider,
    keys::{KeyError, Sources},
    refusal::{LEEWAY, Refusal},
};

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 8 << 10;

/// What we read of a token (RFC 7519, section 4.1; `scope`: RFC 8693, section 4.2). `aud`, `iss`
/// and `nbf` are checked where it is decoded.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    #[serde(default)]
    scope: Scope,
    exp: f64,
}

/// Words in one text, as the RFC says, or a list, as some issuers write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scope {
    Text(String),
    List(Vec<String>),
}

impl Default for Scope {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Auth {
    /// Who this token says that it is.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(&self, token: Option<&str>) -> Result<Caller, Refusal> {
        match (&self.0, token) {
            (None, _) => Ok(Caller::Anybody),
            (Some(_), None) => Err(Refusal::Missing),
            (Some(shared), Some(token)) => shared.verify(token).map(Caller::from),
        }
    }
}

impl Shared {
    fn verify(&self, token: &str) -> Result<Known, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::Invalid);
        }
        // `none` is no algorithm that the library can even read.
        let header = decode_header(token).map_err(|_| Refusal::Invalid)?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        let mut required = vec!["exp", "aud"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let keys = self.keys.read().clone();
        let mut refusal = Refusal::Invalid;
        for key in keys.candidates(&header) {
            match decode::<Claims>(token, key, &validation) {
                Ok(token) => return Ok(token.claims.into()),
                Err(error) => {
                    refusal = match error.kind() {
                        ErrorKind::ExpiredSignature => Refusal::Expired,
                        ErrorKind::ImmatureSignature => Refusal::Early,
                        ErrorKind::InvalidAudience => Refusal::Audience,
                        ErrorKind::InvalidIssuer => Refusal::Issuer,
                        // Another key may have signed it.
                        ErrorKind::InvalidSignature => continue,
                        _ => Refusal::Invalid,
                    };
                    break;
                }
            }
        }
        Err(refusal)
    }
}

impl From<Claims> for Known {
    fn from(claims: Claims) -> Self {
        let scopes = match claims.scope {
            Scope::Text(text) => text.split(' ').map(str::to_owned).collect(),
            Scope::List(list) => list,
        };
        Self { subject: claims.sub, scopes, expires: claims.exp }
    }
}

impl TokenArgs {
    /// Writes a [minted](Self::mint) token to standard output.
    ///
    /// # Errors
    /// As `mint`; [`KeyError::Signing`] when nobody takes it.
    pub fn print(&self, args: &AuthArgs) -> Result<(), KeyError> {
        let token = self.mint(args)?;
        writeln!(std::io::stdout(), "{token}").map_err(|error| KeyError::Signing(error.to_string()))
    }

    /// A token that says this, signed with the secret of the settings.
    ///
    /// # Errors
    /// [`KeyError`], when there is no secret, or none that is good enough.
    pub fn mint(&self, args: &AuthArgs) -> Result<String, KeyError> {
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
        let sources = Sources::of(args).ok_or(KeyError::NoSecret)?;
        let key = sources.read()?.signing_key()?;
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
            .map_err(|error| KeyError::Signing(error.to_string()))
    }
}
