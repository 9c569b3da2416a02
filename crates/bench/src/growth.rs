//! `bench growth`: the cost of one more user, notification, partition, stream or byte when there
//! are many already. Each dimension grows step by step; a cost that ends more than half again as
//! large as it began is named in the report.

mod costs;
mod stored;

use std::time::Duration;

use clap::ValueEnum;

use crate::{
    Result,
    fanout::measure_burst,
    figures::{Sample, median},
    fill::TopicSize,
    http::send_request,
    kafka::PARTITIONS,
    load::{LoadProfile, send_load},
    loops::alternate,
    print_status,
    records::USERS,
    report::Section,
    testbed::Testbed,
};

use costs::{Cost, Dimension, TotalWork};

/// Length of values, except in the dimension that grows it.
const VALUE_BYTES: u32 = 200;
/// Notifications of each user, except in the dimension that grows them.
const PER_USER: u64 = 20;
/// Numbers of open streams.
const STREAMS: [u16; 4] = [10, 100, 1000, 10_000];
/// Lengths of messages in bytes; the last is the longest that is allowed.
const LENGTHS: [u16; 4] = [120, 400, 1500, 4096];
const CONNECTIONS: usize = 64;

/// The dimension that grows.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrowthOf {
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

/// Dimension and limit of the growth.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct GrowthArgs {
    /// What grows
    #[arg(value_enum, default_value_t = GrowthOf::All)]
    what: GrowthOf,

    /// The most notifications; 10000000 need some 5 GB of memory [default: 1000000; quick: 100000]
    #[arg(long, value_name = "COUNT",
          value_parser = clap::value_parser!(u64).range(10_000..=20_000_000))]
    most: Option<u64>,
}

/// Measures the requested dimensions, one section each.
pub(crate) async fn measure(
    testbed: &mut Testbed,
    args: &GrowthArgs,
    sections: &mut Vec<Section>,
) -> Result<()> {
    let most = args.most.unwrap_or(if testbed.options.quick { 100_000 } else { 1_000_000 });
    let is_requested = |what| args.what == what || args.what == GrowthOf::All;
    for (what, dimension, sizes) in stored_dimensions(most) {
        if is_requested(what) {
            sections.push(stored::measure(testbed, dimension, &sizes).await?);
        }
    }
    if is_requested(GrowthOf::Subscribers) {
        sections.push(measure_streams(testbed).await?);
    }
    if is_requested(GrowthOf::Body) {
        sections.push(measure_bodies(testbed).await?);
    }
    Ok(())
}

/// The dimensions of stored notifications, with the topic's size at each step.
fn stored_dimensions(most: u64) -> [(GrowthOf, Dimension, Vec<TopicSize>); 3] {
    let (most_users, records) = (most.min(1_000_000), most.min(200_000));
    let topic = |records, users, partitions| TopicSize {
        records,
        value_bytes: VALUE_BYTES,
        users,
        partitions,
    };
    let entry = |what, name, unit, work, title, steps: Vec<(u64, TopicSize)>| {
        let (sizes, topics) = steps.into_iter().map(|(size, topic)| (size as f64, topic)).unzip();
        (what, Dimension { name, title, unit, work, sizes }, topics)
    };
    let by_users =
        powers_of_ten(100, most_users).map(|users| (users, topic(most_users, users, PARTITIONS)));
    let by_records = powers_of_ten(10_000, most)
        .map(|records| (records, topic(records, records / PER_USER, PARTITIONS)));
    let by_partitions = [1, 3, 12, 48, 96]
        .map(|partitions| (partitions.into(), topic(records, records / PER_USER, partitions)));
    [
        entry(
            GrowthOf::Users,
            "growth-users",
            "users",
            TotalWork::Constant,
            format!("{most_users} notifications, divided among more and more users"),
            by_users.collect(),
        ),
        entry(
            GrowthOf::Notifications,
            "growth-notifications",
            "notifications",
            TotalWork::Grows,
            format!("more and more notifications, {PER_USER} for each user"),
            by_records.collect(),
        ),
        entry(
            GrowthOf::Partitions,
            "growth-partitions",
            "partitions",
            TotalWork::Constant,
            format!("{records} notifications in more and more partitions"),
            by_partitions.into(),
        ),
    ]
}

/// From `first` on, ending with `last` itself.
fn powers_of_ten(first: u64, last: u64) -> impl Iterator<Item = u64> {
    let below = std::iter::successors(Some(first), |size| Some(size * 10));
    below.take_while(move |size| *size < last).chain([last])
}

/// More and more open streams.
async fn measure_streams(testbed: &mut Testbed) -> Result<Section> {
    let counts = &STREAMS[..if testbed.options.quick { 3 } else { 4 }];
    let (mut memory, mut late, mut each) = (Vec::new(), Vec::new(), Vec::new());
    for &count in counts {
        print_status(format_args!("growth-subscribers: {count}"));
        let topic = testbed.create_topic("listening", PARTITIONS).await?;
        let (consumer, _) = testbed.start_consumer(&topic, 0).await?;
        // Memory of the first burst, before which the process had no stream; lateness of the
        // second, when caches and connections are warm.
        let first = measure_burst(&testbed.kafka, &topic, &consumer, count.into()).await?;
        let second = measure_burst(&testbed.kafka, &topic, &consumer, count.into()).await?;
        testbed.delete_topic(&topic).await?;
        memory.push(Some(first.stream_bytes));
        late.push(Some(second.lateness_ms));
        each.push(Some(second.lateness_ms * 1000.0 / f64::from(count)));
    }
    let dimension = Dimension {
        name: "growth-subscribers",
        title: "more and more open streams, one notification each in one burst".into(),
        unit: "subscribers",
        work: TotalWork::Grows,
        sizes: counts.iter().map(|count| f64::from(*count)).collect(),
    };
    let judged = [
        Cost::new("memory of an idle stream, bytes", memory),
        Cost::new("lateness of the last event, µs a stream", each),
    ];
    let beside = [Cost::new("the last event is late by, ms", late)];
    let note = "The memory of few streams is lost in what a process's memory varies by.";
    Ok(dimension.into_section(&judged, &beside, Some(note.into())))
}

/// Longer and longer messages to send.
async fn measure_bodies(testbed: &mut Testbed) -> Result<Section> {
    let topic = testbed.create_topic("body", PARTITIONS).await?;
    let producer = testbed.start_producer(&topic, &[]).await?;
    let requests = LENGTHS.map(|length| {
        let message = "x".repeat(length.into());
        USERS.map(|(id, _)| send_request(id, &message))
    });
    let round = Duration::from_secs(if testbed.options.quick { 1 } else { 4 });
    let profile = LoadProfile::closed(CONNECTIONS, round);
    let names = LENGTHS.map(|length| format!("{length} bytes"));
    let names = names.each_ref().map(String::as_str);
    let show = |sample: &Sample| format!("{:.0} sends/s", sample.value);
    let rounds = testbed.options.open_loop_rounds();
    let samples = alternate("growth-body", rounds, &names, show, async |length| {
        send_load(&producer, &requests[length], &profile).await
    });
    let samples = samples.await?;

    let medians = |figure: fn(&Sample) -> Option<f64>| -> Vec<_> {
        samples.iter().map(|samples| median(samples, figure)).collect()
    };
    let (rates, cpu) = (medians(|sample| Some(sample.value)), medians(|sample| sample.cpu_us));
    let by_length = |figures: &[Option<f64>], each: fn(f64, f64) -> f64| -> Vec<_> {
        let pairs = figures.iter().zip(LENGTHS);
        pairs.map(|(figure, length)| figure.map(|figure| each(figure, length.into()))).collect()
    };
    let dimension = Dimension {
        name: "growth-body",
        title: format!("POST /send of longer and longer messages, {CONNECTIONS} connections"),
        unit: "bytes of a message",
        work: TotalWork::Grows,
        sizes: LENGTHS.map(f64::from).to_vec(),
    };
    let cpu_per_byte = by_length(&cpu, |cpu, length| cpu * 1000.0 / length);
    let time_per_byte = by_length(&rates, |rate, length| 1e9 / (rate * length));
    let judged = [
        Cost::new("processor time, ns a byte", cpu_per_byte),
        Cost::new("time, ns a byte", time_per_byte),
    ];
    let beside = [
        Cost::new("processor time of a send, µs", cpu),
        Cost::new("sends/s", rates),
        Cost::new("p50, ms", medians(|sample| sample.p50_ms)),
    ];
    Ok(dimension.into_section(&judged, &beside, None))
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
