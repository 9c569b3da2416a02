//! What a verified token says of whoever sent it, and the words in which they are refused.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::FromRequestParts,
    http::{Extensions, HeaderValue, StatusCode, header, request::Parts},
};
use tokio::time::Instant;

use super::refusal::{LEEWAY_SECONDS, TokenRefusal};
use crate::problem::Problem;

/// Everything.
const ADMIN: &str = "admin";

/// Who asks. Handlers take it as an argument; a route of which nobody
/// [asked](super::Auth::ask) for one answers 500, rather than let anybody in.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Nobody is asked who they are.
    Anybody,
    /// Whom a token says.
    Token(Arc<TokenClaims>),
}

/// What a token says.
#[derive(Debug)]
pub struct TokenClaims {
    pub(super) subject: Option<String>,
    pub(super) scopes: Vec<String>,
    /// Seconds since 1970.
    pub(super) expires: f64,
}

impl Caller {
    /// Whether the caller has this scope; an administrator has every one.
    #[must_use]
    pub fn has_scope(&self, scope: &str) -> bool {
        match self {
            Self::Anybody => true,
            Self::Token(known) => {
                known.scopes.iter().any(|having| having == scope || having == ADMIN)
            }
        }
    }

    /// Whether the caller may do anything.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.has_scope(ADMIN)
    }

    /// Whose token it is, if it is somebody's.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Anybody => None,
            Self::Token(known) => known.subject.as_deref(),
        }
    }

    /// Whether it is the token of this user, in whatever spelling `subject` has.
    #[must_use]
    pub fn is_user<T: FromStr + PartialEq>(&self, user: &T) -> bool {
        self.subject().and_then(|subject| subject.parse::<T>().ok()).as_ref() == Some(user)
    }

    /// From when on the token is not good any more, if it ever is not.
    #[must_use]
    pub fn expires_at(&self) -> Option<Instant> {
        let Self::Token(known) = self else { return None };
        // One second more, because a new request is compared in whole seconds: who is sent away
        // must not be let in again.
        let leeway = Duration::from_secs(LEEWAY_SECONDS + 1);
        let expires = Duration::try_from_secs_f64(known.expires).ok()?.checked_add(leeway)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Instant::now().checked_add(expires.saturating_sub(now))
    }

    /// Lets through whose token is still good, in a request that takes long.
    ///
    /// # Errors
    /// 401.
    pub fn must_be_current(&self) -> Result<(), Problem> {
        match self.expires_at() {
            Some(at) if at <= Instant::now() => Err(TokenRefusal::Expired.into()),
            _ => Ok(()),
        }
    }

    /// Lets through who has this scope.
    ///
    /// # Errors
    /// 403, which names it.
    pub fn must_have(&self, scope: &str) -> Result<(), Problem> {
        if self.has_scope(scope) {
            return Ok(());
        }
        Err(Self::forbidden_problem(&format!("The token lacks the scope {scope}")))
    }

    /// 403: the token is good, but not for this (RFC 6750, section 3.1).
    #[must_use]
    pub fn forbidden_problem(why: &str) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, why).header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer error=\"insufficient_scope\""),
        )
    }
}

impl Caller {
    /// Whom [`Auth::ask`](super::Auth::ask) has left in a request's extensions.
    ///
    /// # Errors
    /// 500 for a route that is not under it, rather than let anybody in.
    pub fn from_extensions(extensions: &Extensions) -> Result<Self, Problem> {
        extensions.get().cloned().ok_or_else(|| {
            tracing::error!("a route takes a caller and is not under authentication");
            Problem::internal()
        })
    }
}

impl From<TokenClaims> for Caller {
    fn from(known: TokenClaims) -> Self {
        Self::Token(Arc::new(known))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::from_extensions(&parts.extensions)
    }
}
