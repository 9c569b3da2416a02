//! Poison records are copied at least once, and a second copy has the same key.

use crate::harness::{Memory, TOPIC, World, connect, eventually};

#[tokio::test]
async fn poison_is_copied_once_over_a_restart_and_a_replay() {
    let world = World::mock(2);
    for value in ["good", "poison 1", "good", "poison 2", "good"] {
        world.append(1, value).await;
    }
    let memory = Memory::default();
    let reader = world.join(&memory);
    eventually("copied", || reader.dlq_copied() == 2).await;
    reader.stop().await;
    assert_eq!(world.committed(1), 5);

    let memory = Memory::default();
    let reader = world.join(&memory);
    eventually("replayed", || memory.live().len() == 2 && memory.count() == 5).await;
    world.append(1, "poison 3").await;
    world.append(1, "good").await;
    eventually("copied", || reader.dlq_copied() == 1).await;
    reader.stop().await;

    let letters = world.copies().await;
    let values: Vec<_> = letters.iter().map(|seen| seen.value.as_str()).collect();
    assert_eq!(values, ["poison 1", "poison 2", "poison 3"]);
    assert_eq!((letters[2].partition, letters[2].key.as_str()), (1, "notifications/1/5"));
    let headers: Vec<_> =
        letters[2].headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("ce_id", "abc"),
        ("dlq.topic", TOPIC),
        ("dlq.partition", "1"),
        ("dlq.offset", "5"),
        ("dlq.reason", "it is poison"),
        ("dlq.group", world.group.id.as_str()),
    ];
    assert_eq!(headers[..6], expected);
    assert!(headers[6].0 == "dlq.time" && headers[6].1.parse::<u64>().is_ok(), "{headers:?}");
    assert_eq!(headers[7], ("dlq.key", "7"));
}

#[tokio::test]
async fn poison_that_cannot_be_copied_delays_no_record_and_no_commit_passes_it() {
    let world = World::mock(1);
    for value in ["good", "poison", "good", "good"] {
        world.append(0, value).await;
    }
    let mock = world.mock.as_ref().expect("the in-memory broker");
    mock.set_rejecting(true);
    let memory = Memory::default();
    let reader = world.join(&memory);
    eventually("all is read", || memory.count() == 4 && memory.live() == [0]).await;
    eventually("what is before it is committed", || world.committed(0) == 1).await;
    assert_eq!(reader.dlq_copied(), 0);
    // The stop does not pass it either.
    reader.stop().await;
    assert_eq!(world.committed(0), 1);

    mock.set_rejecting(false);
    let reader = world.join(&Memory::default());
    eventually("copied", || reader.dlq_copied() == 1).await;
    reader.stop().await;
    assert_eq!(world.committed(0), 4);
    assert_eq!(world.dead_letters_of(0).await, ["poison"]);
}

#[tokio::test]
async fn a_second_member_takes_partitions_over_and_copies_nothing_again() {
    let world = World::mock(4);
    for partition in 0..4 {
        for value in ["poison", "good"] {
            world.append(partition, value).await;
        }
    }
    let (first, second) = (Memory::default(), Memory::default());
    let one = world.join(&first);
    eventually("copied", || one.dlq_copied() == 4).await;
    let other = world.join_with(&connect(&world.brokers), &second);
    eventually("shared", || first.live().len() == 2 && second.live().len() == 2).await;
    for partition in 0..4 {
        for value in ["poison again", "good"] {
            world.append(partition, value).await;
        }
    }
    let copied = || one.dlq_copied() + other.dlq_copied();
    eventually("copied by their owners", || copied() == 8).await;
    assert_eq!(other.dlq_copied(), 2);
    one.stop().await;
    other.stop().await;
    for partition in 0..4 {
        assert_eq!(world.dead_letters_of(partition).await, ["poison", "poison again"]);
    }
}
