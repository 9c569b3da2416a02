//! Who may do what, where callers are asked who they are.

#[cfg(feature = "full")]
use std::time::Duration;

use e2e::{
    World,
    listener::{Listener, Transport},
    process::Standalone,
    tokens::{Issuer, KeyFiles, claims, unsigned},
    until,
};
#[cfg(feature = "full")]
use jsonwebtoken::Algorithm;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const SECRET: &str = "a secret of at least 32 bytes, which this is";

/// What a route is, to those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Everybody may.
    Open,
    /// User 1's inbox.
    Inbox,
    /// For operators.
    Operation,
    /// Sends as user 1.
    Send,
    /// Who user 1 is.
    User,
    /// Who everybody is.
    Users,
    /// Changes who somebody is.
    Change,
}

/// Every route, and what it is. A route that is not here fails the test.
const ROUTES: [(&str, &str, Kind); 23] = [
    ("producer", "POST /send", Kind::Send),
    ("producer", "GET /users", Kind::Users),
    ("producer", "GET /users/{id}", Kind::User),
    ("producer", "PUT /users/{id}", Kind::Change),
    ("producer", "DELETE /users/{id}", Kind::Change),
    ("producer", "GET /metrics", Kind::Operation),
    ("producer", "GET /livez", Kind::Open),
    ("producer", "GET /readyz", Kind::Open),
    ("producer", "GET /openapi.json", Kind::Open),
    ("producer", "GET /docs/", Kind::Open),
    ("consumer", "GET /notifications/{id}", Kind::Inbox),
    ("consumer", "DELETE /notifications/{id}", Kind::Inbox),
    ("consumer", "GET /notifications/{id}/stream", Kind::Inbox),
    ("consumer", "GET /notifications/{id}/ws", Kind::Inbox),
    ("consumer", "POST /notifications/{id}/read", Kind::Inbox),
    ("consumer", "POST /notifications/{id}/unread", Kind::Inbox),
    ("consumer", "DELETE /notifications/{id}/{notification}", Kind::Inbox),
    ("consumer", "GET /partitions", Kind::Operation),
    ("consumer", "GET /metrics", Kind::Operation),
    ("consumer", "GET /livez", Kind::Open),
    ("consumer", "GET /readyz", Kind::Open),
    ("consumer", "GET /openapi.json", Kind::Open),
    ("consumer", "GET /", Kind::Open),
];

/// Somebody who asks: what they are, their token, what they may (all else is 403).
struct Asker {
    name: &'static str,
    token: Option<String>,
    may: Result<&'static [Kind], StatusCode>,
}

fn askers() -> Vec<Asker> {
    use Kind::{Change, Inbox, Operation, Send, User, Users};
    let issuer = Issuer::secret(SECRET);
    let stranger = Issuer::secret("another secret of at least 32 bytes, which is not ours");
    let good = claims(Some("1"), "send admin", 600);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        issuer.sign(&claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(name);
        issuer.sign(&claims)
    };
    let token = issuer.token(Some("1"), "send");
    let (head, _) = token.rsplit_once('.').expect("a token");
    let refused = Err(StatusCode::UNAUTHORIZED);
    let asker = |name, token: String, may| Asker { name, token: Some(token), may };
    vec![
        Asker { name: "nobody", token: None, may: refused },
        asker("rubbish", "rubbish".into(), refused),
        asker("expired", issuer.sign(&claims(Some("1"), "send admin", -60)), refused),
        asker("too early", with("nbf", (jiff::Timestamp::now().as_second() + 600).into()), refused),
        asker("another audience", with("aud", json!("billing")), refused),
        asker("no audience", without("aud"), refused),
        asker("no end", without("exp"), refused),
        asker("a user that is no text", with("sub", json!(1)), refused),
        asker("another signature", stranger.sign(&good), refused),
        asker("a signature cut off", format!("{head}."), refused),
        asker("alg: none", unsigned(&good), refused),
        asker("another user", issuer.token(Some("2"), ""), Ok(&[])),
        asker("another user who may send", issuer.token(Some("2"), "send"), Ok(&[User, Users])),
        asker("a scope that contains another", issuer.token(None, "sender xadmin"), Ok(&[])),
        asker("the user", issuer.token(Some("1"), ""), Ok(&[Inbox, User])),
        asker("the user, who may send", token, Ok(&[Inbox, User, Send, Users])),
        asker("a service that may send", issuer.token(None, "send"), Ok(&[User, Send, Users])),
        asker("a monitor", issuer.token(None, "metrics"), Ok(&[Operation])),
        asker(
            "an administrator",
            issuer.token(Some("9"), "admin"),
            Ok(&[Inbox, Operation, Send, User, Users, Change]),
        ),
        asker(
            "several audiences, scopes as a list",
            {
                let mut claims = claims(Some("1"), "", 600);
                claims["aud"] = json!(["billing", "notifications"]);
                claims["scope"] = json!(["send", "other"]);
                issuer.sign(&claims)
            },
            Ok(&[Inbox, User, Send, Users]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_those_who_may_and_nobody_else() {
    let (world, _files) = guarded(World::embedded().await).await;
    every_route_is_known(&world).await;
    for asker in askers() {
        for (service, route, kind) in ROUTES {
            let (method, path) = route.split_once(' ').expect("a method and a path");
            let path = path.replace("{id}", "1").replace("{notification}", "none");
            let url =
                if service == "producer" { world.producer(&path) } else { world.consumer(&path) };
            let method: Method = method.parse().expect("a method");
            let mut request = world.http().request(method, url);
            if kind == Kind::Send {
                request = request.json(&json!({ "from_id": 1, "to_id": 2, "message": "hello" }));
            }
            if let Some(token) = &asker.token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.expect("an answer");
            let who = format!("{} at {service}'s {route}: {answer:?}", asker.name);
            let status = answer.status();
            let let_in = kind == Kind::Open || asker.may.is_ok_and(|may| may.contains(&kind));
            if let_in {
                assert!(!matches!(status.as_u16(), 401 | 403 | 500..), "{who}");
                continue;
            }
            let expected = asker.may.err().unwrap_or(StatusCode::FORBIDDEN);
            assert_eq!(status, expected, "{who}");
            let how = answer.headers()["www-authenticate"].to_str().expect("text").to_owned();
            assert!(how.starts_with("Bearer"), "{who}");
            let problem: Value = answer.json().await.expect("a problem");
            assert_eq!(problem["status"], expected.as_u16());
        }
    }
}

/// Holds the table against what the services say of themselves.
async fn every_route_is_known(world: &World) {
    for (service, base) in [("producer", world.producer("")), ("consumer", world.consumer(""))] {
        let document = world.http().get(format!("{base}/openapi.json")).send().await;
        let document: Value = document.expect("an answer").json().await.expect("JSON");
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for method in methods.as_object().expect("methods").keys() {
                let route = format!("{} {path}", method.to_uppercase());
                let known = ROUTES.iter().any(|&(at, known, _)| at == service && known == route);
                assert!(known, "{service}'s {route} is not in the table");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sends_as_nobody_else_not_even_in_a_bulk() {
    let (world, _files) = guarded(World::embedded().await).await;
    let token = Issuer::secret(SECRET).token(Some("1"), "send");
    let lines = "{\"from_id\":1,\"to_id\":2,\"message\":\"mine\"}\n{\"from_id\":3,\"to_id\":2,\"message\":\"forged\"}\n";
    let request = world.http().post(world.producer("/send")).bearer_auth(&token);
    let request = request.header("content-type", "application/x-ndjson").body(lines);
    let answer = request.send().await.expect("an answer").text().await.expect("lines");
    let statuses: Vec<_> = answer
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["status"].clone())
        .collect();
    assert_eq!(statuses, [200, 403], "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_takes_its_token_from_the_address_and_ends_when_it_expires() {
    let (mut world, files) = guarded(World::embedded().await).await;
    world.stop_consumer(0).await;
    let secret = files.secret(SECRET);
    world.start_consumer(0, &["--auth-secret-file", &secret, "--heartbeat", "200ms"]).await;
    world.ready(&world.consumer("")).await;
    let issuer = Issuer::secret(SECRET);
    // Clocks may differ by 10 s, which a token gains.
    let token = issuer.sign(&claims(Some("1"), "", -8));
    let base = world.consumer("");
    let query = format!("access_token={token}");
    let mut listeners = Vec::new();
    for transport in Transport::ALL {
        listeners.push(Listener::open(transport, &base, 1, &query).await.expect("a stream"));
    }
    for (listener, transport) in listeners.iter_mut().zip(Transport::ALL) {
        listener.expect("state").await;
        let ended = listener.expect("end").await;
        assert_eq!(ended["reason"], "expired", "{transport:?}");
        let other = format!("access_token={}", issuer.token(Some("2"), ""));
        for (query, expected) in [(query.as_str(), 401), (&other, 403), ("", 401)] {
            let refused = Listener::open(transport, &base, 1, query).await.err();
            assert_eq!(refused.expect("a refusal").0, expected, "{transport:?}");
        }
    }
    // Nowhere else: addresses are remembered by proxies and browsers.
    let url = format!("{base}/notifications/1?access_token={}", issuer.token(Some("1"), ""));
    let answer = world.http().get(url).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[cfg(feature = "full")]
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_without_a_restart() {
    let files = KeyFiles::new();
    let issuers = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
        .map(|algorithm| Issuer::private(algorithm, &format!("{algorithm:?}")));
    let path = files.key_set(&[&issuers[0], &issuers[1]]);
    let mut world = World::embedded().await;
    world.restart_with(&["--auth-jwks-file", &path, "--auth-reread", "20ms"]).await;
    world.ready(&world.consumer("")).await;
    let statuses = async |world: &World| {
        let mut statuses = Vec::new();
        for issuer in &issuers {
            let request = world.http().get(world.consumer("/notifications/1"));
            let request = request.bearer_auth(issuer.token(Some("1"), ""));
            statuses.push(request.send().await.expect("an answer").status().as_u16());
        }
        statuses
    };
    assert_eq!(statuses(&world).await, [200, 200, 401]);
    // A public key is no secret that somebody could sign with, and its name alone proves nothing.
    let public = issuers[0].public()["n"].as_str().expect("a modulus").to_owned();
    let forged = Issuer::secret(&public).token(Some("1"), "");
    let other = Issuer::private(Algorithm::RS256, "RS256").token(Some("1"), "");
    for token in [forged, other] {
        let request = world.http().get(world.consumer("/notifications/1")).bearer_auth(token);
        assert_eq!(request.send().await.expect("an answer").status(), StatusCode::UNAUTHORIZED);
    }
    files.key_set(&[&issuers[1], &issuers[2]]);
    until(|| async {
        let found = statuses(&world).await;
        if found == [401, 200, 200] { Ok(()) } else { Err(found) }
    })
    .await;
    // What is no key set leaves the keys of before in place.
    files.write("keys.json", "{\"keys\":");
    let mut checks = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..10 {
        checks.tick().await;
        assert_eq!(statuses(&world).await, [401, 200, 200]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_on_is_allowed_at_both_or_at_neither() {
    let (mut world, files) = guarded(World::mock().await).await;
    let secret = files.secret(SECRET);
    let issuer = Issuer::secret(SECRET);
    world.start_consumer(1, &["--auth-secret-file", &secret]).await;
    let admin = issuer.token(None, "admin");
    // Both own some, so whichever is asked, one of them has to ask the other.
    until(|| async {
        let mut owners = Vec::new();
        for number in [0, 1] {
            let request = world.http().get(world.consumer_number(number, "/partitions"));
            let answer = request.bearer_auth(&admin).send().await.expect("an answer");
            let answer: Value = answer.json().await.expect("JSON");
            let partitions = answer["partitions"].as_array().expect("a list");
            owners.push(partitions.iter().filter(|one| one["state"] == "live").count());
        }
        if owners.iter().all(|&owned| owned > 0) && owners.iter().sum::<usize>() == 12 {
            Ok(())
        } else {
            Err(owners)
        }
    })
    .await;
    for user in 1..=4 {
        for number in [0, 1] {
            let url = world.consumer_number(number, &format!("/notifications/{user}"));
            let token = |sub: i64| issuer.token(Some(&sub.to_string()), "");
            for (token, expected) in [
                (Some(token(user)), 200),
                (Some(token(user + 1)), 403),
                (Some(admin.clone()), 200),
                (None, 401),
            ] {
                // Whoever says that they are a peer has to have a token all the same.
                for hop in [false, true] {
                    let mut request = world.http().get(&url);
                    if hop {
                        request = request.header("x-notifications-hop", "1");
                    }
                    if let Some(token) = &token {
                        request = request.bearer_auth(token);
                    }
                    let status = request.send().await.expect("an answer").status().as_u16();
                    // The one that is not the owner does not ask a third.
                    let fine = status == expected || hop && expected == 200 && status == 421;
                    assert!(fine, "user {user} at {number}, hop {hop}: {status}, not {expected}");
                }
            }
            let base = world.consumer_number(number, "");
            let query = format!("access_token={}", token(user));
            for transport in Transport::ALL {
                Listener::open(transport, &base, user, &query).await.expect("a stream");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_changes_nothing_where_nobody_is_asked() {
    let world = World::embedded().await;
    world.send(2, 1, "hello").await;
    let form = "from_id=2&to_id=1&message=forged";
    let own = world.producer("");
    for (origin, expected) in [("http://evil.example", 403), ("null", 403), (own.as_str(), 200)] {
        let request = world.http().post(world.producer("/send")).header("origin", origin);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(form).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), expected, "{origin}");
    }
    // A name that somebody points at this machine makes their page's origin ours.
    for (host, expected) in [("evil.example", 403), ("localhost:8081", 200)] {
        let request = world.http().get(world.consumer("/notifications/1")).header("host", host);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), expected, "{host}");
    }
    let request = world.http().delete(world.consumer("/notifications/1"));
    let answer = request.header("origin", "http://evil.example").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    world.expect_inbox(1, &["hello".into(), "forged".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_no_secret_reaches_the_logs() {
    let (files, folder) = (KeyFiles::new(), tempfile::tempdir().expect("a folder"));
    let log = folder.path().join("log");
    let issuer = Issuer::secret(SECRET);
    let flags = ["--auth-secret-file", &files.secret(SECRET), "--log", "trace"];
    let logs = std::fs::File::create(&log).expect("a file").into();
    let standalone = Standalone::start_logging(folder.path(), &flags, logs).await;
    let tokens =
        [issuer.token(Some("1"), "send"), issuer.token(Some("2"), ""), unsigned(&json!({}))];
    let client = reqwest::Client::new();
    for token in &tokens {
        for transport in Transport::ALL {
            let query = format!("access_token={token}");
            let _ = Listener::open(transport, &standalone.consumer, 1, &query).await;
        }
        let url = format!("{}/notifications/1?access_token={token}", standalone.consumer);
        client.get(url).bearer_auth(token).send().await.expect("an answer");
        let body = json!({ "from_id": 1, "to_id": 2, "message": "hello" });
        let request = client.post(format!("{}/send", standalone.producer)).json(&body);
        request.bearer_auth(token).send().await.expect("an answer");
    }
    assert!(standalone.interrupt().await);
    let logged = std::fs::read_to_string(&log).expect("logs");
    assert!(logged.contains("/notifications/{id}/stream"), "requests are logged");
    for secret in tokens.iter().map(String::as_str).chain([SECRET]) {
        let signature = secret.rsplit('.').find(|part| !part.is_empty()).expect("text");
        let found = logged.lines().find(|line| line.contains(signature));
        assert_eq!(found, None);
    }
}

/// This world, with authentication.
async fn guarded(mut world: World) -> (World, KeyFiles) {
    let files = KeyFiles::new();
    let secret = files.secret(SECRET);
    world.restart_with(&["--auth-secret-file", &secret]).await;
    for base in [world.producer(""), world.consumer("")] {
        world.ready(&base).await;
    }
    (world, files)
}
