//! No token but the very one that was signed for us opens anything, and none makes us stumble.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use inputs::{bytes, json, json_string, mutated, mutated_text, text};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    Auth, AuthArgs, Caller, TokenArgs, TokenRefusal,
    layer::{bearer_token, query_token},
};

const SECRET: &str = "a secret of more than thirty-two bytes, for tests alone";

/// What verifies, and a token that it lets in.
static OURS: LazyLock<(Auth, String)> = LazyLock::new(|| {
    let args = AuthArgs {
        auth_secret_file: None,
        auth_secret: Some(SECRET.to_owned().into()),
        auth_jwks_file: None,
        auth_audience: "notifications".into(),
        auth_issuer: None,
        auth_reread: Duration::from_secs(10),
    };
    let token = TokenArgs {
        sub: Some("1".into()),
        scope: vec!["send".into()],
        expires: Duration::from_secs(24 * 60 * 60),
    };
    let token = token.mint_token(&args).expect("a token");
    (Auth::from_args("fuzz", &args).expect("a strong secret"), token)
});

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Members of a JSON object: some of these names with values of any kind, each perhaps twice.
fn members(names: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let value = prop_oneof![json(), json_string(), Just("\"notifications\"".to_owned())];
    vec((select(names), value), 0..3).prop_map(|members| {
        members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect()
    })
}

/// The text of a token's header, which says that it is signed in this way.
fn header_json(algorithm: &'static str) -> impl Strategy<Value = String> {
    members(&["typ", "kid", "crit", "jwk", "jku", "alg", "b64", "x5c"]).prop_map(move |more| {
        let all = [vec![format!("\"alg\":\"{algorithm}\"")], more].concat();
        format!("{{{}}}", all.join(","))
    })
}

fn claims_json() -> impl Strategy<Value = String> {
    let times = prop_oneof![
        4 => (0..100_000_u64).prop_map(|later| (now() + later).to_string()),
        1 => (0..100_000_u64).prop_map(|before| (now() - before).to_string()),
        1 => select(&["1e308", "-1", "0.5", "18446744073709551615", "null", "\"1\""][..])
            .prop_map(String::from),
    ];
    let audience = select(&["\"notifications\"", "[\"notifications\",\"x\"]", "\"x\"", "[]"][..]);
    (times, audience, members(&["sub", "scope", "iss", "nbf", "iat", "jti", "exp", "aud"]))
        .prop_map(|(exp, audience, more)| {
            let all = [vec![format!("\"exp\":{exp}"), format!("\"aud\":{audience}")], more];
            format!("{{{}}}", all.concat().join(","))
        })
}

/// A token of these parts, signed with this secret as HS256 has it.
fn signed(header: &str, claims: &str, secret: &str) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let said = format!("{header}.{claims}");
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = sign(said.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{said}.{signature}")
}

proptest! {
    #[test]
    fn no_token_but_the_one_that_was_made_is_let_in(
        token in prop_oneof![1 => text(), 4 => mutated_text(Just(OURS.1.clone()))],
    ) {
        let verified = OURS.0.verify_token(Some(&token));
        prop_assert_eq!(verified.is_ok(), token == OURS.1, "{}", token);
    }

    #[test]
    fn what_another_secret_or_nobody_signed_is_not_let_in(
        algorithm in select(&["HS256", "HS384", "HS512", "none", "None", "RS256", "ES256", "EdDSA"][..])
            .prop_flat_map(header_json),
        claims in claims_json(), secret in "[!-~]{0,80}", signature in bytes(),
    ) {
        let token = signed(&algorithm, &claims, &secret);
        prop_assert_eq!(OURS.0.verify_token(Some(&token)).err(), Some(TokenRefusal::Invalid));
        let said = token.rsplit_once('.').map_or("", |(said, _)| said);
        for signature in [String::new(), BASE64_URL_SAFE_NO_PAD.encode(&signature)] {
            let token = format!("{said}.{signature}");
            prop_assert_eq!(OURS.0.verify_token(Some(&token)).err(), Some(TokenRefusal::Invalid));
        }
    }

    #[test]
    fn our_secret_signs_for_its_own_algorithm_alone(
        header in select(&["HS384", "HS512", "none", "RS256", "ES256", "EdDSA", "PS256"][..])
            .prop_flat_map(header_json)
            // A second algorithm makes it no header at all.
            .prop_filter("one algorithm", |header| header.matches("\"alg\"").count() == 1),
        claims in claims_json(),
    ) {
        let token = signed(&header, &claims, SECRET);
        prop_assert_eq!(OURS.0.verify_token(Some(&token)).err(), Some(TokenRefusal::Invalid));
    }

    #[test]
    fn what_is_signed_is_let_in_for_us_and_in_its_time_alone(
        claims in prop_oneof![3 => claims_json(), 2 => mutated_text(claims_json()), 1 => json()],
    ) {
        let token = signed("{\"alg\":\"HS256\"}", &claims, SECRET);
        let Ok(caller) = OURS.0.verify_token(Some(&token)) else { return Ok(()) };
        // What nobody asks for may be half a surrogate pair, which a whole value may not.
        let Ok(said) = serde_json::from_str::<serde_json::Value>(&claims) else { return Ok(()) };
        let audience = &said["aud"];
        let ours = |audience: &serde_json::Value| audience == "notifications";
        prop_assert!(ours(audience) || audience.as_array().is_some_and(|all| all.iter().any(ours)));
        prop_assert!(said["exp"].as_f64().is_some_and(|exp| exp + 20.0 > now() as f64));
        prop_assert_eq!(caller.subject(), said["sub"].as_str());
        // Nothing that is asked of it makes it stumble, and nothing is granted that it does not say.
        let admin = caller.is_admin();
        prop_assert!(!admin || said["scope"].to_string().contains("admin"));
        prop_assert!(caller.must_be_current().is_ok());
        let Caller::Token(known) = &caller else { return Err(TestCaseError::fail("nobody")) };
        prop_assert!(known.claims.exp.is_finite());
    }

    #[test]
    fn a_header_or_a_query_holds_the_token_that_stands_there_or_none(
        value in prop_oneof![bytes(), mutated("(Bearer|bearer|BEARER|Basic) {1,3}[!-~]{0,30}".prop_map(String::into_bytes))],
        query in prop_oneof![text(), mutated_text("([a-z]{0,5}=[a-z]{0,3}&){0,3}access_token=[!-~]{0,30}")],
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.insert(header::AUTHORIZATION, value);
        }
        if let Some(token) = bearer_token(&headers) {
            let value = String::from_utf8_lossy(&value).to_ascii_lowercase();
            prop_assert!(value.starts_with("bearer "));
            prop_assert!(value.trim_end().ends_with(&token.to_ascii_lowercase()));
            prop_assert_eq!(token, token.trim());
        }
        if let Ok(uri) = format!("/notifications/1/stream?{query}").parse::<Uri>()
            && let Some(token) = query_token(&uri)
        {
            let stands = format!("access_token={token}");
            prop_assert!(query.contains(&stands) && !token.contains('&'));
        }
    }
}
