//! The authenticated caller and its permissions, or why its token is rejected.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::FromRequestParts,
    http::{Extensions, HeaderValue, StatusCode, header, request::Parts},
};
use serde::{Deserialize, Deserializer};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;

/// Tolerated clock difference.
pub(super) const LEEWAY_SECONDS: u64 = 10;

/// The scope that includes all others.
const ADMIN: &str = "admin";

/// The caller of a route. Handlers take it as an argument; a route outside of
/// [`Auth::require_caller`](super::Auth::require_caller) answers 500.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Authentication is off.
    Anybody,
    /// A verified token.
    Token(Arc<VerifiedToken>),
}

/// The claims of a verified token, and its key's validity.
#[derive(Debug)]
pub struct VerifiedToken {
    pub(super) claims: TokenClaims,
    /// Cancelled once the key that signed the token is no longer in use.
    pub(super) key_withdrawn: Arc<CancellationToken>,
}

/// The claims of a verified token (RFC 7519, section 4.1; `scope`: RFC 8693, section 4.2).
#[derive(Debug, Deserialize)]
pub(super) struct TokenClaims {
    /// Without one, the scope alone decides. `null` is no subject (RFC 7519, section 4.1.2), so such
    /// a token is invalid, rather than one without a subject.
    #[serde(default, deserialize_with = "present")]
    sub: Option<String>,
    #[serde(default)]
    scope: Scope,
    pub(super) exp: f64,
}

/// One text of words, as RFC 8693 says, or a list, as some issuers write it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scope {
    Text(String),
    List(Vec<String>),
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl Default for Scope {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Caller {
    /// Returns true if the caller has this scope, or is an administrator.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Token(known) => {
                let is_enough = |having: &str| having == scope || having == ADMIN;
                match &known.claims.scope {
                    Scope::Text(text) => text.split(' ').any(is_enough),
                    Scope::List(list) => list.iter().any(|having| is_enough(having)),
                }
            }
        }
    }

    /// Returns true for an administrator.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.has_scope(ADMIN)
    }

    /// The token's subject.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Anybody => None,
            Self::Token(known) => known.claims.sub.as_deref(),
        }
    }

    /// Returns true if the subject is this user, in any spelling.
    #[must_use]
    pub fn is_user<T: FromStr + PartialEq>(&self, user: &T) -> bool {
        self.subject().and_then(|subject| subject.parse::<T>().ok()).as_ref() == Some(user)
    }

    /// How long the token stays valid.
    #[must_use]
    pub fn validity(&self) -> TokenValidity {
        let Self::Token(known) = self else {
            return TokenValidity { expires_at: None, key_withdrawn: None };
        };
        // One second more: new requests are compared in whole seconds, and a stream that just ended
        // must not be accepted again.
        let leeway = Duration::from_secs(LEEWAY_SECONDS + 1);
        let expires = Duration::try_from_secs_f64(known.claims.exp).ok();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = expires.and_then(|at| at.checked_add(leeway)).map(|at| at.saturating_sub(now));
        TokenValidity {
            expires_at: left.and_then(|left| Instant::now().checked_add(left)),
            key_withdrawn: Some(Arc::clone(&known.key_withdrawn)),
        }
    }

    /// Checks that the token is still valid, during a long request; 401 otherwise.
    pub fn must_be_current(&self) -> Result<(), Problem> {
        Ok(self.validity().check()?)
    }

    /// Checks that the caller has this scope; 403 otherwise.
    pub fn must_have(&self, scope: &str) -> Result<(), Problem> {
        if self.has_scope(scope) {
            return Ok(());
        }
        Err(Self::forbidden_problem(&format!("The token lacks the scope {scope}")))
    }

    /// 403: the token is valid, but not for this request (RFC 6750, section 3.1).
    #[must_use]
    pub fn forbidden_problem(why: &str) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, why).header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer error=\"insufficient_scope\""),
        )
    }

    /// The caller in a request's extensions; 500 for a route without authentication.
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, Problem> {
        extensions.get().cloned().ok_or_else(|| {
            tracing::error!("a route takes a caller but is not behind authentication");
            Problem::internal()
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::from_extensions(&parts.extensions)
    }
}

/// How long a verified token stays valid: until it expires, or its key is withdrawn.
#[derive(Debug, Clone)]
pub struct TokenValidity {
    expires_at: Option<Instant>,
    key_withdrawn: Option<Arc<CancellationToken>>,
}

impl TokenValidity {
    /// Checks that the token is still valid.
    pub fn check(&self) -> Result<(), TokenRefusal> {
        if self.key_withdrawn.as_ref().is_some_and(|key| key.is_cancelled()) {
            return Err(TokenRefusal::Invalid);
        }
        match self.expires_at {
            Some(at) if at <= Instant::now() => Err(TokenRefusal::Expired),
            _ => Ok(()),
        }
    }

    /// Returns true if there is a token, whose key can be withdrawn.
    pub fn has_key(&self) -> bool {
        self.key_withdrawn.is_some()
    }

    /// Resolves once the token's key is withdrawn.
    pub async fn until_withdrawn(&self) {
        match &self.key_withdrawn {
            Some(withdrawn) => withdrawn.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

/// Why a token is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// The request has no token.
    #[error("A token is needed: Authorization: Bearer …")]
    Missing,
    /// It has expired.
    #[error("The token has expired")]
    Expired,
    /// Its `nbf` is in the future.
    #[error("The token is not valid yet")]
    Early,
    /// Wrong `aud`.
    #[error("The token is for another audience")]
    Audience,
    /// Wrong `iss`.
    #[error("The token is of another issuer")]
    Issuer,
    /// It is malformed, or its signature does not verify.
    #[error("The token cannot be verified")]
    Invalid,
}

impl From<TokenRefusal> for Problem {
    /// 401 with the challenge of RFC 6750, section 3.
    fn from(refusal: TokenRefusal) -> Self {
        let how = match refusal {
            TokenRefusal::Missing => "Bearer realm=\"notifications\"",
            TokenRefusal::Expired => {
                "Bearer realm=\"notifications\", error=\"invalid_token\", error_description=\"expired\""
            }
            _ => "Bearer realm=\"notifications\", error=\"invalid_token\"",
        };
        Self::new(StatusCode::UNAUTHORIZED, refusal.to_string())
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static(how))
    }
}
