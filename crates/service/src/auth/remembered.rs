//! Tokens that were verified a moment ago. Verifying a signature costs 2 to 80 µs, and a client sends
//! the same token with each request.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use super::caller::VerifiedToken;

/// A token that was verified longer ago is verified again.
const REMEMBERED_TTL: Duration = Duration::from_secs(60);

/// At 8 KiB of claims each, which is the most that a token holds, 64 MiB.
const MAX_REMEMBERED: usize = 8192;

/// The tokens that one set of keys has verified. A later set begins with none.
#[derive(Default)]
pub(super) struct RememberedTokens(RwLock<HashMap<TokenHash, Remembered>>);

/// The SHA-256 of a token: the token itself is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash([u8; 32]);

struct Remembered {
    token: Arc<VerifiedToken>,
    verified_at: Instant,
}

impl TokenHash {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl RememberedTokens {
    /// The token of this hash, if it is still valid by its claims.
    pub(super) fn find(&self, hash: &TokenHash) -> Option<Arc<VerifiedToken>> {
        let tokens = self.0.read();
        let known = tokens.get(hash)?;
        (known.is_fresh() && known.token.is_current()).then(|| Arc::clone(&known.token))
    }

    /// Remembers a token that was just verified.
    pub(super) fn insert(&self, hash: TokenHash, token: Arc<VerifiedToken>) {
        let mut tokens = self.0.write();
        if tokens.len() >= MAX_REMEMBERED && !tokens.contains_key(&hash) {
            tokens.retain(|_, known| known.is_fresh());
            if tokens.len() >= MAX_REMEMBERED {
                tokens.clear();
            }
        }
        tokens.insert(hash, Remembered { token, verified_at: Instant::now() });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.read().len()
    }
}

impl Remembered {
    fn is_fresh(&self) -> bool {
        self.verified_at.elapsed() < REMEMBERED_TTL
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use serde_json::{Value, json};

    use super::*;

    fn token(claims: Value) -> Arc<VerifiedToken> {
        let claims = serde_json::from_value(claims).expect("claims");
        Arc::new(VerifiedToken { claims, key_withdrawn: Arc::default() })
    }

    fn now_s() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    }

    #[test]
    fn a_remembered_token_counts_only_while_its_claims_hold() {
        let remembered = RememberedTokens::default();
        let hash = TokenHash::of("a token");
        for (claims, counts) in [
            (json!({ "exp": now_s() + 60 }), true),
            (json!({ "exp": now_s() + 60, "nbf": now_s() - 60 }), true),
            // Beyond the tolerated clock difference.
            (json!({ "exp": now_s() - 11 }), false),
            (json!({ "exp": now_s() + 60, "nbf": now_s() + 30 }), false),
        ] {
            remembered.insert(hash, token(claims.clone()));
            assert_eq!(remembered.find(&hash).is_some(), counts, "{claims}");
        }
        assert!(remembered.find(&TokenHash::of("another")).is_none());
    }

    #[test]
    fn no_more_tokens_are_remembered_than_the_bound_and_the_newest_always_is() {
        let remembered = RememberedTokens::default();
        let one = token(json!({ "exp": now_s() + 60 }));
        for number in 0..=MAX_REMEMBERED {
            let hash = TokenHash::of(&number.to_string());
            remembered.insert(hash, Arc::clone(&one));
            assert!(remembered.len() <= MAX_REMEMBERED);
            assert!(remembered.find(&hash).is_some(), "{number}");
        }
    }
}
