//! Every wrong request gets the same kind of body, which says what is wrong.

use e2e::World;
use reqwest::{Method, Response};
use serde_json::Value;

pub(crate) async fn every_row(world: World) {
    world.send(1, 2, "everything is up").await;
    let form = "application/x-www-form-urlencoded";
    let long = format!("from_id=1&to_id=2&message={}", "x".repeat(5000));
    let huge = format!("from_id=1&to_id=2&message={}", "x".repeat(3 << 20));
    for (media_type, body, status, message) in [
        (form, "to_id=2&message=m", 400, "from_id: is missing"),
        (form, "from_id=1&message=m", 400, "to_id: is missing"),
        (form, "from_id=1&to_id=2", 400, "message: is missing"),
        (form, "from_id=one&to_id=2&message=m", 400, "from_id: must be a positive whole number"),
        (form, "from_id=1&to_id=-2&message=m", 400, "to_id: must be a positive whole number"),
        (form, "from_id=1&to_id=2&message=", 400, "message: must not be empty"),
        (form, &long, 400, "message: must have at most 4096 characters"),
        (form, "from_id=1&to_id=99&message=m", 404, "User not found"),
        (form, "from_id=99&to_id=1&message=m", 404, "User not found"),
        (form, "from_id=1&to_id=2&to_id=99&message=m", 404, "User not found"),
        ("application/json", "{\"from_id\":1", 400, "the body is not a JSON object"),
        (
            "application/json",
            "{\"from_id\":1.5,\"to_id\":2,\"message\":\"m\"}",
            400,
            "from_id: must be",
        ),
        ("text/plain", "hello", 415, "the body must be"),
        (
            "application/json; charset=utf-16",
            "{}",
            415,
            "Content-Type: the character set must be UTF-8",
        ),
        (form, &huge, 413, ""),
    ] {
        let request =
            world.http().post(world.producer_url("/send")).header("content-type", media_type);
        let response = request.body(body.to_owned()).send().await.expect("an answer");
        expect_problem(response, status, message).await;
    }
    // An unknown recipient beside a known one: neither got a notification.
    world.expect_inbox(2, &["everything is up".into()]).await;

    for (method, url, status, message) in [
        (Method::GET, world.producer_url("/send"), 405, ""),
        (Method::GET, world.producer_url("/nowhere"), 404, ""),
        (Method::POST, world.consumer_url("/notifications/1"), 405, ""),
        (
            Method::GET,
            world.consumer_url("/notifications/0"),
            400,
            "id: must be a positive whole number",
        ),
        (
            Method::GET,
            world.consumer_url("/notifications/emma"),
            400,
            "id: must be a positive whole number",
        ),
        (Method::GET, world.consumer_url("/notifications"), 404, ""),
        (Method::GET, world.consumer_url("/notifications/%ff"), 400, "path: must be UTF-8"),
        (Method::DELETE, world.consumer_url("/notifications/1/%ff"), 400, "path: must be UTF-8"),
    ] {
        let response = world.http().request(method, url).send().await.expect("an answer");
        expect_problem(response, status, message).await;
    }
}

/// Asserts an RFC 9457 body that also carries `message`, for clients of the tutorial.
async fn expect_problem(response: Response, status: u16, message: &str) {
    assert_eq!(response.status(), status, "{message}");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.expect("JSON");
    let said = problem["message"].as_str().expect("a message");
    assert!(said.starts_with(message), "{said}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["detail"], said);
    assert!(problem["title"].is_string() && problem["type"].is_string());
}
