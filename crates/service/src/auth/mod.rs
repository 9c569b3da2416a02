//! Authentication by a JSON Web Token (RFC 7519) in `Authorization: Bearer` (RFC 6750). Routes take
//! a [`Caller`] and decide on permissions.

mod settings;
mod keys;
mod caller;
mod token;
mod remembered;
mod hs256;
mod message;
mod layer;
#[cfg(test)]
mod fuzz;

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::task::spawn_blocking;

pub use caller::{Caller, TokenRefusal, TokenValidity};
pub use hs256::install_provider;
pub use keys::KeyError;
use keys::{KeyMaterial, VerificationKeys};
pub use layer::{OPERATE, TokenIn};
pub use message::MessageSigner;
pub use settings::{AuthArgs, TokenArgs};

/// Verifies tokens. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Auth(Option<Arc<AuthState>>);

struct AuthState {
    /// The service, as a metrics label.
    service: &'static str,
    args: AuthArgs,
    /// The keys read at the start.
    first: KeyMaterial,
    /// Replaced as a whole when the files change.
    keys: RwLock<Arc<VerificationKeys>>,
    signer: MessageSigner,
}

impl Auth {
    /// From the settings; off, if they name no key.
    pub fn from_args(service: &'static str, args: &AuthArgs) -> Result<Self, KeyError> {
        if !args.is_on() {
            return Ok(Self(None));
        }
        install_provider();
        let read = KeyMaterial::read(args)?;
        let keys = read.clone().into_keys()?;
        let signer = read.secret().map(MessageSigner::from_secret).unwrap_or_default();
        Ok(Self(Some(Arc::new(AuthState {
            service,
            args: args.clone(),
            first: read,
            keys: RwLock::new(Arc::new(keys)),
            signer,
        }))))
    }

    /// Signs messages between instances with the secret that signs tokens, if there is one.
    #[must_use]
    pub fn message_signer(&self) -> MessageSigner {
        self.0.as_ref().map(|state| state.signer.clone()).unwrap_or_default()
    }

    /// Returns true if callers must authenticate.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the key files at an interval, for ever, so that keys rotate without a restart. A key
    /// that is no longer there is withdrawn, which ends what was opened with its tokens. If the
    /// files cannot be used, the previous keys stay and a warning is logged.
    pub async fn reread_keys(self) {
        let Some(shared) = self.0 else { return std::future::pending().await };
        let mut seen = Ok(shared.first.clone());
        loop {
            tokio::time::sleep(shared.args.auth_reread).await;
            let reading = Arc::clone(&shared);
            let read = spawn_blocking(move || KeyMaterial::read(&reading.args)).await;
            let Ok(read) = read else { continue };
            if seen == read {
                continue;
            }
            match read.clone().and_then(KeyMaterial::into_keys) {
                Ok(mut keys) => {
                    tracing::info!(keys = keys.len(), "reloaded the keys that verify tokens");
                    let earlier = Arc::clone(&shared.keys.read());
                    keys.continue_from(&earlier);
                    let keys = Arc::new(keys);
                    // First: a client whose stream ends comes back at once with the same token.
                    *shared.keys.write() = Arc::clone(&keys);
                    earlier.withdraw_missing(&keys);
                    shared.signer.replace_secret(read.as_ref().ok().and_then(KeyMaterial::secret));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot reload the keys that verify tokens; keeping the previous ones");
                }
            }
            seen = read;
        }
    }
}
