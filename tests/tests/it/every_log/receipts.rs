//! Receipts of recipients, and their durability.

use e2e::{World, world::page_messages};
use reqwest::{Method, Response};
use serde_json::{Value, json};

async fn send_receipt(world: &World, method: Method, path: &str, body: Option<Value>) -> Response {
    let request = world.http().request(method, world.consumer_url(path));
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    request.send().await.expect("an answer")
}

async fn parse_answer(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    response.json().await.expect("JSON")
}

pub(crate) async fn read_and_dismissed(mut world: World) {
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(world.send(2, 1, &n.to_string()).await["sent"][0].clone());
    }
    let all: Vec<_> = (0..5).map(|n| n.to_string()).collect();
    world.expect_inbox(1, &all).await;
    assert_eq!(world.read_page(1).await["unread"], 5);

    let body = json!({"ids": [sent[3]["id"]]});
    let done = parse_answer(
        send_receipt(&world, Method::POST, "/notifications/1/read", Some(body.clone())).await,
    )
    .await;
    assert_eq!((&done["changed"], &done["unread"]), (&json!(1), &json!(4)));
    // The next read shows what the answer says.
    assert_eq!(world.read_page(1).await["notifications"][3]["read"], true);
    assert!(done.get("unknown").is_none(), "{done}");
    // An id that the inbox does not have is named, and the others are marked all the same.
    let more = json!({"ids": [sent[3]["id"], "z-not-there", "a-not-there"]});
    let some = parse_answer(
        send_receipt(&world, Method::POST, "/notifications/1/unread", Some(more.clone())).await,
    )
    .await;
    assert_eq!((&some["changed"], &some["unread"]), (&json!(1), &json!(5)));
    assert_eq!(some["unknown"], json!(["a-not-there", "z-not-there"]));
    parse_answer(send_receipt(&world, Method::POST, "/notifications/1/read", Some(more)).await)
        .await;
    // A client that lost its selection must not select all.
    for lost in [json!({"ids": null}), json!({"through": null}), json!([null, null]), json!(null)] {
        let answer =
            send_receipt(&world, Method::POST, "/notifications/1/read", Some(lost.clone())).await;
        assert_eq!(answer.status(), 400, "{lost}");
    }
    let again = parse_answer(
        send_receipt(&world, Method::POST, "/notifications/1/read", Some(body.clone())).await,
    )
    .await;
    assert_eq!(again["changed"], 0);
    let back = parse_answer(
        send_receipt(&world, Method::POST, "/notifications/1/unread", Some(body)).await,
    )
    .await;
    assert_eq!((&back["changed"], &back["unread"]), (&json!(1), &json!(5)));

    let through = json!({"through": sent[2]["cursor"]});
    let done = parse_answer(
        send_receipt(&world, Method::POST, "/notifications/1/read", Some(through)).await,
    )
    .await;
    assert_eq!((&done["changed"], &done["unread"]), (&json!(3), &json!(2)));

    let one = format!("/notifications/1/{}", sent[1]["id"].as_str().expect("an id"));
    assert_eq!(
        parse_answer(send_receipt(&world, Method::DELETE, &one, None).await).await["changed"],
        1
    );
    assert_eq!(send_receipt(&world, Method::DELETE, &one, None).await.status(), 404);
    let kept: Vec<_> = ["0", "2", "3", "4"].map(str::to_owned).into();
    world.expect_inbox(1, &kept).await;

    // A restart keeps all of it.
    let before = world.read_page(1).await;
    world.stop_consumer(0).await;
    world.start_consumer(0, &[]).await;
    world.expect_inbox(1, &kept).await;
    assert_eq!(world.read_page(1).await, before);

    let done =
        parse_answer(send_receipt(&world, Method::POST, "/notifications/1/read", None).await).await;
    assert_eq!((&done["changed"], &done["unread"]), (&json!(2), &json!(0)));
    let done =
        parse_answer(send_receipt(&world, Method::DELETE, "/notifications/1", None).await).await;
    assert_eq!(done["changed"], 4);
    assert!(page_messages(&world.read_page(1).await).is_empty());
    world.send(2, 1, "a fresh start").await;
    world.expect_inbox(1, &["a fresh start".into()]).await;

    for (path, body, why) in [
        ("/notifications/1/read", json!({"ids": 7}), "body: must be"),
        ("/notifications/1/read", json!({"what": []}), "body: must be"),
        ("/notifications/1/read", json!({"through": "99-1"}), "through: is of partition 99"),
        (
            "/notifications/1/read",
            json!({"through": "3-1", "ids": []}),
            "through: cannot stand beside ids",
        ),
        ("/notifications/x/read", json!({}), "id: must be"),
    ] {
        let response = send_receipt(&world, Method::POST, path, Some(body)).await;
        assert_eq!(response.status(), 400, "{why}");
        let problem: Value = response.json().await.expect("JSON");
        assert!(problem["message"].as_str().is_some_and(|said| said.starts_with(why)), "{problem}");
    }
}
