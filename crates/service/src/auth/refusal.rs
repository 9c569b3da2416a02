//! Why a token opens nothing, and how that is said.

use axum::http::{HeaderValue, StatusCode, header};

use crate::problem::Problem;

/// By how many seconds clocks may differ.
pub(super) const LEEWAY_SECONDS: u64 = 10;

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// There is none.
    #[error("A token is needed: Authorization: Bearer …")]
    Missing,
    /// It was good once.
    #[error("The token has expired")]
    Expired,
    /// It will be good later.
    #[error("The token is not valid yet")]
    Early,
    /// It is for somebody else.
    #[error("The token is for another audience")]
    Audience,
    /// Somebody else has issued it.
    #[error("The token is of another issuer")]
    Issuer,
    /// It is none, or nobody whom we know has signed it.
    #[error("The token cannot be verified")]
    Invalid,
}

impl From<TokenRefusal> for Problem {
    /// 401 with what RFC 6750, section 3, asks for.
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
