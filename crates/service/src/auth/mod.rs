//! Who asks: a JSON Web Token (RFC 7519) in `Authorization: Bearer` (RFC 6750) says it, and its
//! signature proves it. What a caller may do is for the routes, which take a [`Caller`].
//!
//! `settings` says where the keys are, `keys` reads them, `token` verifies and makes tokens,
//! `refusal` says why one opens nothing, `caller` is what a verified token says, `layer` asks every
//! request of a router.

mod settings;
mod keys;
mod refusal;
mod caller;
mod token;
mod hs256;
mod layer;
#[cfg(test)]
mod fuzz;

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;

pub use caller::Caller;
pub use hs256::install_provider;
pub use keys::KeyError;
use keys::{Keys, Material, Sources};
pub use layer::{OPERATE, TokenIn};
pub use refusal::Refusal;
pub use settings::{AuthArgs, TokenArgs};

/// Verifies tokens. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Auth(Option<Arc<Shared>>);

struct Shared {
    /// Which service asks, for the metrics.
    service: &'static str,
    sources: Sources,
    /// What they held at the start.
    first: Material,
    /// Replaced as a whole when what the sources hold has changed.
    keys: RwLock<Arc<Keys>>,
    audience: String,
    issuer: Option<String>,
    reread: Duration,
}

impl Auth {
    /// As the settings say; off, if they name no key.
    ///
    /// # Errors
    /// [`KeyError`], when a key cannot be read or is too weak.
    pub fn open(service: &'static str, args: &AuthArgs) -> Result<Self, KeyError> {
        let Some(sources) = Sources::of(args) else { return Ok(Self(None)) };
        install_provider();
        let read = sources.read()?;
        let keys = read.clone().into_keys()?;
        Ok(Self(Some(Arc::new(Shared {
            service,
            sources,
            first: read,
            keys: RwLock::new(Arc::new(keys)),
            audience: args.auth_audience.clone(),
            issuer: args.auth_issuer.clone(),
            reread: args.auth_reread,
        }))))
    }

    /// Whether callers are asked who they are.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the keys again and again, so that they can be rotated without a restart; for ever.
    /// Keys that cannot be read or used leave those of before in place, and are warned of.
    pub async fn watch(self) {
        let Some(shared) = self.0 else { return std::future::pending().await };
        let mut seen = Ok(shared.first.clone());
        loop {
            tokio::time::sleep(shared.reread).await;
            let reading = Arc::clone(&shared);
            let Ok(read) = tokio::task::spawn_blocking(move || reading.sources.read()).await else {
                continue;
            };
            if seen == read {
                continue;
            }
            match read.clone().and_then(Material::into_keys) {
                Ok(keys) => {
                    tracing::info!(keys = keys.len(), "the keys that verify tokens changed");
                    *shared.keys.write() = Arc::new(keys);
                }
                Err(error) => {
                    tracing::warn!(%error, "the keys that verify tokens stay as they were");
                }
            }
            seen = read;
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_on() { "Auth(on)" } else { "Auth(off)" })
    }
}
