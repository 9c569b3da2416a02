//! A restarted service loses no notification.

use e2e::World;

pub(crate) async fn consumer(mut world: World) {
    let sent: Vec<_> = (0..20).map(|n| format!("before {n}")).collect();
    for message in &sent {
        world.send(1, 2, message).await;
    }
    world.expect_inbox(2, &sent).await;
    let before = world.read_page(2).await;
    world.stop_consumer(0).await;
    world.send(3, 2, "while it was away").await;

    world.start_consumer(0, &[]).await;
    let mut expected = sent;
    expected.push("while it was away".into());
    world.expect_inbox(2, &expected).await;
    let after = world.read_page(2).await;
    // Ids, times and cursors are the same as before, too.
    let count = before["notifications"].as_array().expect("a list").len();
    for index in 0..count {
        assert_eq!(before["notifications"][index], after["notifications"][index]);
    }
}

pub(crate) async fn producer(mut world: World) {
    world.send(1, 2, "before").await;
    world.stop_producer().await;
    world.start_producer(&[]).await;
    world.send(1, 2, "after").await;
    world.expect_inbox(2, &["before".into(), "after".into()]).await;
}
