//! The client that fetches metadata and watermarks and creates topics. A client of its own, so that
//! these requests never wait behind records.
//!
//! librdkafka loses all its brokers, for good, if a Metadata response names none of them, as that of
//! a broker that was fenced for a moment does (confluentinc/librdkafka#5301). Such a client is
//! replaced, here after its requests have failed for a while.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use rdkafka::{
    ClientConfig,
    admin::AdminClient,
    client::Client,
    config::FromClientConfigAndContext,
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use super::context::ClientLog;
use crate::LogUnreachable;

/// How long requests must have failed until the client is replaced. Longer than brokers take for a
/// restart; while they are away, replacing it does no harm.
const REPLACE_AFTER: Duration = Duration::from_secs(10);

/// A cheap handle, to be cloned.
#[derive(Clone)]
pub(super) struct AdminHandle(Arc<AdminShared>);

struct AdminShared {
    config: ClientConfig,
    client: RwLock<Arc<AdminClient<ClientLog>>>,
    /// No broker has answered since.
    failing_since: Mutex<Option<Instant>>,
}

impl AdminHandle {
    pub(super) fn new(config: ClientConfig) -> Result<Self, LogUnreachable> {
        let client = RwLock::new(Arc::new(new_client(&config)?));
        Ok(Self(Arc::new(AdminShared { config, client, failing_since: Mutex::default() })))
    }

    pub(super) fn client(&self) -> Arc<AdminClient<ClientLog>> {
        Arc::clone(&self.0.client.read())
    }

    /// Runs a blocking request.
    pub(super) fn query<T>(
        &self,
        query: impl FnOnce(&Client<ClientLog>) -> KafkaResult<T>,
    ) -> KafkaResult<T> {
        let answer = query(self.client().inner());
        self.record_outcome(answer.as_ref().err().and_then(KafkaError::rdkafka_error_code));
        answer
    }

    fn record_outcome(&self, error: Option<RDKafkaErrorCode>) {
        let mut failing_since = self.0.failing_since.lock();
        if !matches!(
            error,
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::OperationTimedOut
            )
        ) {
            *failing_since = None;
            return;
        }
        let since = *failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= REPLACE_AFTER {
            match new_client(&self.0.config) {
                Ok(client) => *self.0.client.write() = Arc::new(client),
                Err(error) => tracing::error!(%error, "cannot replace the Kafka client"),
            }
            *failing_since = None;
        }
    }
}

fn new_client(config: &ClientConfig) -> Result<AdminClient<ClientLog>, LogUnreachable> {
    AdminClient::from_config_and_context(config, ClientLog::new("admin"))
        .map_err(|error| LogUnreachable(format!("Kafka client: {error}")))
}
