//! Claims to partitions: their form in the owners' topic, their signatures, and which of them this
//! instance believes.

use serde::{Deserialize, Serialize};
use service::auth::MessageSigner;
use uuid::Uuid;

use super::peers::PeerNetworks;

/// A larger record is no claim: a URL is the only part without a fixed length.
const MAX_CLAIM_BYTES: usize = 2048;

/// An instance's claim to a partition: the value of a record whose key is the partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnershipClaim {
    pub(crate) partition: i32,
    /// A process has a new one at each start.
    pub(crate) instance: Uuid,
    /// URL at which peers reach the instance.
    pub(crate) url: String,
    pub(crate) state: ClaimState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClaimState {
    Rebuilding,
    Live,
    /// The instance no longer owns the partition.
    Released,
}

/// The value of a record.
#[derive(Serialize, Deserialize)]
struct ClaimRecord {
    #[serde(flatten)]
    claim: OwnershipClaim,
    /// Of [`ClaimRules::signed_text`]. Absent without a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
}

/// Which claims are believed.
#[derive(Clone)]
pub(crate) struct ClaimRules {
    /// The owners' topic. It is part of the signature, so that a claim is of no use in the topic of
    /// another installation with the same secret.
    pub(crate) topic: String,
    /// The URL at which peers reach this instance. Its own claims skip the check of the networks.
    pub(crate) own_url: String,
    pub(crate) partitions: u32,
    pub(crate) networks: PeerNetworks,
    pub(crate) signer: MessageSigner,
    /// Believes claims without a signature although there is a secret.
    pub(crate) accepts_unsigned: bool,
}

/// Why a claim is not believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClaimRefusal {
    #[error("it is no claim")]
    Malformed,
    #[error("the topic has no such partition")]
    UnknownPartition,
    #[error("its URL {0}")]
    Url(&'static str),
    #[error(
        "it has no signature: another program wrote it, or an instance of an older version or \
         without the secret. During an upgrade, --accept-unsigned-claims \
         (CONSUMER_ACCEPT_UNSIGNED_CLAIMS) accepts it"
    )]
    Unsigned,
    #[error("its signature is wrong: another program wrote it, or an instance with another secret")]
    WrongSignature,
}

impl ClaimRules {
    /// The value of the record of this claim.
    pub(crate) fn encode_claim(&self, claim: OwnershipClaim) -> Vec<u8> {
        let signature = self.signer.sign_message(self.signed_text(&claim).as_bytes());
        serde_json::to_vec(&ClaimRecord { claim, signature }).unwrap_or_default()
    }

    /// The claim of a record's value, if it is to be believed.
    pub(crate) fn decode_claim(&self, value: &[u8]) -> Result<OwnershipClaim, ClaimRefusal> {
        if value.len() > MAX_CLAIM_BYTES {
            return Err(ClaimRefusal::Malformed);
        }
        let ClaimRecord { claim, signature } =
            serde_json::from_slice(value).map_err(|_| ClaimRefusal::Malformed)?;
        if !u32::try_from(claim.partition).is_ok_and(|number| number < self.partitions) {
            return Err(ClaimRefusal::UnknownPartition);
        }
        match signature {
            None if self.signer.is_on() && !self.accepts_unsigned => {
                return Err(ClaimRefusal::Unsigned);
            }
            Some(signature)
                if !self.signer.verify_message(self.signed_text(&claim).as_bytes(), &signature) =>
            {
                return Err(ClaimRefusal::WrongSignature);
            }
            _ => {}
        }
        if claim.url != self.own_url {
            self.networks.check_url(&claim.url).map_err(ClaimRefusal::Url)?;
        }
        Ok(claim)
    }

    fn signed_text(&self, claim: &OwnershipClaim) -> String {
        let OwnershipClaim { partition, instance, url, state } = claim;
        format!("{}\n{partition}\n{instance}\n{state:?}\n{url}", self.topic)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Believes any claim of a peer on this machine or in 10.0.0.0/8, without a secret.
    pub(in crate::cluster) fn open_rules() -> ClaimRules {
        let networks = ["127.0.0.0/8", "10.0.0.0/8"].map(|network| network.parse().expect("one"));
        ClaimRules {
            topic: "notifications.owners".into(),
            own_url: "http://me".into(),
            partitions: 4,
            networks: PeerNetworks::new(&networks),
            signer: MessageSigner::default(),
            accepts_unsigned: false,
        }
    }

    fn signed_rules(secret: &str) -> ClaimRules {
        ClaimRules { signer: MessageSigner::from_secret(secret.as_bytes()), ..open_rules() }
    }

    fn claim() -> OwnershipClaim {
        OwnershipClaim {
            partition: 3,
            instance: Uuid::from_u128(7),
            url: "http://10.0.0.7:8081".into(),
            state: ClaimState::Live,
        }
    }

    #[test]
    fn a_claim_is_believed_as_it_was_written_and_not_with_another_url_or_partition() {
        for rules in [open_rules(), signed_rules("secret")] {
            let claim = claim();
            assert_eq!(rules.decode_claim(&rules.encode_claim(claim.clone())), Ok(claim.clone()));
            let elsewhere = OwnershipClaim { url: "http://8.8.8.8:80".into(), ..claim.clone() };
            let refused = rules.decode_claim(&rules.encode_claim(elsewhere));
            assert!(matches!(refused, Err(ClaimRefusal::Url(_))), "{refused:?}");
            for partition in [-1, 4, i32::MAX] {
                let made_up = OwnershipClaim { partition, ..claim.clone() };
                let refused = rules.decode_claim(&rules.encode_claim(made_up));
                assert_eq!(refused, Err(ClaimRefusal::UnknownPartition));
            }
        }
    }

    #[test]
    fn a_forged_claim_is_refused_where_there_is_a_secret() {
        let (ours, claim) = (signed_rules("secret"), claim());
        let unsigned = open_rules().encode_claim(claim.clone());
        assert_eq!(ours.decode_claim(&unsigned), Err(ClaimRefusal::Unsigned));
        let other_secret = signed_rules("another").encode_claim(claim.clone());
        assert_eq!(ours.decode_claim(&other_secret), Err(ClaimRefusal::WrongSignature));
        let other_topic = ClaimRules { topic: "b.owners".into(), ..ours.clone() };
        let replayed = other_topic.encode_claim(claim.clone());
        assert_eq!(ours.decode_claim(&replayed), Err(ClaimRefusal::WrongSignature));
        // A signature counts for one claim.
        let signed = String::from_utf8(ours.encode_claim(claim.clone())).expect("JSON");
        for (what, instead) in
            [("\"live\"", "\"released\""), ("10.0.0.7", "10.0.0.8"), (":3", ":2")]
        {
            let changed = signed.replacen(what, instead, 1);
            assert_ne!(changed, signed);
            let refused = ours.decode_claim(changed.as_bytes());
            assert_eq!(refused, Err(ClaimRefusal::WrongSignature), "{changed}");
        }
    }

    #[test]
    fn an_upgrade_accepts_claims_of_both_versions() {
        let upgrading = ClaimRules { accepts_unsigned: true, ..signed_rules("secret") };
        let claim = claim();
        assert_eq!(
            upgrading.decode_claim(&open_rules().encode_claim(claim.clone())),
            Ok(claim.clone())
        );
        // The older version ignores the signature.
        let signed = upgrading.encode_claim(claim.clone());
        assert_eq!(serde_json::from_slice::<OwnershipClaim>(&signed).ok(), Some(claim.clone()));
        assert_eq!(open_rules().decode_claim(&signed), Ok(claim.clone()));
        let forged = signed_rules("another").encode_claim(claim);
        assert_eq!(upgrading.decode_claim(&forged), Err(ClaimRefusal::WrongSignature));
    }
}
