//! Authorization: which caller may use which route.

use e2e::{
    World,
    process::Standalone,
    stream_client::{StreamClient, Transport},
    tokens::{Issuer, KeyFiles, unsigned_token, valid_claims},
    until,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

pub(super) const SECRET: &str = "a secret of at least 32 bytes, which this is";

/// A route's protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteKind {
    /// Open to all callers.
    Open,
    /// User 1's inbox.
    Inbox,
    /// For operators.
    Operation,
    /// Sends as user 1.
    Send,
    /// Reads user 1's name.
    User,
    /// Reads all users.
    Users,
    /// Changes a user.
    Change,
}

/// Every route and its protection. A route that is missing here fails the test.
const ROUTES: [(&str, &str, RouteKind); 23] = [
    ("producer", "POST /send", RouteKind::Send),
    ("producer", "GET /users", RouteKind::Users),
    ("producer", "GET /users/{id}", RouteKind::User),
    ("producer", "PUT /users/{id}", RouteKind::Change),
    ("producer", "DELETE /users/{id}", RouteKind::Change),
    ("producer", "GET /metrics", RouteKind::Operation),
    ("producer", "GET /livez", RouteKind::Open),
    ("producer", "GET /readyz", RouteKind::Open),
    ("producer", "GET /openapi.json", RouteKind::Open),
    ("producer", "GET /docs/", RouteKind::Open),
    ("consumer", "GET /notifications/{id}", RouteKind::Inbox),
    ("consumer", "DELETE /notifications/{id}", RouteKind::Inbox),
    ("consumer", "GET /notifications/{id}/stream", RouteKind::Inbox),
    ("consumer", "GET /notifications/{id}/ws", RouteKind::Inbox),
    ("consumer", "POST /notifications/{id}/read", RouteKind::Inbox),
    ("consumer", "POST /notifications/{id}/unread", RouteKind::Inbox),
    ("consumer", "DELETE /notifications/{id}/{notification}", RouteKind::Inbox),
    ("consumer", "GET /partitions", RouteKind::Operation),
    ("consumer", "GET /metrics", RouteKind::Operation),
    ("consumer", "GET /livez", RouteKind::Open),
    ("consumer", "GET /readyz", RouteKind::Open),
    ("consumer", "GET /openapi.json", RouteKind::Open),
    ("consumer", "GET /", RouteKind::Open),
];

/// A caller: name, token, allowed kinds of routes (403 for all others).
struct Caller {
    name: &'static str,
    token: Option<String>,
    may: Result<&'static [RouteKind], StatusCode>,
}

fn all_callers() -> Vec<Caller> {
    use RouteKind::{Change, Inbox, Operation, Send, User, Users};
    let issuer = Issuer::with_secret(SECRET);
    let stranger = Issuer::with_secret("another secret of at least 32 bytes, which is not ours");
    let issue = |sub, scope| issuer.issue_token(sub, scope);
    let good = valid_claims(Some("1"), "send admin", 600);
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        issuer.sign_claims(&claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(name);
        issuer.sign_claims(&claims)
    };
    let token = issue(Some("1"), "send");
    let (head, _) = token.rsplit_once('.').expect("a token");
    let refused = Err(StatusCode::UNAUTHORIZED);
    let asker = |name, token: String, may| Caller { name, token: Some(token), may };
    vec![
        Caller { name: "nobody", token: None, may: refused },
        asker("rubbish", "rubbish".into(), refused),
        asker("expired", issuer.sign_claims(&valid_claims(Some("1"), "send admin", -60)), refused),
        asker("too early", with("nbf", (jiff::Timestamp::now().as_second() + 600).into()), refused),
        asker("another audience", with("aud", json!("billing")), refused),
        asker("no audience", without("aud"), refused),
        asker("no end", without("exp"), refused),
        asker("a user that is no text", with("sub", json!(1)), refused),
        asker("a user that is null", with("sub", Value::Null), refused),
        asker("another signature", stranger.sign_claims(&good), refused),
        asker("a signature cut off", format!("{head}."), refused),
        asker("alg: none", unsigned_token(&good), refused),
        asker("another user", issue(Some("2"), ""), Ok(&[])),
        asker("another user who may send", issue(Some("2"), "send"), Ok(&[User, Users])),
        asker("a scope that contains another", issue(None, "sender xadmin"), Ok(&[])),
        asker("the user", issue(Some("1"), ""), Ok(&[Inbox, User])),
        asker("the user, who may send", token, Ok(&[Inbox, User, Send, Users])),
        asker("a service that may send", issue(None, "send"), Ok(&[User, Send, Users])),
        asker("a monitor", issue(None, "metrics"), Ok(&[Operation])),
        asker(
            "an administrator",
            issue(Some("9"), "admin"),
            Ok(&[Inbox, Operation, Send, User, Users, Change]),
        ),
        asker(
            "several audiences, scopes as a list",
            {
                let mut claims = valid_claims(Some("1"), "", 600);
                claims["aud"] = json!(["billing", "notifications"]);
                claims["scope"] = json!(["send", "other"]);
                issuer.sign_claims(&claims)
            },
            Ok(&[Inbox, User, Send, Users]),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_lets_in_those_who_may_and_nobody_else() {
    let (world, _files) = with_authentication(World::embedded().await).await;
    expect_every_route_listed(&world).await;
    for asker in all_callers() {
        for (service, route, kind) in ROUTES {
            let (method, path) = route.split_once(' ').expect("a method and a path");
            let path = path.replace("{id}", "1").replace("{notification}", "none");
            let url = if service == "producer" {
                world.producer_url(&path)
            } else {
                world.consumer_url(&path)
            };
            let method: Method = method.parse().expect("a method");
            let mut request = world.http().request(method, url);
            if kind == RouteKind::Send {
                request = request.json(&json!({ "from_id": 1, "to_id": 2, "message": "hello" }));
            }
            if let Some(token) = &asker.token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.expect("an answer");
            let who = format!("{} at {service}'s {route}: {answer:?}", asker.name);
            let status = answer.status();
            let let_in = kind == RouteKind::Open || asker.may.is_ok_and(|may| may.contains(&kind));
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

/// Compares the table with the services' OpenAPI documents.
async fn expect_every_route_listed(world: &World) {
    let bases = [("producer", world.producer_url("")), ("consumer", world.consumer_url(""))];
    for (service, base) in bases {
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
    let (world, _files) = with_authentication(World::embedded().await).await;
    let token = Issuer::with_secret(SECRET).issue_token(Some("1"), "send");
    let lines = "{\"from_id\":1,\"to_id\":2,\"message\":\"mine\"}\n{\"from_id\":3,\"to_id\":2,\"message\":\"forged\"}\n";
    let request = world.http().post(world.producer_url("/send")).bearer_auth(&token);
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
    let (mut world, files) = with_authentication(World::embedded().await).await;
    world.stop_consumer(0).await;
    let secret = files.write_secret(SECRET);
    world.start_consumer(0, &["--auth-secret-file", &secret, "--heartbeat", "200ms"]).await;
    world.await_ready(&world.consumer_url("")).await;
    let issuer = Issuer::with_secret(SECRET);
    // A token is accepted for 10 s longer, because clocks may differ.
    let token = issuer.sign_claims(&valid_claims(Some("1"), "", -8));
    let base = world.consumer_url("");
    let query = format!("access_token={token}");
    let mut listeners = Vec::new();
    for transport in Transport::ALL {
        listeners.push(StreamClient::open(transport, &base, 1, &query).await.expect("a stream"));
    }
    for (listener, transport) in listeners.iter_mut().zip(Transport::ALL) {
        listener.expect_event("state").await;
        let ended = listener.expect_event("end").await;
        assert_eq!(ended["reason"], "expired", "{transport:?}");
        let other = format!("access_token={}", issuer.issue_token(Some("2"), ""));
        for (query, expected) in [(query.as_str(), 401), (&other, 403), ("", 401)] {
            let refused = StreamClient::open(transport, &base, 1, query).await.err();
            assert_eq!(refused.expect("a refusal").0, expected, "{transport:?}");
        }
    }
    // Other routes take no token from the query: proxies and browsers log URLs.
    let url = format!("{base}/notifications/1?access_token={}", issuer.issue_token(Some("1"), ""));
    let answer = world.http().get(url).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_on_is_allowed_at_both_or_at_neither() {
    let (mut world, files) = with_authentication(World::mock().await).await;
    let secret = files.write_secret(SECRET);
    let issuer = Issuer::with_secret(SECRET);
    world.start_consumer(1, &["--auth-secret-file", &secret]).await;
    let admin = issuer.issue_token(None, "admin");
    // Both own partitions, so either instance has to forward some requests.
    until(|| async {
        let mut owners = Vec::new();
        for number in [0, 1] {
            let request = world.http().get(world.nth_consumer_url(number, "/partitions"));
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
            let url = world.nth_consumer_url(number, &format!("/notifications/{user}"));
            let token = |sub: i64| issuer.issue_token(Some(&sub.to_string()), "");
            for (token, expected) in [
                (Some(token(user)), 200),
                (Some(token(user + 1)), 403),
                (Some(admin.clone()), 200),
                (None, 401),
            ] {
                // A request with the peers' header still needs a token.
                for hop in [false, true] {
                    let mut request = world.http().get(&url);
                    if hop {
                        request = request.header("x-notifications-hop", "1");
                    }
                    if let Some(token) = &token {
                        request = request.bearer_auth(token);
                    }
                    let status = request.send().await.expect("an answer").status().as_u16();
                    // A forwarded request is not forwarded again.
                    let fine = status == expected || hop && expected == 200 && status == 421;
                    assert!(fine, "user {user} at {number}, hop {hop}: {status}, not {expected}");
                }
            }
            let base = world.nth_consumer_url(number, "");
            let query = format!("access_token={}", token(user));
            for transport in Transport::ALL {
                StreamClient::open(transport, &base, user, &query).await.expect("a stream");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_changes_nothing_where_nobody_is_asked() {
    let world = World::embedded().await;
    world.send(2, 1, "hello").await;
    let form = "from_id=2&to_id=1&message=forged";
    let own = world.producer_url("");
    for (origin, expected) in [("http://evil.example", 403), ("null", 403), (own.as_str(), 200)] {
        let request = world.http().post(world.producer_url("/send")).header("origin", origin);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(form).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), expected, "{origin}");
    }
    // DNS rebinding: a foreign name resolves to this machine, so that Host equals Origin.
    for (host, expected) in [("evil.example", 403), ("localhost:8081", 200)] {
        let request = world.http().get(world.consumer_url("/notifications/1")).header("host", host);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), expected, "{host}");
    }
    let request = world.http().delete(world.consumer_url("/notifications/1"));
    let answer = request.header("origin", "http://evil.example").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    world.expect_inbox(1, &["hello".into(), "forged".into()]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_and_no_secret_reaches_the_logs() {
    let (files, folder) = (KeyFiles::new(), tempfile::tempdir().expect("a folder"));
    let log = folder.path().join("log");
    let issuer = Issuer::with_secret(SECRET);
    let flags = ["--auth-secret-file", &files.write_secret(SECRET), "--log", "trace"];
    let logs = std::fs::File::create(&log).expect("a file").into();
    let standalone = Standalone::start_with_logs(folder.path(), &flags, logs).await;
    let signed =
        [("1", "send"), ("2", "")].map(|(sub, scope)| issuer.issue_token(Some(sub), scope));
    let tokens = [&signed[..], &[unsigned_token(&json!({}))]].concat();
    let client = reqwest::Client::new();
    for token in &tokens {
        for transport in Transport::ALL {
            let query = format!("access_token={token}");
            let _ = StreamClient::open(transport, &standalone.consumer, 1, &query).await;
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

/// Restarts this world with authentication.
pub(super) async fn with_authentication(mut world: World) -> (World, KeyFiles) {
    let files = KeyFiles::new();
    let secret = files.write_secret(SECRET);
    world.restart_with(&["--auth-secret-file", &secret]).await;
    for base in [world.producer_url(""), world.consumer_url("")] {
        world.await_ready(&base).await;
    }
    (world, files)
}
