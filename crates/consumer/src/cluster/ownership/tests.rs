//! Claims that contradict each other, without a log.

use super::*;
use crate::cluster::claims::tests::open_rules;

fn table() -> OwnershipTable {
    OwnershipTable::new(open_rules())
}

fn claim(table: &OwnershipTable, instance: u128, state: ClaimState) {
    let (instance, url) = (Uuid::from_u128(instance), format!("http://peer-{instance}"));
    apply(table, OwnershipClaim { partition: 3, instance, url, state });
}

fn apply(table: &OwnershipTable, claim: OwnershipClaim) {
    let value = table.0.rules.encode_claim(claim);
    OwnersTopicHandler::new(table).on_record(&Record {
        partition: 0,
        offset: 0,
        timestamp_ms: 0,
        key: Some(b"3"),
        value: Some(&value),
        headers: smallvec::SmallVec::new(),
    });
}

/// A table of an instance that owns partition 3 and has announced it.
async fn announced() -> OwnershipTable {
    let table = table();
    table.on_assigned(3);
    table.0.own.lock().pending.clear();
    table.0.wake_announcer.notified().await;
    apply(&table, own_claim(&table, ClaimState::Rebuilding));
    table
}

fn own_claim(table: &OwnershipTable, state: ClaimState) -> OwnershipClaim {
    let (instance, url) = (table.0.instance, table.0.rules.own_url.clone());
    OwnershipClaim { partition: 3, instance, url, state }
}

async fn expect_reannouncement(table: &OwnershipTable) {
    // The re-announcement wakes the announcer.
    let woken =
        tokio::time::timeout(Duration::from_secs(60), table.0.wake_announcer.notified()).await;
    assert!(woken.is_ok());
    assert_eq!(table.0.own.lock().pending.get(&3), Some(&ClaimState::Rebuilding));
}

#[tokio::test]
async fn a_release_that_comes_after_the_next_owner_s_claim_changes_nothing() {
    let table = table();
    claim(&table, 1, ClaimState::Live);
    claim(&table, 2, ClaimState::Rebuilding);
    claim(&table, 1, ClaimState::Released);
    assert_eq!(table.find_peer(3).map(|owner| owner.url), Some("http://peer-2".into()));
    claim(&table, 2, ClaimState::Released);
    assert_eq!(table.find_peer(3), None);
}

#[tokio::test]
async fn a_foreign_claim_to_what_is_ours_is_contradicted() {
    let table = announced().await;
    claim(&table, 2, ClaimState::Live);
    expect_reannouncement(&table).await;
}

#[tokio::test]
async fn a_forged_release_or_url_of_what_is_ours_is_contradicted() {
    let table = announced().await;
    apply(&table, own_claim(&table, ClaimState::Released));
    assert_eq!(table.find_owner(3), None);
    expect_reannouncement(&table).await;
    let table = announced().await;
    let forged = own_claim(&table, ClaimState::Live);
    apply(&table, OwnershipClaim { url: "http://10.0.0.66:80".into(), ..forged });
    expect_reannouncement(&table).await;
}

#[tokio::test]
async fn a_flood_of_forged_claims_is_contradicted_once_in_each_delay() {
    let table = announced().await;
    for instance in 1000..2000 {
        claim(&table, instance, ClaimState::Live);
    }
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 1);
    expect_reannouncement(&table).await;
}

#[tokio::test]
async fn a_peer_that_answered_is_the_owner_until_a_claim_says_otherwise() {
    let table = table();
    let peer = OwnershipClaim {
        partition: 1,
        instance: Uuid::from_u128(1),
        url: "http://peer-1".into(),
        state: ClaimState::Live,
    };
    apply(&table, peer.clone());
    apply(&table, OwnershipClaim { partition: 2, ..peer.clone() });
    let guess = OwnershipClaim { partition: 3, ..peer };
    assert_eq!(table.guess_owners(3), vec![guess.clone()], "each peer once");
    table.note_guess(guess.clone());
    assert_eq!(table.find_peer(3), Some(guess));
    claim(&table, 2, ClaimState::Live);
    assert_eq!(table.find_peer(3).map(|owner| owner.url), Some("http://peer-2".into()));
}

#[tokio::test]
async fn peers_own_everything_once_the_topic_was_read_to_its_end_and_each_partition_has_one() {
    let table = table();
    claim(&table, 1, ClaimState::Live);
    assert!(!table.has_peer_for_all([3].into_iter()), "the release may still come");
    OwnersTopicHandler::new(&table).on_live(0);
    assert!(table.has_peer_for_all([3].into_iter()));
    assert!(!table.has_peer_for_all([3, 4].into_iter()));
    claim(&table, 1, ClaimState::Released);
    assert!(!table.has_peer_for_all([3].into_iter()));
}
