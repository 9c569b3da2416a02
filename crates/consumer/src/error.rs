//! The errors that end a consumer.

/// Why the consumer ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// A topic differs from the settings, or cannot be created.
    #[error(transparent)]
    Topic(#[from] event_log::TopicError),
    /// The log's client cannot be created.
    #[error(transparent)]
    Log(#[from] event_log::LogUnreachable),
    /// The keys that verify tokens are not usable.
    #[error(transparent)]
    Keys(#[from] service::auth::KeyError),
    /// The listener has no address.
    #[error(transparent)]
    Listen(#[from] std::io::Error),
}
