//! `bench growth`: what one more costs, when there are many already. Each dimension is made larger step
//! by step, and a cost that is more than half again as large at the end as at the beginning is named.

mod body;
mod costs;
mod listening;
mod stored;

use clap::ValueEnum;

use crate::{Result, fill::Shape, kafka::PARTITIONS, report::Section, site::Site};

use costs::Work;
use stored::{Dimension, Step};

/// Of a record's value, where that is not what grows.
const BYTES: u32 = 200;
/// Notifications that each user has, where that is not what grows.
const PER_USER: u64 = 20;

/// What grows.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Users from 100 on, among whom the same number of notifications is divided
    Users,
    /// Notifications from 10,000 on
    Notifications,
    /// Partitions from 1 to 96, of the same number of notifications
    Partitions,
    /// Open streams from 10 to 10,000
    Subscribers,
    /// Messages from 120 bytes to the longest that is allowed
    Body,
    /// All of these, one after the other
    All,
}

/// How far it grows.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct GrowthArgs {
    /// What grows
    #[arg(value_enum, default_value_t = What::All)]
    what: What,

    /// The most notifications; 10000000 need some 5 GB of memory [default: 1000000; quick: 100000]
    #[arg(long, value_name = "COUNT",
          value_parser = clap::value_parser!(u64).range(10_000..=20_000_000))]
    most: Option<u64>,
}

/// Measures what was asked for, one section a dimension.
pub(crate) async fn run(
    site: &mut Site,
    args: &GrowthArgs,
    sections: &mut Vec<Section>,
) -> Result<()> {
    let most = args.most.unwrap_or(if site.options.quick { 100_000 } else { 1_000_000 });
    let asked = |what| args.what == what || args.what == What::All;
    if asked(What::Users) {
        sections.push(users(site, most.min(1_000_000)).await?);
    }
    if asked(What::Notifications) {
        sections.push(notifications(site, most).await?);
    }
    if asked(What::Partitions) {
        sections.push(partitions(site, most.min(200_000)).await?);
    }
    if asked(What::Subscribers) {
        sections.push(listening::run(site).await?);
    }
    if asked(What::Body) {
        sections.push(body::run(site).await?);
    }
    Ok(())
}

async fn users(site: &mut Site, records: u64) -> Result<Section> {
    let step = |users| Step {
        size: users,
        shape: Shape { records, bytes: BYTES, users, partitions: PARTITIONS },
    };
    let dimension = Dimension {
        name: "growth-users",
        title: format!("{records} notifications, divided among more and more users"),
        of: "users",
        work: Work::Stays,
        steps: powers_of_ten(100, records).map(step).collect(),
    };
    dimension.measure(site).await
}

async fn notifications(site: &mut Site, most: u64) -> Result<Section> {
    let step = |records| Step {
        size: records,
        shape: Shape { records, bytes: BYTES, users: records / PER_USER, partitions: PARTITIONS },
    };
    let dimension = Dimension {
        name: "growth-notifications",
        title: format!("more and more notifications, {PER_USER} for each user"),
        of: "notifications",
        work: Work::Grows,
        steps: powers_of_ten(10_000, most).map(step).collect(),
    };
    dimension.measure(site).await
}

async fn partitions(site: &mut Site, records: u64) -> Result<Section> {
    let step = |partitions: u32| Step {
        size: partitions.into(),
        shape: Shape { records, bytes: BYTES, users: records / PER_USER, partitions },
    };
    let dimension = Dimension {
        name: "growth-partitions",
        title: format!("{records} notifications in more and more partitions"),
        of: "partitions",
        work: Work::Stays,
        steps: [1, 3, 12, 48, 96].map(step).into(),
    };
    dimension.measure(site).await
}

/// From `first` on, ending with `last` itself.
fn powers_of_ten(first: u64, last: u64) -> impl Iterator<Item = u64> {
    let below = std::iter::successors(Some(first), |size| Some(size * 10));
    below.take_while(move |size| *size < last).chain([last])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_end_with_the_largest_that_was_asked_for() {
        assert_eq!(powers_of_ten(100, 10_000).collect::<Vec<_>>(), [100, 1000, 10_000]);
        assert_eq!(powers_of_ten(100, 2500).collect::<Vec<_>>(), [100, 1000, 2500]);
    }
}
