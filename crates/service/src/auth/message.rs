//! Signatures of messages between the instances of a service: HMAC-SHA256 (RFC 2104) with the secret
//! that signs tokens.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::RwLock;
use sha2::Sha256;
use tokio::sync::watch;

/// How long the previous secret still verifies: instances read a new one at different times.
const PREVIOUS_SECRET_TTL: Duration = Duration::from_secs(5 * 60);

/// Comes before each signed message. A token's signed text never begins so, because base64url has no
/// spaces (RFC 7515, section 7.1).
const PREFIX: &[u8] = b"message between instances\n";

/// Signs and verifies messages. Without a secret it signs nothing and believes everything. A cheap
/// handle, to be cloned.
#[derive(Clone, Default)]
pub struct MessageSigner(Option<Arc<SignerState>>);

struct SignerState {
    secrets: RwLock<Secrets>,
    changed: watch::Sender<()>,
}

struct Secrets {
    current: Vec<u8>,
    /// And until when it verifies.
    previous: Option<(Vec<u8>, Instant)>,
}

impl MessageSigner {
    /// Signs with this secret.
    #[must_use]
    pub fn from_secret(secret: &[u8]) -> Self {
        let secrets = RwLock::new(Secrets { current: secret.to_vec(), previous: None });
        Self(Some(Arc::new(SignerState { secrets, changed: watch::Sender::new(()) })))
    }

    /// Returns true if there is a secret.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The signature as a hexadecimal number. `None` without a secret.
    #[must_use]
    pub fn sign_message(&self, message: &[u8]) -> Option<String> {
        let mac = begin_mac(&self.0.as_ref()?.secrets.read().current, message)?;
        let mut text = String::with_capacity(64);
        for byte in mac.finalize().into_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        Some(text)
    }

    /// Returns true if this is the message's signature with the secret, or with the previous one
    /// shortly after a change. Always true without a secret.
    #[must_use]
    pub fn verify_message(&self, message: &[u8], signature: &str) -> bool {
        let Some(state) = &self.0 else { return true };
        let Some(signature) = parse_hex(signature) else { return false };
        let secrets = state.secrets.read();
        let previous = secrets.previous.iter().filter(|(_, until)| Instant::now() < *until);
        let mut usable = previous.map(|(secret, _)| secret).chain([&secrets.current]);
        // `verify_slice` compares in constant time.
        usable.any(|secret| {
            begin_mac(secret, message).is_some_and(|mac| mac.verify_slice(&signature).is_ok())
        })
    }

    /// Returns a future that resolves when the secret changes after this call. Never, without one.
    pub fn subscribe_to_change(&self) -> impl Future<Output = ()> + Send + use<> {
        let changed = self.0.as_ref().map(|state| state.changed.subscribe());
        async move {
            let Some(mut changed) = changed else { return std::future::pending().await };
            // Fails only at the end of the process.
            let _ = changed.changed().await;
        }
    }

    pub(super) fn replace_secret(&self, secret: Option<&[u8]>) {
        let (Some(state), Some(secret)) = (&self.0, secret) else { return };
        let mut secrets = state.secrets.write();
        if secrets.current == secret {
            return;
        }
        let previous = std::mem::replace(&mut secrets.current, secret.to_vec());
        secrets.previous = Some((previous, Instant::now() + PREVIOUS_SECRET_TTL));
        drop(secrets);
        state.changed.send_replace(());
    }
}

fn begin_mac(secret: &[u8], message: &[u8]) -> Option<Hmac<Sha256>> {
    let mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    Some(mac.chain_update(PREFIX).chain_update(message))
}

/// `None` unless the text is 64 hexadecimal digits.
fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"an old secret of thirty-two bytes";
    const NEW: &[u8] = b"a new secret of thirty-two bytes.";

    #[test]
    fn only_this_message_with_this_secret_has_this_signature() {
        let signer = MessageSigner::from_secret(OLD);
        let signature = signer.sign_message(b"claim").expect("a signature");
        assert!(signer.verify_message(b"claim", &signature));
        assert!(signer.verify_message(b"claim", &signature.to_uppercase()));
        assert!(!signer.verify_message(b"other", &signature));
        assert!(!MessageSigner::from_secret(NEW).verify_message(b"claim", &signature));
        for forged in ["", "00", &signature[1..], &"+0".repeat(32), &"é".repeat(32)] {
            assert!(!signer.verify_message(b"claim", forged), "{forged}");
        }
    }

    #[test]
    fn without_a_secret_nothing_is_signed_and_everything_is_believed() {
        let signer = MessageSigner::default();
        assert_eq!(signer.sign_message(b"claim"), None);
        assert!(!signer.is_on() && signer.verify_message(b"claim", ""));
    }

    #[tokio::test]
    async fn the_previous_secret_verifies_for_a_while_and_signs_no_more() {
        let signer = MessageSigner::from_secret(OLD);
        let old = signer.sign_message(b"claim").expect("a signature");
        let changed = signer.subscribe_to_change();
        signer.replace_secret(Some(OLD));
        signer.replace_secret(Some(NEW));
        changed.await;
        let new = signer.sign_message(b"claim").expect("a signature");
        assert_ne!(old, new);
        assert!(signer.verify_message(b"claim", &old) && signer.verify_message(b"claim", &new));
        let state = signer.0.as_ref().expect("a secret");
        state.secrets.write().previous.as_mut().expect("the previous secret").1 = Instant::now();
        assert!(!signer.verify_message(b"claim", &old) && signer.verify_message(b"claim", &new));
    }
}
