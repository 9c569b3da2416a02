//! The tutorial's own examples.

use e2e::{World, until, world::page_messages};
use serde_json::{Value, json};

pub(crate) async fn three_sends_and_two_reads(world: World) {
    let sends = [
        (2, 1, "Bruno started following you."),
        (1, 2, "Emma mentioned you in a comment: 'Great seeing you yesterday, @Bruno!'"),
        (4, 1, "Lena liked your post: 'My weekend getaway!'"),
    ];
    let mut answers = Vec::new();
    for (from, to, message) in sends {
        let answer = world.send(from, to, message).await;
        assert_eq!(answer["message"], "Notification sent successfully!");
        assert_eq!(answer["sent"][0]["to_id"], to);
        answers.push(answer["sent"][0].clone());
    }

    let expected = [sends[0].2.to_owned(), sends[2].2.to_owned()];
    world.expect_inbox(1, &expected).await;
    let page = world.read_page(1).await;
    let read = &page["notifications"];
    // The tutorial's fields first, then ours.
    let bruno = json!({"id": 2, "name": "Bruno"});
    let lena = json!({"id": 4, "name": "Lena"});
    let emma = json!({"id": 1, "name": "Emma"});
    for (entry, from, sent) in [(&read[0], bruno, &answers[0]), (&read[1], lena, &answers[2])] {
        assert_eq!((&entry["from"], &entry["to"]), (&from, &emma));
        assert_eq!((&entry["id"], &entry["cursor"]), (&sent["id"], &sent["cursor"]));
        assert_eq!(entry["read"], false);
        assert!(entry["sent_at"].as_str().is_some_and(|time| time.ends_with('Z')), "{entry}");
    }
    assert_eq!(page["unread"], 2);
    assert!(page.get("message").is_none());

    world.expect_inbox(2, &[sends[1].2.to_owned()]).await;
}

pub(crate) async fn several_recipients(world: World) {
    world.send(1, 2, "first").await;
    let form = world.post_form("from_id=1&to_id=2&to_id=3&to_id=4&message=to+all").await;
    let json = world.post_json(&json!({"from_id": 1, "to_id": [3, 4], "message": "to two"})).await;
    for (response, to) in [(form, json!([2, 3, 4])), (json, json!([3, 4]))] {
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().await.expect("JSON");
        let ids: Vec<_> =
            answer["sent"].as_array().expect("a list").iter().map(|s| &s["to_id"]).collect();
        assert_eq!(json!(ids), to);
    }
    world.expect_inbox(2, &["first".into(), "to all".into()]).await;
    world.expect_inbox(3, &["to all".into(), "to two".into()]).await;
    world.expect_inbox(4, &["to all".into(), "to two".into()]).await;
}

pub(crate) async fn nothing_yet(world: World) {
    let page = until(|| async {
        let page = world.read_page(3).await;
        if page_messages(&page).is_empty() { Ok(page) } else { Err(page) }
    })
    .await;
    assert_eq!(page["message"], "No notifications found for user");
    assert_eq!(page["unread"], 0);
}
