//! The lease of a group member: how long it may answer without having heard from the brokers.

use std::time::{Duration, Instant};

use crate::harness::{Memory, SESSION_TIMEOUT, World, eventually};

/// Waits for a lease that ends later than this one, and returns when it ends.
async fn await_renewal(memory: &Memory, last: Option<Instant>) -> Option<Instant> {
    eventually("a renewed lease", || memory.lease() > last).await;
    memory.lease()
}

#[tokio::test]
async fn a_lease_counts_from_when_the_brokers_were_asked_however_late_they_answer() {
    const LATE: Duration = Duration::from_secs(1);
    let world = World::mock(2);
    let memory = Memory::default();
    let reader = world.join(&memory);
    eventually("live", || memory.live() == [0, 1]).await;
    let mut until = await_renewal(&memory, None).await;
    world.mock.as_ref().expect("a mock cluster").set_round_trip(LATE);
    // The commits of the first of these may have been sent before.
    for _ in 0..2 {
        until = await_renewal(&memory, until).await;
    }
    for _ in 0..3 {
        until = await_renewal(&memory, until).await;
        let left = until.map_or(Duration::ZERO, |until| until - Instant::now());
        assert!(left <= SESSION_TIMEOUT - LATE, "{left:?}");
    }
    reader.stop().await;
}

#[tokio::test]
async fn a_member_whose_brokers_are_silent_loses_its_lease_before_its_session_ends() {
    let world = World::mock(1);
    let memory = Memory::default();
    let reader = world.join(&memory);
    let mock = world.mock.as_ref().expect("a mock cluster");
    eventually("live", || memory.live() == [0]).await;
    let until = await_renewal(&memory, None).await;
    // It is renewed while nothing is written.
    await_renewal(&memory, until).await;
    mock.set_up(false);
    let silent_at = Instant::now();
    while let Some(until) = memory.lease() {
        assert!(until < silent_at + SESSION_TIMEOUT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    mock.set_up(true);
    eventually("a lease again", || memory.lease().is_some()).await;
    reader.stop().await;
}
