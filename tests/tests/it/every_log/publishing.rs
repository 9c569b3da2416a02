//! What senders can rely on: retries, bulk, many recipients, users, browsers.

use std::fmt::Write as _;

use consumer::dlq;
use e2e::{World, until};
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::foreign::expect_dlq;

/// Posts this JSON with this key, and returns the status and the answer.
async fn keyed(world: &World, key: &str, body: &Value) -> (StatusCode, Value) {
    let request = world.http().post(world.producer("/send")).header("idempotency-key", key);
    let response = request.json(body).send().await.expect("an answer");
    (response.status(), response.json().await.expect("JSON"))
}

pub(crate) async fn retry(mut world: World) {
    world.send(1, 2, "first").await;
    let body = json!({"from_id": 1, "to_id": [2, 3], "message": "once"});
    let (status, answer) = keyed(&world, "\"order-7\"", &body).await;
    assert_eq!(status, 200, "{answer}");
    // The same key with and without quotes, for the same and for more people.
    assert_eq!(keyed(&world, "order-7", &body).await, (StatusCode::OK, answer.clone()));
    let more = json!({"from_id": 1, "to_id": [3, 4, 2], "message": "once"});
    let (_, wider) = keyed(&world, "order-7", &more).await;
    assert_eq!(wider["sent"][0], answer["sent"][1]);
    assert_eq!(wider["sent"][2], answer["sent"][0]);

    // A new process knows nothing of it: the id is the same, and the view drops the second copy.
    world.stop_producer().await;
    world.start_producer(&[]).await;
    let again = until(|| async {
        let (status, again) = keyed(&world, "order-7", &body).await;
        if status == 200 { Ok(again) } else { Err(again) }
    })
    .await;
    for n in [0, 1] {
        assert_eq!(again["sent"][n]["id"], answer["sent"][n]["id"]);
        assert_ne!(again["sent"][n]["cursor"], answer["sent"][n]["cursor"]);
    }
    world.send(1, 2, "last").await;
    world.expect_inbox(2, &["first".into(), "once".into(), "last".into()]).await;
    world.expect_inbox(4, &["once".into()]).await;

    // Another sender's key, and no key at all, are other notifications.
    let (_, other) =
        keyed(&world, "order-7", &json!({"from_id": 3, "to_id": 2, "message": "x"})).await;
    assert_ne!(other["sent"][0]["id"], answer["sent"][0]["id"]);
}

pub(crate) async fn reused_key(mut world: World) {
    world.send(1, 2, "first").await;
    let body = |to: Value, message: &str| json!({"from_id": 1, "to_id": to, "message": message});
    assert_eq!(keyed(&world, "k", &body(json!(2), "one")).await.0, 200);
    // To one who had it and one who had not: nothing is sent to anybody.
    let (status, problem) = keyed(&world, "k", &body(json!([3, 2]), "two")).await;
    assert_eq!(status, 422, "{problem}");
    assert!(problem["message"].as_str().is_some_and(|m| m.contains("Idempotency-Key")));
    let mut other = body(json!(2), "one");
    other["category"] = json!("c");
    assert_eq!(keyed(&world, "k", &other).await.0, 422);
    // So the key is still free for the other.
    assert_eq!(keyed(&world, "k", &body(json!(3), "three")).await.0, 200);
    world.expect_inbox(3, &["three".into()]).await;
    world.expect_inbox(2, &["first".into(), "one".into()]).await;

    // A new process knows nothing of it; then the view finds out, and the record is set aside.
    world.stop_producer().await;
    world.start_producer(&[]).await;
    until(|| async {
        let (status, answer) = keyed(&world, "k", &body(json!(2), "two")).await;
        if status == 200 { Ok(()) } else { Err(answer) }
    })
    .await;
    let records = expect_dlq(&world, 1).await;
    let mut shown = Vec::new();
    dlq::write_list(&records, &mut shown).expect("written");
    assert!(String::from_utf8_lossy(&shown).contains("its Idempotency-Key was used before"));
    world.expect_inbox(2, &["first".into(), "one".into()]).await;

    for key in ["", "\"open", "a b"] {
        let (status, problem) = keyed(&world, key, &body(json!(2), "m")).await;
        assert_eq!(
            (status, &problem["field"]),
            (StatusCode::BAD_REQUEST, &"Idempotency-Key".into())
        );
    }
}

pub(crate) async fn content(world: World) {
    world.send(1, 2, "plain").await;
    let data = r#"{"b":1.0,"a":[18446744073709551616,"x  y"]}"#;
    let json = format!(
        r#"{{"from_id":1,"to_id":2,"message":"json","category":"photo","link":"/p/7","data": {data}}}"#
    );
    let request = world.http().post(world.producer("/send"));
    let request = request.header("content-type", "application/json").body(json);
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let form = world
        .post_form("from_id=1&to_id=2&message=form&category=photo&link=https://example.org/?a%26b&data=[1]")
        .await;
    assert_eq!(form.status(), 200);

    let url = world.consumer("/notifications/2");
    let page = until(|| async {
        let page = world.http().get(&url).send().await.expect("an answer").text().await;
        let page = page.expect("a body");
        if page.contains("\"form\"") { Ok(page) } else { Err(page) }
    })
    .await;
    assert!(page.contains(&format!("\"data\":{data}")), "as it was written: {page}");
    let page: Value = serde_json::from_str(&page).expect("JSON");
    let [plain, json, form] = [0, 1, 2].map(|n| &page["notifications"][n]);
    assert!(plain.get("category").is_none() && plain.get("link").is_none());
    assert_eq!((&json["category"], &json["link"]), (&"photo".into(), &"/p/7".into()));
    assert_eq!((&form["link"], &form["data"]), (&"https://example.org/?a&b".into(), &json!([1])));
}

async fn post_bulk(world: &World, key: Option<&str>, body: impl Into<Body>) -> Response {
    let mut request = world.http().post(world.producer("/send"));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.header("content-type", "application/x-ndjson").body(body);
    request.send().await.expect("an answer")
}

async fn results(response: Response) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.expect("a whole body");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

pub(crate) async fn bulk(world: World) {
    world.send(1, 2, "first").await;
    let long = "x".repeat(65 << 10);
    let lines = [
        r#"{"from_id":1,"to_id":2,"message":"a"}"#,
        "",
        r#"{"from_id":1,"to_id":2,"message":""}"#,
        "not json\r",
        r#"{"from_id":1,"to_id":[2,3],"message":"b","category":"c"}"#,
        &long,
        r#"{"from_id":1,"to_id":99,"message":"nobody"}"#,
        r#"{"from_id":1,"to_id":4,"message":"own","idempotency_key":"own"}"#,
        r#"{"from_id":1,"to_id":4,"message":"other","idempotency_key":"own"}"#,
        r#"{"from_id":1,"to_id":2,"message":"the last has no end"}"#,
    ]
    .join("\n");
    let first = results(post_bulk(&world, Some("batch"), lines.clone()).await).await;
    let statuses: Vec<_> =
        first.iter().map(|r| (r["line"].as_u64(), r["status"].as_u64())).collect();
    let expected = [1, 3, 4, 5, 6, 7, 8, 9, 10].into_iter();
    let expected = expected.zip([200, 400, 400, 200, 413, 404, 200, 422, 200]);
    assert_eq!(statuses, expected.map(|(l, s)| (Some(l), Some(s))).collect::<Vec<_>>());
    assert_eq!(first[1]["field"], "message");
    assert_eq!(first[1]["message"], "message: must not be empty");
    assert_eq!(first[3]["sent"].as_array().map(Vec::len), Some(2));
    assert_eq!(first[5]["unknown"], json!([99]));
    for result in [&first[0], &first[3], &first[8]] {
        let sent = &result["sent"][0];
        assert!(sent["to_id"] == 2 && sent["id"].is_string() && sent["cursor"].is_string());
    }

    // With the same key all of it is the same again.
    assert_eq!(results(post_bulk(&world, Some("batch"), lines).await).await, first);
    let expected = ["first", "a", "b", "the last has no end"].map(str::to_owned);
    world.expect_inbox(2, &expected).await;
    world.expect_inbox(4, &["own".into()]).await;

    assert_eq!(results(post_bulk(&world, None, "").await).await, Vec::<Value>::new());
    assert_eq!(post_bulk(&world, Some("\"open"), "").await.status(), 400);
}

pub(crate) async fn large_bulk(world: World) {
    const LINES: usize = 6000;
    world.send(1, 4, "ready").await;
    // More than a request may have as a whole, in chunks that respect no line.
    let mut body = String::new();
    for n in 0..LINES {
        let (to, filler) = (2 + n % 2, "x".repeat(300));
        let _ = writeln!(body, r#"{{"from_id":1,"to_id":{to},"message":"{n} {filler}"}}"#);
    }
    assert!(body.len() > 1 << 20);
    let chunks: Vec<_> = body
        .into_bytes()
        .chunks(7919)
        .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
        .collect();
    let found =
        results(post_bulk(&world, None, Body::wrap_stream(stream::iter(chunks))).await).await;
    assert_eq!(found.len(), LINES);
    for (n, result) in found.iter().enumerate() {
        assert_eq!((&result["line"], &result["status"]), (&json!(n + 1), &json!(200)), "{result}");
    }
    // The inbox keeps the newest 1000: the last of them, in order.
    for to in [2, 3] {
        until(|| async {
            let inbox = world.inbox(to).await;
            let last: Vec<_> = inbox
                .iter()
                .map(|m| m.split(' ').next().and_then(|n| n.parse::<i64>().ok()).expect("a number"))
                .collect();
            let steady = last.windows(2).all(|pair| pair[1] == pair[0] + 2);
            let end = i64::try_from(LINES).expect("small") - 4 + to;
            if steady && last.last() == Some(&end) { Ok(()) } else { Err(last.last().copied()) }
        })
        .await;
    }
}

pub(crate) async fn many(world: World) {
    const MANY: i64 = 3000;
    world.send(1, 2, "ready").await;
    let put = |id: i64| {
        let request = world.http().put(world.producer(&format!("/users/{id}")));
        async move {
            let answer = request.json(&json!({"name": format!("User {id}")})).send().await;
            assert_eq!(answer.expect("an answer").status(), 201);
        }
    };
    stream::iter(1000..1000 + MANY).map(put).buffer_unordered(8).collect::<Vec<()>>().await;
    let ids: Vec<i64> = (1000..1000 + MANY).collect();
    let body = json!({"from_id": 1, "to_id": ids, "message": "to all"});
    let (status, answer) = keyed(&world, "many", &body).await;
    assert_eq!(status, 200, "{answer}");
    let sent = answer["sent"].as_array().expect("a list");
    let to: Vec<_> = sent.iter().map(|sent| sent["to_id"].as_i64().expect("an id")).collect();
    assert_eq!(to, ids);
    assert_eq!(keyed(&world, "many", &body).await, (StatusCode::OK, answer));
    for user in [1000, 2500, 999 + MANY] {
        world.expect_inbox(user, &["to all".into()]).await;
    }
}

pub(crate) async fn users(world: World) {
    world.ready(&world.producer("")).await;
    let ask = async |method: Method, path: &str, body: Option<Value>| {
        let mut request = world.http().request(method, world.producer(path));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    let emma = json!({"id": 1, "name": "Emma"});
    assert_eq!(ask(Method::GET, "/users/1", None).await, (200, emma.clone()));
    let (status, page) = ask(Method::GET, "/users", None).await;
    assert_eq!(status, 200);
    assert_eq!((page["users"].as_array().map(Vec::len), page.get("next")), (Some(4), None));

    let name = |name: &str| Some(json!({"name": name}));
    let kim = json!({"id": 7, "name": "Kim"});
    assert_eq!(ask(Method::PUT, "/users/7", name(" Kim ")).await, (201, kim.clone()));
    assert_eq!(ask(Method::PUT, "/users/7", name("Kim")).await, (200, kim));
    // Page by page, and exactly to the end.
    let (_, first) = ask(Method::GET, "/users?limit=3", None).await;
    assert_eq!((&first["users"][0], &first["next"]), (&emma, &json!(3)));
    let (_, last) = ask(Method::GET, "/users?limit=2&after=3", None).await;
    assert_eq!(last, json!({"users": [{"id": 4, "name": "Lena"}, {"id": 7, "name": "Kim"}]}));

    // What is changed counts for the next send.
    world.send(7, 2, "from Kim").await;
    assert_eq!(ask(Method::PUT, "/users/7", name("Kim Novak")).await.0, 200);
    world.send(7, 2, "from Kim Novak").await;
    world.expect_inbox(2, &["from Kim".into(), "from Kim Novak".into()]).await;
    let page = world.read(2).await;
    assert_eq!(page["notifications"][0]["from"]["name"], "Kim");
    assert_eq!(page["notifications"][1]["from"]["name"], "Kim Novak");
    assert_eq!(ask(Method::DELETE, "/users/7", None).await, (204, Value::Null));
    assert_eq!(world.post_form("from_id=7&to_id=2&message=m").await.status(), 404);
    for method in [Method::GET, Method::DELETE] {
        let (status, problem) = ask(method, "/users/7", None).await;
        assert_eq!((status, &problem["message"]), (404, &"User not found".into()));
    }

    for (method, path, body, field) in [
        (Method::GET, "/users/0", None, "id"),
        (Method::GET, "/users?limit=1001", None, "limit"),
        (Method::GET, "/users?after=x", None, "after"),
        (Method::PUT, "/users/x", name("x"), "id"),
        (Method::PUT, "/users/8", name("a\nb"), "name"),
        (Method::PUT, "/users/8", Some(json!({})), "name"),
    ] {
        let (status, problem) = ask(method, path, body).await;
        assert_eq!((status, &problem["field"]), (400, &field.into()), "{path}");
    }
}

pub(crate) async fn cors(mut world: World) {
    world.stop_producer().await;
    world.start_producer(&["--cors-origins", "https://app.example.org"]).await;
    world.send(1, 2, "ready").await;
    let preflight = async |path: &str, method: &str, origin: &str| {
        let request = world
            .http()
            .request(Method::OPTIONS, world.producer(path))
            .header("origin", origin)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "content-type,idempotency-key");
        request.send().await.expect("an answer")
    };
    for (path, method) in [("/send", "POST"), ("/users/7", "PUT"), ("/users/7", "DELETE")] {
        let response = preflight(path, method, "https://app.example.org").await;
        assert_eq!(response.status(), 200);
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        assert_eq!(header("access-control-allow-origin"), "https://app.example.org");
        assert!(header("access-control-allow-methods").contains(method));
        assert!(header("access-control-allow-headers").contains("idempotency-key"));
        assert_eq!(header("access-control-max-age"), "3600");
        let other = preflight(path, method, "https://other.example.org").await;
        assert!(other.headers().get("access-control-allow-origin").is_none());
    }
    // An answer, an error too, can be read by the page, with what it says of when to come again.
    let request = world.http().post(world.producer("/send")).json(&json!({}));
    let request = request.header("origin", "https://app.example.org");
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example.org");
    let exposed = response.headers()["access-control-expose-headers"].to_str().expect("text");
    assert!(
        exposed.contains("retry-after") && exposed.contains("ratelimit-remaining"),
        "{exposed}"
    );
}

pub(super) async fn rate_limit(mut world: World) {
    world.stop_producer().await;
    world.start_producer(&["--rate-limit", "1", "--rate-burst", "3"]).await;
    world.ready(&world.producer("")).await;
    let send = async |from: i64, to: &[i64]| {
        let answer =
            world.post_json(&json!({ "from_id": from, "to_id": to, "message": "hello" })).await;
        let header = |name: &str| {
            answer.headers().get(name).map(|value| value.to_str().unwrap_or_default().to_owned())
        };
        let said = ["ratelimit-limit", "ratelimit-remaining", "retry-after"].map(header);
        (answer.status().as_u16(), said)
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(send(1, &[2, 3]).await, (200, [text("3"), text("1"), None]));
    // A send is one for each recipient, and all of it or nothing.
    let (status, [limit, left, again]) = send(1, &[2, 3, 4]).await;
    assert_eq!((status, limit, left), (429, text("3"), text("0")));
    assert!(again.is_some_and(|again| (1..=2).contains(&again.parse().unwrap_or(0))));
    // Nobody else has to wait for that, and what never can be sent is said.
    assert_eq!(send(2, &[1]).await.0, 200);
    assert_eq!(send(3, &[1, 2, 3, 4]).await.0, 400);
    // A bulk waits for its turn.
    let line = "{\"from_id\":4,\"to_id\":2,\"message\":\"one of many\"}\n";
    let request = world.http().post(world.producer("/send")).body(line.repeat(5));
    let request = request.header("content-type", "application/x-ndjson");
    let answer = request.send().await.expect("an answer").text().await.expect("lines");
    assert_eq!(answer.matches("\"status\":200").count(), 5, "{answer}");
}
