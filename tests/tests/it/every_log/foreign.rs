//! Records that other producers wrote.

use e2e::{World, world::{home, messages, PARTITIONS}};

fn record(to: i64, message: &str) -> String {
    format!(r#"{{"from":{{"id":2,"name":"Bruno"}},"to":{{"id":{to},"name":"Emma"}},"message":"{message}"}}"#)
}

pub(crate) async fn tutorial_record(world: World) {
    let at = world.append_raw(home(1), "1", &record(1, "from Go")).await;
    world.expect_inbox(1, &["from Go".into()]).await;
    let page = world.read(1).await;
    // Without headers, its id is its place in the log.
    let place = format!("{}-{}", at.partition, at.offset);
    assert_eq!(page["notifications"][0]["id"], place);
    assert_eq!(page["notifications"][0]["cursor"], place);
}

pub(crate) async fn poison(world: World) {
    world.send(2, 1, "before").await;
    for value in ["not json", "{}", "", "[1]", r#"{"from":{"id":2,"name":"B"},"message":"to nobody"}"#] {
        world.append_raw(home(1), "1", value).await;
    }
    world.send(2, 1, "after").await;
    world.expect_inbox(1, &["before".into(), "after".into()]).await;
}

pub(crate) async fn misplaced(world: World) {
    let elsewhere = (home(1) + 1) % i32::try_from(PARTITIONS).expect("few");
    world.append_raw(elsewhere, "1", &record(1, "astray")).await;
    world.send(2, 1, "at home").await;
    e2e::until(|| async {
        let mut found = messages(&world.read(1).await);
        found.sort();
        if found == ["astray", "at home"] { Ok(()) } else { Err(found) }
    })
    .await;
}

pub(crate) async fn order(world: World) {
    world.send(2, 1, "0").await;
    let url = world.producer("/send");
    for n in 1..200 {
        let body = format!("from_id=2&to_id=1&message={n}");
        let request = world.http().post(&url).header("content-type", "application/x-www-form-urlencoded");
        assert_eq!(request.body(body).send().await.expect("an answer").status(), 200);
    }
    let expected: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    world.expect_inbox(1, &expected).await;
}
