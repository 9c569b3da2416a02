//! What an instance believes of its peers, and what it tells of them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    http::{HeaderMap, header},
    response::IntoResponse,
};
use e2e::{World, until};
use parking_lot::Mutex;
use reqwest::Response;
use serde_json::Value;
use tokio::net::TcpListener;

/// Starts a second consumer that tells its peers this URL, and returns a user of its partitions.
async fn start_consumer_at(world: &mut World, url: &str) -> i64 {
    world.start_consumer(1, &["--advertise", url]).await;
    for number in [0, 1] {
        world.await_ready(&world.nth_consumer_url(number, "")).await;
    }
    until(|| async {
        for user in 1..=4 {
            let url = world.nth_consumer_url(1, &format!("/notifications/{user}"));
            let request = world.http().get(url).header("x-notifications-hop", "1");
            if request.send().await.expect("an answer").status() == 200 {
                return Ok(user);
            }
        }
        Err("the second consumer owns no inbox yet")
    })
    .await
}

/// Asks consumer 0 with a cookie until the response is as expected.
async fn read_until(world: &World, user: i64, expected: impl Fn(&Response) -> bool) -> Response {
    until(|| async {
        let url = world.consumer_url(&format!("/notifications/{user}"));
        let request = world.http().get(url).header("cookie", "session=1").bearer_auth("token");
        let response = request.send().await.expect("an answer");
        if expected(&response) { Ok(response) } else { Err(response.status()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_does_not_answer_is_named_in_the_503() {
    let mut world = World::mock().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let user = start_consumer_at(&mut world, &url).await;
    let body = until(|| async {
        let asked = world.http().get(world.consumer_url(&format!("/notifications/{user}")));
        let response = asked.send().await.expect("an answer");
        assert_eq!(response.status(), 503);
        let body: Value = response.json().await.expect("JSON");
        if body["state"] == "unreachable" { Ok(body) } else { Err(body) }
    })
    .await;
    assert_eq!(body["owner"], *url);
    let message = body["message"].as_str().unwrap_or_default();
    assert!(message.contains(&url) && message.contains("does not answer"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_gets_no_cookie_and_sets_no_cookie_policy_or_page() {
    let mut world = World::mock().await;
    let (asked, html) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let peer = Router::new().fallback({
        let (asked, html) = (Arc::clone(&asked), Arc::clone(&html));
        move |headers: HeaderMap| async move {
            asked.lock().push(headers);
            let html = html.load(Ordering::Relaxed);
            let media_type = if html { "text/html" } else { "application/json" };
            let set = [
                (header::CONTENT_TYPE, media_type),
                (header::ETAG, "\"peer\""),
                (header::SET_COOKIE, "session=theirs"),
                (header::CONTENT_SECURITY_POLICY, "script-src *"),
                (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
            ];
            (set, "{}").into_response()
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, peer).await });
    let user = start_consumer_at(&mut world, &url).await;

    let passed_on = read_until(&world, user, |response| response.status() == 200).await;
    assert_eq!(passed_on.headers()[header::ETAG], "\"peer\"");
    for name in
        [header::SET_COOKIE, header::CONTENT_SECURITY_POLICY, header::ACCESS_CONTROL_ALLOW_ORIGIN]
    {
        assert!(!passed_on.headers().contains_key(&name), "{name}");
    }
    let asked = asked.lock().clone();
    assert!(asked.iter().all(|headers| headers.contains_key(header::AUTHORIZATION)));
    assert!(asked.iter().all(|headers| !headers.contains_key(header::COOKIE)));

    html.store(true, Ordering::Relaxed);
    let refused = read_until(&world, user, |response| response.status() != 200).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
}
