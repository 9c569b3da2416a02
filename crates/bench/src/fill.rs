//! A large topic, and an empty one beside it: what `rebuild` and `memory` start consumers on.

use model::User;

use crate::{
    Result,
    kafka::{PARTITIONS, Topic},
    records, say,
    site::Site,
};

/// How large the topic is.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct FillArgs {
    /// Records to rebuild from
    #[arg(long, default_value_t = 500_000, value_name = "COUNT",
          value_parser = clap::value_parser!(u64).range(1_000..=20_000_000))]
    pub(crate) records: u64,

    /// Length of a record's value
    #[arg(long, default_value_t = 200, value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(120..=4000))]
    pub(crate) bytes: u32,

    /// Notifications that each user has
    #[arg(long, default_value_t = 20, value_name = "COUNT",
          value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) per_user: u64,
}

/// Both topics.
#[derive(Debug, Clone)]
pub(crate) struct Filled {
    /// Holds the records.
    pub(crate) full: Topic,
    /// Holds nothing: starting on it takes all the time and memory that the records do not.
    pub(crate) empty: Topic,
    pub(crate) records: u64,
    /// Of each record's value.
    pub(crate) bytes: u32,
    /// Every user has about as many notifications as any other.
    pub(crate) users: u64,
}

/// What a topic is to hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) records: u64,
    /// Of each record's value.
    pub(crate) bytes: u32,
    pub(crate) users: u64,
    pub(crate) partitions: u32,
}

impl Filled {
    /// Makes and fills them as the arguments say.
    pub(crate) async fn make(site: &mut Site, args: &FillArgs) -> Result<Self> {
        let users = (args.records / args.per_user).max(1);
        let (records, bytes) = (args.records, args.bytes);
        Self::of(site, Shape { records, bytes, users, partitions: PARTITIONS }).await
    }

    /// Makes and fills them.
    pub(crate) async fn of(site: &mut Site, shape: Shape) -> Result<Self> {
        let Shape { records: count, bytes, users, partitions } = shape;
        let full = site.topic_of("full", partitions).await?;
        let empty = site.topic_of("empty", partitions).await?;
        say(format_args!("filling a topic: {count} records for {users} users"));
        let (kafka, topic) = (site.kafka.clone(), full.clone());
        let length = usize::try_from(bytes)?;
        let records = tokio::task::spawn_blocking(move || {
            // One after the other, as senders would: a user's notifications are far apart.
            let crowd = (0..users).map(records::somebody).collect::<Result<Vec<User<'_>>>>()?;
            let mut failed = None;
            let records = crowd.iter().cycle().zip(0..count).map_while(|(user, _)| {
                records::of_size(user, length).map_err(|error| failed = Some(error)).ok()
            });
            let written = kafka.fill(&topic, records)?;
            failed.map_or(Ok(written), Err)
        });
        let records = records.await??;
        Ok(Self { full, empty, records, bytes, users })
    }
}
