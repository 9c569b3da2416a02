//! A large topic, and an empty one beside it: `rebuild`, `memory` and `growth` start consumers on
//! both.

use model::User;

use crate::{
    Result,
    kafka::{BenchTopic, PARTITIONS},
    load::run_on_thread,
    print_status, records,
    testbed::Testbed,
};

/// Size of the topic.
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

/// Size of a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopicSize {
    pub(crate) records: u64,
    pub(crate) value_bytes: u32,
    /// Recipients, in turns.
    pub(crate) users: u64,
    pub(crate) partitions: u32,
}

/// Both topics.
#[derive(Debug, Clone)]
pub(crate) struct FilledTopic {
    pub(crate) full: BenchTopic,
    /// The time and memory of a start on it are to be subtracted from those of a start on `full`.
    pub(crate) empty: BenchTopic,
    pub(crate) size: TopicSize,
}

impl FilledTopic {
    pub(crate) async fn from_args(testbed: &mut Testbed, args: &FillArgs) -> Result<Self> {
        let users = (args.records / args.per_user).max(1);
        let (records, value_bytes) = (args.records, args.bytes);
        let size = TopicSize { records, value_bytes, users, partitions: PARTITIONS };
        Self::create(testbed, size).await
    }

    /// Creates both topics and fills one.
    pub(crate) async fn create(testbed: &mut Testbed, size: TopicSize) -> Result<Self> {
        let TopicSize { records: count, value_bytes, users, partitions } = size;
        let full = testbed.create_topic("full", partitions).await?;
        let empty = testbed.create_topic("empty", partitions).await?;
        print_status(format_args!("filling a topic: {count} records for {users} users"));
        let (kafka, topic) = (testbed.kafka.clone(), full.clone());
        let length = usize::try_from(value_bytes)?;
        run_on_thread(async move || {
            // Users in turns, as with real senders: a user's notifications are far apart.
            let users =
                (0..users).map(records::generated_user).collect::<Result<Vec<User<'_>>>>()?;
            let recipients = users.iter().cycle().zip(0..count);
            let encode = |(user, _)| records::encode_with_size(user, length);
            kafka.fill_topic(&topic, recipients.map(encode)).await
        })
        .await?;
        Ok(Self { full, empty, size })
    }

    /// The full or the empty topic, and its records.
    pub(crate) fn select(&self, full: bool) -> (&BenchTopic, u64) {
        if full { (&self.full, self.size.records) } else { (&self.empty, 0) }
    }
}
