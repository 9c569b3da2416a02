//! Records of foreign producers.

use consumer::dlq::{self, DlqRecord};
use e2e::{
    World,
    world::{PARTITIONS, home_partition, page_messages},
};
use model::{Cursor, Partitioner, TopicNames};

fn record_json(to: i64, message: &str) -> String {
    format!(
        r#"{{"from":{{"id":2,"name":"Bruno"}},"to":{{"id":{to},"name":"Emma"}},"message":"{message}"}}"#
    )
}

pub(crate) async fn tutorial_record(world: World) {
    let at = world.append_raw(home_partition(1), "1", &record_json(1, "from Go")).await;
    world.expect_inbox(1, &["from Go".into()]).await;
    let page = world.read_page(1).await;
    // Without headers, its id is partition and offset.
    let place = format!("{}-{}", at.partition, at.offset);
    assert_eq!(page["notifications"][0]["id"], place);
    let cursor = Cursor::new(at.partition, at.offset).with_epoch(at.epoch);
    assert_eq!(page["notifications"][0]["cursor"], cursor.to_string());
}

pub(crate) async fn poison(mut world: World) {
    world.send(2, 1, "before").await;
    for value in
        ["not json", "{}", "", "[1]", r#"{"from":{"id":2,"name":"B"},"message":"to nobody"}"#]
    {
        world.append_raw(home_partition(1), "1", value).await;
    }
    world.send(2, 1, "after").await;
    world.expect_inbox(1, &["before".into(), "after".into()]).await;

    // Each is copied, with its origin and the reason, and shown once after a replay.
    expect_dlq(&world, 5).await;
    world.stop_consumer(0).await;
    world.start_consumer(0, &[]).await;
    world.expect_inbox(1, &["before".into(), "after".into()]).await;
    let records = expect_dlq(&world, 5).await;
    let mut shown = Vec::new();
    dlq::write_list(&records, &mut shown).expect("written");
    let shown = String::from_utf8(shown).expect("text");
    assert!(shown.contains(&format!("from {} {}-", world.topic, home_partition(1))), "{shown}");
    assert!(shown.contains("not json") && shown.contains("expected ident"), "{shown}");

    // A replayed poison record is copied again.
    let (log, names) =
        (world.backend.connect_log("test-operator"), TopicNames::from_notifications(&world.topic));
    let one = &records[..1];
    let replayed = dlq::replay_records(&log, &names, Partitioner::default(), PARTITIONS, one).await;
    replayed.expect("replayed");
    expect_dlq(&world, 6).await;
}

pub(crate) async fn expect_dlq(world: &World, count: usize) -> Vec<DlqRecord> {
    let (log, topic) = (
        world.backend.connect_log("test-operator"),
        TopicNames::from_notifications(&world.topic).dlq,
    );
    e2e::until(|| async {
        match dlq::read_records(&log, &topic, PARTITIONS).await {
            Ok(records) if records.len() == count => Ok(records),
            other => Err(other.map(|records| records.len())),
        }
    })
    .await
}

pub(crate) async fn misplaced(world: World) {
    let elsewhere = (home_partition(1) + 1) % i32::try_from(PARTITIONS).expect("few");
    world.append_raw(elsewhere, "1", &record_json(1, "astray")).await;
    world.send(2, 1, "at home").await;
    e2e::until(|| async {
        let mut found = page_messages(&world.read_page(1).await);
        found.sort();
        if found == ["astray", "at home"] { Ok(()) } else { Err(found) }
    })
    .await;
}

pub(crate) async fn order(world: World) {
    world.send(2, 1, "0").await;
    let url = world.producer_url("/send");
    for n in 1..200 {
        let body = format!("from_id=2&to_id=1&message={n}");
        let request =
            world.http().post(&url).header("content-type", "application/x-www-form-urlencoded");
        assert_eq!(request.body(body).send().await.expect("an answer").status(), 200);
    }
    let expected: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    world.expect_inbox(1, &expected).await;
}
