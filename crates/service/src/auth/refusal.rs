//! Why a token is rejected, and the response.

use axum::http::{HeaderValue, StatusCode, header};

use crate::problem::Problem;

/// Tolerated clock difference.
pub(super) const LEEWAY_SECONDS: u64 = 10;

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
