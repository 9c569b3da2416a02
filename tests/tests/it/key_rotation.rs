//! Keys that change while the services run.

#[cfg(feature = "full")]
use std::time::Duration;

use e2e::{
    World,
    stream_client::{StreamClient, Transport},
    tokens::Issuer,
};
#[cfg(feature = "full")]
use e2e::{tokens::KeyFiles, until};
#[cfg(feature = "full")]
use jsonwebtoken::Algorithm;
use reqwest::StatusCode;

use super::guarded::{SECRET, with_authentication};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_ends_the_streams_of_the_old_one_and_lets_none_of_them_back() {
    let (mut world, files) = with_authentication(World::embedded().await).await;
    world.send_with(&Issuer::with_secret(SECRET).issue_token(Some("2"), "send"), 2, 1).await;
    world.stop_consumer(0).await;
    let secret = files.write_secret(SECRET);
    world.start_consumer(0, &["--auth-secret-file", &secret, "--auth-reread", "20ms"]).await;
    let base = world.consumer_url("");
    world.await_ready(&base).await;
    let token = Issuer::with_secret(SECRET).issue_token(Some("1"), "");
    let query = format!("access_token={token}");
    let mut streams = Vec::new();
    for transport in Transport::ALL {
        let mut stream = StreamClient::open(transport, &base, 1, &query).await.expect("a stream");
        stream.expect_event("state").await;
        stream.expect_event("notification").await;
        streams.push((transport, stream));
    }
    let waiting = world.http().get(format!("{base}/notifications/1?unread=true&since=0s&wait=60"));
    let waiting = tokio::spawn(waiting.bearer_auth(&token).send());

    files.write_secret("another secret of at least 32 bytes, the next one");
    for (transport, stream) in &mut streams {
        // Heartbeats are every 15 s, so the change of keys itself ended the stream.
        assert_eq!(stream.expect_event("end").await["reason"], "revoked", "{transport:?}");
        let refused = StreamClient::open(*transport, &base, 1, &query).await.err();
        assert_eq!(refused.expect("a refusal").0, 401, "{transport:?}");
    }
    let waited = waiting.await.expect("no panic").expect("an answer");
    assert_eq!(waited.status(), StatusCode::UNAUTHORIZED);
}

#[cfg(feature = "full")]
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stays_in_the_set_keeps_its_streams_open() {
    let files = KeyFiles::new();
    let issuers = [Algorithm::ES256, Algorithm::EdDSA]
        .map(|algorithm| Issuer::with_private_key(algorithm, &format!("{algorithm:?}")));
    let path = files.write_key_set(&[&issuers[0], &issuers[1]]);
    let mut world = World::embedded().await;
    world.restart_with(&["--auth-jwks-file", &path, "--auth-reread", "20ms"]).await;
    let base = world.consumer_url("");
    world.await_ready(&base).await;
    let mut streams = Vec::new();
    for issuer in &issuers {
        let query = format!("access_token={}", issuer.issue_token(Some("1"), ""));
        let mut stream =
            StreamClient::open(Transport::Sse, &base, 1, &query).await.expect("a stream");
        stream.expect_event("state").await;
        streams.push(stream);
    }
    files.write_key_set(&[&issuers[0]]);
    assert_eq!(streams[1].expect_event("end").await["reason"], "revoked");
    world.send_with(&issuers[0].issue_token(Some("2"), "send"), 2, 1).await;
    streams[0].expect_event("notification").await;
}

#[cfg(feature = "full")]
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_without_a_restart() {
    let files = KeyFiles::new();
    let issuers = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
        .map(|algorithm| Issuer::with_private_key(algorithm, &format!("{algorithm:?}")));
    let path = files.write_key_set(&[&issuers[0], &issuers[1]]);
    let mut world = World::embedded().await;
    world.restart_with(&["--auth-jwks-file", &path, "--auth-reread", "20ms"]).await;
    world.await_ready(&world.consumer_url("")).await;
    let statuses = async |world: &World| {
        let mut statuses = Vec::new();
        for issuer in &issuers {
            let request = world.http().get(world.consumer_url("/notifications/1"));
            let request = request.bearer_auth(issuer.issue_token(Some("1"), ""));
            statuses.push(request.send().await.expect("an answer").status().as_u16());
        }
        statuses
    };
    assert_eq!(statuses(&world).await, [200, 200, 401]);
    // A token signed with a public key as HS256 secret, or with a known key id only, is refused.
    let public = issuers[0].public_jwk()["n"].as_str().expect("a modulus").to_owned();
    let forged = Issuer::with_secret(&public).issue_token(Some("1"), "");
    let other = Issuer::with_private_key(Algorithm::RS256, "RS256").issue_token(Some("1"), "");
    for token in [forged, other] {
        let request = world.http().get(world.consumer_url("/notifications/1")).bearer_auth(token);
        assert_eq!(request.send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    }
    files.write_key_set(&[&issuers[1], &issuers[2]]);
    until(|| async {
        let found = statuses(&world).await;
        if found == [401, 200, 200] { Ok(()) } else { Err(found) }
    })
    .await;
    // An invalid key set leaves the previous keys in use.
    files.replace_file("keys.json", "{\"keys\":");
    let mut checks = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..10 {
        checks.tick().await;
        assert_eq!(statuses(&world).await, [401, 200, 200]);
    }
}
