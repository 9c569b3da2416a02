//! Finds the instance that must answer for a partition. Does not use HTTP.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::{claims::OwnershipClaim, ownership::OwnershipTable};
use crate::view::{View, partition::PartitionView};

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PartitionOwner {
    /// The partition need not be live.
    ThisInstance,
    Peer(OwnershipClaim),
}

pub(crate) struct OwnerResolver {
    view: Arc<View>,
    ownership: OwnershipTable,
}

impl OwnerResolver {
    pub(crate) fn new(view: Arc<View>, ownership: OwnershipTable) -> Self {
        Self { view, ownership }
    }

    pub(crate) fn is_local(&self, partition: i32) -> bool {
        self.view.partition(partition).is_some_and(PartitionView::is_owned)
    }

    /// Finds the owner of a partition. Waits for a change of ownership while no owner is known, or
    /// while the only known claim is `rejected`, which turned out to be outdated. `None` if no
    /// owner appears before `deadline`.
    pub(crate) async fn resolve_owner(
        &self,
        partition: i32,
        rejected: Option<&OwnershipClaim>,
        deadline: Instant,
    ) -> Option<PartitionOwner> {
        let local = self.view.partition(partition)?;
        loop {
            // Subscribed before the table is read, so that a change in between is not missed.
            let changed = self.ownership.subscribe_to_change();
            if local.is_owned() {
                return Some(PartitionOwner::ThisInstance);
            }
            let peer = self.ownership.find_peer(partition);
            if let Some(claim) = peer.filter(|claim| rejected != Some(claim)) {
                return Some(PartitionOwner::Peer(claim));
            }
            let news = async {
                tokio::select! { () = changed => (), () = local.wait_until_owned() => () }
            };
            timeout_at(deadline, news).await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use event_log::PartitionHandler as _;
    use model::Partitioner;
    use uuid::Uuid;

    use super::*;
    use crate::{
        apply::NotificationApplier,
        cluster::{
            claims::{ClaimState, tests::open_rules},
            ownership::OwnersTopicHandler,
        },
        view::Limits,
    };

    const PARTITION: i32 = 3;

    fn resolver() -> (OwnerResolver, OwnershipTable) {
        let limits = Limits { entries: 10, bytes: 1 << 20, age: Duration::from_secs(60) };
        let view = Arc::new(View::new(4, Partitioner::Murmur2, limits));
        let ownership = OwnershipTable::new(open_rules());
        (OwnerResolver::new(view, ownership.clone()), ownership)
    }

    fn claim(instance: u128, state: ClaimState) -> OwnershipClaim {
        OwnershipClaim {
            partition: PARTITION,
            instance: Uuid::from_u128(instance),
            url: format!("http://peer-{instance}"),
            state,
        }
    }

    fn assign_to_this_instance(resolver: &OwnerResolver, ownership: &OwnershipTable) {
        let view = Arc::clone(&resolver.view);
        NotificationApplier::new(view, "notifications".into(), ownership.clone(), None)
            .on_assigned(PARTITION);
    }

    fn apply_claim(ownership: &OwnershipTable, claim: &OwnershipClaim) {
        OwnersTopicHandler::new(ownership).apply_claim(claim.clone());
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn a_partition_without_an_owner_is_given_up_at_the_deadline() {
        let (resolver, _) = resolver();
        assert!(!resolver.is_local(PARTITION));
        assert_eq!(resolver.resolve_owner(PARTITION, None, soon()).await, None);
    }

    #[tokio::test]
    async fn this_instance_goes_before_what_a_peer_claims() {
        let (resolver, ownership) = resolver();
        apply_claim(&ownership, &claim(1, ClaimState::Live));
        assign_to_this_instance(&resolver, &ownership);
        assert!(resolver.is_local(PARTITION));
        let owner = resolver.resolve_owner(PARTITION, None, soon()).await;
        assert_eq!(owner, Some(PartitionOwner::ThisInstance));
    }

    #[tokio::test]
    async fn a_peer_that_claims_the_partition_owns_it_live_or_not() {
        let (resolver, ownership) = resolver();
        let rebuilding = claim(1, ClaimState::Rebuilding);
        apply_claim(&ownership, &rebuilding);
        let owner = resolver.resolve_owner(PARTITION, None, soon()).await;
        assert_eq!(owner, Some(PartitionOwner::Peer(rebuilding)));
    }

    #[tokio::test]
    async fn a_rejected_claim_is_not_tried_again_and_the_next_one_is() {
        let (resolver, ownership) = resolver();
        let (old, new) = (claim(1, ClaimState::Live), claim(2, ClaimState::Rebuilding));
        apply_claim(&ownership, &old);
        assert_eq!(resolver.resolve_owner(PARTITION, Some(&old), soon()).await, None);
        let (owner, ()) =
            tokio::join!(resolver.resolve_owner(PARTITION, Some(&old), later()), async {
                tokio::task::yield_now().await;
                apply_claim(&ownership, &new);
            });
        assert_eq!(owner, Some(PartitionOwner::Peer(new)));
    }

    #[tokio::test]
    async fn an_assignment_to_this_instance_ends_the_wait() {
        let (resolver, ownership) = resolver();
        let (owner, ()) = tokio::join!(resolver.resolve_owner(PARTITION, None, later()), async {
            tokio::task::yield_now().await;
            assign_to_this_instance(&resolver, &ownership);
        });
        assert_eq!(owner, Some(PartitionOwner::ThisInstance));
    }
}
